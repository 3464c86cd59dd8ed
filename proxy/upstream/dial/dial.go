// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package dial opens one connection to an endpoint: TCP or a unix socket, a
// PROXY protocol header, TLS, who we are, in this order.
//
//	dial.go   Open: the steps
//	proxy.go  the PROXY protocol header
//	hint.go   what an operator should look at when a step fails
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/peerexchange"
)

// A Target is where and how to connect.
type Target struct {
	Addr      netip.AddrPort
	Pipe      string     // unix socket path instead of Addr
	Source    netip.Addr // to bind to, if valid and of Addr's family
	KeepAlive net.KeepAliveConfig
	Mark      uint32 // SO_MARK, so that capture rules let the connection pass; 0: none

	TLS *tls.Config // complete; nil: plaintext
	// Preamble is sent first where TLS has agreed on istio-peer-exchange.
	Preamble []byte

	ProxyProtocol uint8          // 1 or 2 writes that header first
	Client, Local netip.AddrPort // what the header tells: the client, and where it connected to

	Object string // names cluster and endpoint in faults
}

// Open connects before deadline, and gives up when ctx ends. The connection it returns has no deadline; it
// is a *tls.Conn whose handshake is done if TLS is asked for, inside a *peerexchange.Conn if a preamble was sent.
func Open(ctx context.Context, deadline time.Time, t *Target) (net.Conn, *fault.Fault) {
	raw, err := connect(ctx, deadline, t)
	if err != nil {
		return nil, t.failed(err, connectHint(err))
	}
	conn, hint, err := prepare(ctx, deadline, t, raw)
	if err != nil {
		_ = raw.Close()
		return nil, t.failed(err, hint)
	}
	return conn, nil
}

func connect(ctx context.Context, deadline time.Time, t *Target) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if t.Pipe != "" {
		var d net.Dialer
		return d.DialContext(ctx, "unix", t.Pipe)
	}
	d := netio.Dialer{Source: t.Source, KeepAlive: t.KeepAlive, Options: netio.SocketOptions{Mark: t.Mark}}
	return d.Dial(ctx, t.Addr)
}

// prepare says the first words on raw.
func prepare(ctx context.Context, deadline time.Time, t *Target, raw net.Conn) (conn net.Conn, hint string, err error) {
	if t.ProxyProtocol == 0 && t.TLS == nil {
		return raw, "", nil
	}
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, "", err
	}
	conn = raw
	if t.ProxyProtocol != 0 {
		if _, err := raw.Write(ProxyHeader(t.ProxyProtocol, t.Client, t.Local)); err != nil {
			return nil, "", err
		}
	}
	if t.TLS != nil {
		secure := tls.Client(raw, t.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, TLSHint(err), &HandshakeError{err}
		}
		conn = secure
		if len(t.Preamble) > 0 && secure.ConnectionState().NegotiatedProtocol == peerexchange.ALPN {
			if conn, err = peerexchange.Begin(secure, t.Preamble); err != nil {
				return nil, "", err
			}
		}
	}
	return conn, "", raw.SetDeadline(time.Time{})
}

// A HandshakeError is a TLS handshake that failed.
type HandshakeError struct{ Err error }

// Error names the step and the cause.
func (e *HandshakeError) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

func (t *Target) failed(err error, hint string) *fault.Fault {
	f := &fault.Fault{Side: fault.Upstream, Kind: fault.ConnectFailure, Object: t.Object, Err: err, Hint: hint}
	var n net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		f.Kind = fault.ConnectTimeout
		if hint == "" {
			f.Hint = "nothing answered in time: is the endpoint up, and does a network policy or firewall drop packets to it?"
		}
	}
	return f
}
