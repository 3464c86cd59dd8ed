// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A ClientConn writes requests to a connection and reads their responses, one
// exchange after the other.
type ClientConn struct {
	conn net.Conn
	cfg  ClientConfig
}

// NewClientConn returns the client's end of conn. It takes no buffer until
// something is written.
func NewClientConn(conn net.Conn, cfg ClientConfig) *ClientConn {
	return &ClientConn{conn: conn, cfg: cfg}
}

// WriteHead begins an exchange with the request's head. end: no body follows.
func (c *ClientConn) WriteHead(req *message.Request, end bool) error { return errUnready }

// Write writes request body.
func (c *ClientConn) Write(p []byte) (int, error) { return 0, errUnready }

// Flush sends what is buffered.
func (c *ClientConn) Flush() error { return errUnready }

// Finish ends the request and flushes it. Trailers, which may be nil, are sent
// only if the body is chunked.
func (c *ClientConn) Finish(trailer *message.Header) error { return errUnready }

// ReadHead reads the next response head: informational ones included, then the
// final one. It returns io.EOF if the server closed the connection before the
// first byte of a response.
func (c *ClientConn) ReadHead(resp *message.Response) error { return errUnready }

// Read reads the response's body. It returns io.EOF at its end, together with
// the last bytes where they are known to be the last.
func (c *ClientConn) Read(p []byte) (int, error) { return 0, errUnready }

// Trailer returns the response's trailers; it is valid once Read returned io.EOF.
func (c *ClientConn) Trailer() *message.Header { return nil }

// Reusable says, after an exchange, whether another one may begin: both
// messages are complete, neither asked to close, and nothing unasked was received.
func (c *ClientConn) Reusable() bool { return false }

// Alive is a cheap check that the server has not closed the idle connection,
// nor sent anything unasked.
func (c *ClientConn) Alive() bool { return false }

// KeepAlive returns what the server's last Keep-Alive field promised: how long
// it keeps an idle connection, and for how many more requests; 0 where it said nothing.
func (c *ClientConn) KeepAlive() (timeout time.Duration, requests int) { return 0, 0 }

// Buffered returns how many bytes were read from the connection and not yet consumed.
func (c *ClientConn) Buffered() int { return 0 }

// SetReadDeadline sets the connection's read deadline.
func (c *ClientConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets the connection's write deadline.
func (c *ClientConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Abort gives the exchange up and closes the connection; HTTP/1 has no code to send.
func (c *ClientConn) Abort(code uint32) { _ = c.conn.Close() }

// Tunnel returns the raw connection, after a final head of 101, or of 2xx to
// CONNECT, was read. It is nil otherwise.
func (c *ClientConn) Tunnel() Tunnel { return nil }

// Close closes the connection.
func (c *ClientConn) Close() error { return c.conn.Close() }

// Release gives the buffers back. Nothing may be called after it but Close, and
// no goroutine may be inside another method.
func (c *ClientConn) Release() {}
