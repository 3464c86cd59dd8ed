// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A Server answers the requests of one connection.
type Server struct {
	nc     net.Conn
	cfg    ServerConfig
	handle func(*ServerStream)
}

// NewServer makes a server for nc, which it owns from now on. handle is called
// for each request, in a goroutine that is its own until it returns; what it has
// not finished by then is reset. It must not use the stream afterwards.
func NewServer(nc net.Conn, cfg ServerConfig, handle func(*ServerStream)) *Server {
	return &Server{nc: nc, cfg: cfg, handle: handle}
}

// Serve reads the connection until it ends and every handle has returned.
// preRead is what the caller has read from it already (while sniffing), or nil.
// It returns nil if the client hung up, or we drained; otherwise a ConnError.
func (s *Server) Serve(preRead []byte) error { return errMisuse("Serve: not served yet") }

// Drain tells the client to open no more streams (GOAWAY), lets those in work
// finish, and then closes the connection. It does not wait.
func (s *Server) Drain() {}

// Close closes the connection and fails its streams.
func (s *Server) Close() error { return s.nc.Close() }

// ActiveStreams returns how many requests are in work.
func (s *Server) ActiveStreams() int { return 0 }

// LastActive returns when a stream last began or ended.
func (s *Server) LastActive() time.Time { return time.Time{} }

// A ServerStream is one request being answered.
type ServerStream struct{ req message.Request }

// Request returns the request's head, valid until handle returns.
func (s *ServerStream) Request() *message.Request { return &s.req }

// Read reads the request's body; io.EOF at its end.
func (s *ServerStream) Read(p []byte) (int, error) { return 0, errMisuse("Read: not served yet") }

// Trailer returns the request's trailers, nil if there are none; valid once Read has returned io.EOF.
func (s *ServerStream) Trailer() *message.Header { return nil }

// WriteHead writes a head: informational ones (1xx) any number of times, then a
// final one; with end set nothing follows it.
func (s *ServerStream) WriteHead(resp *message.Response, end bool) error {
	return errMisuse("WriteHead: not served yet")
}

// Write writes a part of the response's body; see Flush.
func (s *ServerStream) Write(p []byte) (int, error) { return 0, errMisuse("Write: not served yet") }

// Flush sends what was written.
func (s *ServerStream) Flush() error { return errMisuse("Flush: not served yet") }

// Finish ends the response, with trailers unless trailer is nil or empty, and sends it.
func (s *ServerStream) Finish(trailer *message.Header) error {
	return errMisuse("Finish: not served yet")
}

// SetReadDeadline bounds Read; errors then satisfy os.ErrDeadlineExceeded. The zero time is no bound.
func (s *ServerStream) SetReadDeadline(t time.Time) error { return nil }

// SetWriteDeadline bounds WriteHead, Write, Flush and Finish.
func (s *ServerStream) SetWriteDeadline(t time.Time) error { return nil }

// Abort resets the stream with code (an ErrCode).
func (s *ServerStream) Abort(code uint32) {}

// OnReset calls f, at most once and in a goroutine that must not be blocked,
// if the client resets the stream or its connection ends before handle returns.
func (s *ServerStream) OnReset(f func()) {}

// Tunnel turns the stream into raw bytes, after a final head of 2xx to CONNECT.
func (s *ServerStream) Tunnel() Tunnel { return nil }
