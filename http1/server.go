// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A ServerConn reads requests from a connection and writes their responses, one
// exchange after the other.
type ServerConn struct {
	conn net.Conn
	cfg  ServerConfig
}

var errUnready = &Error{500, Misuse, "the codec is not part of this build"}

// NewServerConn returns the server's end of conn. It takes no buffer until
// something is read.
func NewServerConn(conn net.Conn, cfg ServerConfig) *ServerConn {
	return &ServerConn{conn: conn, cfg: cfg}
}

// Preload hands over bytes that were read from the connection already, to be
// read first; b is copied.
func (c *ServerConn) Preload(b []byte) {}

// ReadRequest reads the next request's head into req. It returns io.EOF if the
// peer closed the connection between requests, and *Error for a request that is
// refused: answer Error.Status with WriteHead and close.
func (c *ServerConn) ReadRequest(req *message.Request) error { return errUnready }

// Read reads the request's body. It returns io.EOF at its end, together with
// the last bytes where they are known to be the last.
func (c *ServerConn) Read(p []byte) (int, error) { return 0, errUnready }

// Trailer returns the request's trailers; it is valid once Read returned io.EOF.
func (c *ServerConn) Trailer() *message.Header { return nil }

// WriteHead writes a response's head: any number of informational ones (end is
// false; they are sent at once), then one final. end: no body follows.
func (c *ServerConn) WriteHead(resp *message.Response, end bool) error { return errUnready }

// Write writes response body.
func (c *ServerConn) Write(p []byte) (int, error) { return 0, errUnready }

// Flush sends what is buffered.
func (c *ServerConn) Flush() error { return errUnready }

// Finish ends the response and flushes it. Trailers, which may be nil, are sent
// only if the body is chunked.
func (c *ServerConn) Finish(trailer *message.Header) error { return errUnready }

// Next ends the exchange. It reads away a small rest of the body and says
// whether another request may be read from this connection.
func (c *ServerConn) Next() (reusable bool, err error) { return false, errUnready }

// Buffered returns how many bytes were read from the connection and not yet consumed.
func (c *ServerConn) Buffered() int { return 0 }

// SetReadDeadline sets the connection's read deadline.
func (c *ServerConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets the connection's write deadline.
func (c *ServerConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Abort gives the exchange up and closes the connection; HTTP/1 has no code to send.
func (c *ServerConn) Abort(code uint32) { _ = c.conn.Close() }

// Tunnel returns the raw connection, after a final head of 101, or of 2xx to
// CONNECT, was written. It is nil otherwise.
func (c *ServerConn) Tunnel() Tunnel { return nil }

// Close closes the connection.
func (c *ServerConn) Close() error { return c.conn.Close() }

// Release gives the buffers back. Nothing may be called after it but Close, and
// no goroutine may be inside another method.
func (c *ServerConn) Release() {}
