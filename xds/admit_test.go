// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Whoever cannot say who they are use up nothing that proxies need, and after a while are not even looked at.
func TestStrangersDoNotLockProxiesOut(t *testing.T) {
	hub := newShelf()
	looked := 0
	srv := NewServer(hub, ServerConfig{
		StreamsPerSecond: 1e-9, FailuresPerSecond: 1e-9, // one of each
		Authenticate: func(ctx context.Context) (string, error) {
			looked++
			if md, _ := metadata.FromIncomingContext(ctx); len(md["token"]) == 0 {
				return "", errors.New("no token")
			}
			return "spiffe://cluster.local/ns/shop/sa/web", nil
		},
	})
	from := func(addr string, token ...string) context.Context {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))})
		return metadata.NewIncomingContext(ctx, metadata.MD{"token": token})
	}
	ended := errors.New("the client went away")
	for i, step := range []struct {
		ctx    context.Context
		looked int
		want   codes.Code
	}{
		{from("10.0.0.1:1"), 1, codes.Unauthenticated},
		{from("10.0.0.1:2"), 1, codes.ResourceExhausted},
		{from("[::ffff:10.0.0.1]:2"), 1, codes.ResourceExhausted}, // the same
		{from("[2001:db8::1]:1"), 2, codes.Unauthenticated},
		{from("[2001:db8::2]:1"), 2, codes.ResourceExhausted}, // of the same /64
		{from("10.0.0.2:1", "t"), 3, codes.Unknown},           // admitted, and ends by itself
		{from("10.0.0.2:2", "t"), 4, codes.ResourceExhausted}, // authenticated, but one too many
		{from("10.0.0.2:3"), 5, codes.Unauthenticated},        // who succeeded was not counted
	} {
		err := srv.serve(step.ctx, gone{err: ended})
		if status.Code(err) != step.want || looked != step.looked {
			t.Errorf("step %d: %v, %d looked at; want %v, %d", i, err, looked, step.want, step.looked)
		}
	}
	l := newLimiter(1, 1)
	for i := range 3 * maxPeers {
		l.take(netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), 32), time.Now())
	}
	if len(l.peers) > maxPeers {
		t.Errorf("%d peers are counted", len(l.peers))
	}
}

// gone is a stream whose client has left.
type gone struct {
	dialect
	err error
}

func (g gone) recv() (*request, error) { return nil, g.err }
