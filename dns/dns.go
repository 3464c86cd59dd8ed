// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package dns answers questions for mesh names and forwards the rest. The life of one question, in file order:
//
//	server.go     read it, from UDP or TCP; questions the table answers never leave the reading goroutine
//	answer.go     decide: answer, refuse, or somebody else's
//	table.go      the names of the mesh, one immutable value, swapped as a whole
//	upstream.go   forward it, byte for byte, to the resolvers of the machine
//	resolvconf.go which those are
//
// A name that the mesh knows is answered with authority, TTL 30 seconds, addresses rotated; a known name without
// an address of the asked family is an empty answer, not a missing name. Until the first table arrives every question
// fails (SERVFAIL), so that nobody is told that a mesh name does not exist. The same semantics
// as Istio's DNS proxy.
package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/netio"
)

// Config is what a Server needs. Start from Defaults.
type Config struct {
	// Listen are the addresses served over UDP and TCP. Wildcards are refused: an answer must come from the
	// address that was asked. Redirected questions arrive at 127.0.0.1 and ::1.
	Listen []netip.AddrPort
	// Socket applies to the listening sockets.
	Socket netio.SocketOptions

	// Scope says what short names mean.
	Scope Scope
	// Ask, if set, is asked for names that the table does not hold, before they are forwarded:
	// hosts are the full names that the question may mean, most literal first.
	Ask func(ctx context.Context, hosts []string) (addrs []netip.Addr, found bool, err error)

	// Upstream are the resolvers for everything else, tried in order. With none, names that the mesh
	// does not know do not exist.
	Upstream []netip.AddrPort
	// Dial opens connections to Upstream; network is "udp" or "tcp". It must not be captured again,
	// so a sidecar's sets the proxy's mark.
	Dial func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)

	UpstreamTimeout time.Duration // for one attempt at one resolver
	Idle            time.Duration // a TCP client may be silent this long between questions
	MaxPending      int           // questions under way to Ask or Upstream; more are failed
	MaxConns        int           // TCP clients; more wait to be accepted

	Log *slog.Logger
}

// Defaults is the configuration of a sidecar's server. Scope and Upstream are the caller's to fill in.
func Defaults() Config {
	return Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:15053")},
		Dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr.String())
		},
		UpstreamTimeout: 5 * time.Second, // Istio's DNS_FORWARD_TIMEOUT
		Idle:            10 * time.Second,
		MaxPending:      1024,
		MaxConns:        256,
		Log:             slog.New(slog.DiscardHandler),
	}
}

// Stats counts what a server did since it was made.
type Stats struct {
	Questions uint64 // all that could be read
	Answered  uint64 // from the table or Ask
	Forwarded uint64
	Failed    uint64 // forwarded, but no resolver answered
	Refused   uint64 // malformed, or too many under way
}
