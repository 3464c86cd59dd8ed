// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream/dial"
)

// A Stream is one request being sent: an exchange on an http1.ClientConn or an
// http2.ClientStream. One goroutine writes, one reads; Abort from any.
type Stream interface {
	WriteHead(req *message.Request, end bool) error
	Write(p []byte) (int, error)
	Flush() error
	Finish(trailer *message.Header) error
	ReadHead(resp *message.Response) error
	Read(p []byte) (int, error)
	Trailer() *message.Header
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Abort(code uint32)
	Tunnel() Tunnel
}

var (
	_ Stream = (*http1.ClientConn)(nil)
	_ Stream = (*http2.ClientStream)(nil)
)

// A Tunnel is a stream that has become raw bytes both ways. It is an alias, the
// same as the codecs'.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// A Lease is a stream on a connection to a host. Done is called exactly once,
// when nobody reads or writes the stream any more and no string of its response
// is needed: after it the connection, and the Lease itself, serve another.
type Lease struct {
	Stream
	host    *Host
	cluster *Cluster
	tls     *tls.ConnectionState
	local   netip.AddrPort
	version message.Version
	reused  bool

	single *single // HTTP/1
	muxed  *muxed  // HTTP/2
}

// Host returns the endpoint the lease is for.
func (l *Lease) Host() *Host { return l.host }

// TLS returns the state of the connection's TLS, nil for plaintext.
func (l *Lease) TLS() *tls.ConnectionState { return l.tls }

// LocalAddr returns our end of the connection.
func (l *Lease) LocalAddr() netip.AddrPort { return l.local }

// Version returns the HTTP version spoken.
func (l *Lease) Version() message.Version { return l.version }

// Reused says whether the connection served another exchange before. If it did
// and the exchange fails with ConnectionClosed before a byte of a response, the
// server probably closed it for being idle: a request that may be sent twice
// deserves a fresh connection.
func (l *Lease) Reused() bool { return l.reused }

// Done ends the lease: the connection goes back to the pool or is closed, and
// outlier detection hears the outcome. o.Reusable is a wish: a connection that
// is not at the end of an exchange is closed whatever it says.
func (l *Lease) Done(o Outcome) {
	c, h := l.cluster, l.host
	c.observe(h, o)
	if o.Fault != nil && (o.Fault.Kind == fault.Timeout || o.Fault.Kind == fault.PerTryTimeout) {
		h.stats.Timeout.Add(1)
	}
	h.stats.Active.Add(-1)
	c.stats.RequestActive.Add(-1)
	if l.single != nil {
		l.single.kept = o.Kept
		h.pool.returnSingle(l.single, o.Reusable && !o.Kept)
	} else {
		h.pool.returnMuxed(l)
	}
}

// Fault tells what an error of the lease's stream means. Deadlines are the
// caller's: it knows which of its timeouts they stood for.
func (l *Lease) Fault(err error) *fault.Fault {
	f := &fault.Fault{
		Side: fault.Upstream, Kind: fault.ConnectionClosed, Sent: true, Err: err,
		Object: "cluster " + l.cluster.spec.Name + ", endpoint " + l.host.text,
	}
	var one *http1.Error
	var stream http2.StreamError
	var timeout net.Error
	switch {
	case http2.Unprocessed(err):
		f.Kind, f.Sent = fault.RefusedStream, false
	case errors.As(err, &one):
		switch one.Kind {
		case http1.Protocol:
			f.Kind = fault.UpstreamProtocol
			f.Hint = "the endpoint's answer is not HTTP/1.1: is the port's protocol declared right?"
		case http1.Misuse:
			f.Side, f.Kind = fault.Mesh, fault.Internal
		}
	case errors.As(err, &stream) && stream.Cause == nil:
		switch {
		case stream.Remote:
			f.Kind = fault.RemoteReset
		case stream.Code == http2.CodeProtocol:
			f.Kind = fault.UpstreamProtocol
		default:
			f.Side, f.Kind = fault.Mesh, fault.LocalReset
		}
	case errors.As(err, &timeout) && timeout.Timeout():
		f.Kind = fault.Timeout
	case l.tls != nil:
		f.Hint = dial.AlertHint(err) // TLS 1.3 servers judge our certificate after the handshake
	}
	if f.Hint == "" && f.Kind == fault.ConnectionClosed && l.reused {
		f.Hint = "the endpoint closed a connection that was kept open: is its keep-alive timeout shorter than the cluster's idle timeout?"
	}
	return f
}

// stateOf returns what a lease tells of conn.
func stateOf(conn net.Conn) (local netip.AddrPort, state *tls.ConnectionState) {
	if secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		s := secure.ConnectionState()
		state = &s
	}
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		local = a.AddrPort()
		local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	}
	return local, state
}
