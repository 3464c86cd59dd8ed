// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A ClientConn sends requests over one connection, many at once.
type ClientConn struct {
	nc  net.Conn
	cfg ClientConfig
}

// NewClientConn makes a client of nc, which it owns from now on, and begins to
// read from it. The preface leaves with the first request, or at once.
func NewClientConn(nc net.Conn, cfg ClientConfig) (*ClientConn, error) {
	return &ClientConn{nc: nc, cfg: cfg}, nil
}

// Open reserves a stream; its number is given when its head is written. It does
// not wait: if there is no room it fails with ErrNoStream, or with the ConnError
// that ended the connection. A stream that was opened ends when both sides have
// ended it, or with Abort.
func (c *ClientConn) Open() (*ClientStream, error) { return nil, ErrNoStream }

// Available returns how many streams Open would give now.
func (c *ClientConn) Available() int { return 0 }

// ActiveStreams returns how many streams are open.
func (c *ClientConn) ActiveStreams() int { return 0 }

// LastActive returns when a stream last began or ended.
func (c *ClientConn) LastActive() time.Time { return time.Time{} }

// Ready is closed when the peer's settings have come, or the connection has ended.
func (c *ClientConn) Ready() <-chan struct{} { return nil }

// ExtendedConnect says whether the peer takes requests with a Protocol (RFC 8441).
func (c *ClientConn) ExtendedConnect() bool { return false }

// Drained says whether the connection takes no new streams for good: the peer
// sent GOAWAY, Drain was called, numbers ran out, or it has ended.
func (c *ClientConn) Drained() bool { return true }

// Drain opens no more streams and closes the connection when those open have ended.
func (c *ClientConn) Drain() {}

// Done is closed when the connection has ended.
func (c *ClientConn) Done() <-chan struct{} { return nil }

// Err returns why the connection ended, nil while it has not.
func (c *ClientConn) Err() error { return nil }

// Close closes the connection and fails its streams.
func (c *ClientConn) Close() error { return c.nc.Close() }

// A ClientStream is one request being sent and its response being read.
type ClientStream struct{}

// WriteHead writes the request's head; with end set nothing follows it.
func (s *ClientStream) WriteHead(req *message.Request, end bool) error {
	return errMisuse("WriteHead: not served yet")
}

// Write writes a part of the request's body; see Flush. If the server has
// answered and asked for no more of it, the error is a StreamError with CodeNo
// and Remote set, and the response can still be read.
func (s *ClientStream) Write(p []byte) (int, error) { return 0, errMisuse("Write: not served yet") }

// Flush sends what was written.
func (s *ClientStream) Flush() error { return errMisuse("Flush: not served yet") }

// Finish ends the request, with trailers unless trailer is nil or empty, and sends it.
func (s *ClientStream) Finish(trailer *message.Header) error {
	return errMisuse("Finish: not served yet")
}

// ReadHead waits for the next head: informational ones (1xx), then the final one.
func (s *ClientStream) ReadHead(resp *message.Response) error {
	return errMisuse("ReadHead: not served yet")
}

// Read reads the response's body; io.EOF at its end.
func (s *ClientStream) Read(p []byte) (int, error) { return 0, errMisuse("Read: not served yet") }

// Trailer returns the response's trailers, nil if there are none; valid once Read has returned io.EOF.
func (s *ClientStream) Trailer() *message.Header { return nil }

// SetReadDeadline bounds ReadHead and Read; errors then satisfy os.ErrDeadlineExceeded. The zero time is no bound.
func (s *ClientStream) SetReadDeadline(t time.Time) error { return nil }

// SetWriteDeadline bounds WriteHead, Write, Flush and Finish.
func (s *ClientStream) SetWriteDeadline(t time.Time) error { return nil }

// Abort resets the stream with code (an ErrCode), unless it has ended by itself.
func (s *ClientStream) Abort(code uint32) {}

// Tunnel turns the stream into raw bytes, after a final head of 2xx to CONNECT.
func (s *ClientStream) Tunnel() Tunnel { return nil }
