// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"io"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/message"
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

// A Tunnel is a stream that has become raw bytes both ways.
type Tunnel interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// A Lease is a stream on a connection to a host. Done is called exactly once.
type Lease struct {
	Stream
	host    *Host
	cluster *Cluster
	tls     *tls.ConnectionState
	local   netip.AddrPort
	version message.Version
	reused  bool
}

// Host returns the endpoint the lease is for.
func (l *Lease) Host() *Host { return l.host }

// TLS returns the state of the connection's TLS, nil for plaintext.
func (l *Lease) TLS() *tls.ConnectionState { return l.tls }

// LocalAddr returns our end of the connection.
func (l *Lease) LocalAddr() netip.AddrPort { return l.local }

// Version returns the HTTP version spoken.
func (l *Lease) Version() message.Version { return l.version }

// Reused says whether the connection served another exchange before.
func (l *Lease) Reused() bool { return l.reused }

// Done ends the lease: the connection goes back to the pool or is closed, and
// outlier detection hears the outcome.
func (l *Lease) Done(o Outcome) { l.cluster.observe(l.host, o) }
