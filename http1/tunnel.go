// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"io"
	"net"
	"time"
)

// A Tunnel is the raw bytes of a connection after 101, or after 2xx to CONNECT.
// It is an alias of an unnamed interface, so that the conductors' own
// declarations of it are the same type. Its dynamic type also has
// SetReadDeadline, SetWriteDeadline, NetConn() net.Conn and Buffered() int: once
// Buffered is 0 the connection may be spliced.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}

type tunnel struct {
	in  *reader
	out *output
}

// Read returns bytes that came behind the head first.
func (t *tunnel) Read(p []byte) (int, error) { return t.in.readRaw(p) }

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.in.conn.Write(p)
	t.out.sent += int64(n)
	return n, err
}

func (t *tunnel) Close() error { return t.in.conn.Close() }

// CloseWrite tells the peer that no more will be written; a connection that has
// no such thing is closed.
func (t *tunnel) CloseWrite() error { return closeWrite(t.in.conn) }

func (t *tunnel) SetReadDeadline(at time.Time) error { return t.in.conn.SetReadDeadline(at) }

func (t *tunnel) SetWriteDeadline(at time.Time) error { return t.in.conn.SetWriteDeadline(at) }

func (t *tunnel) NetConn() net.Conn { return t.in.conn }

func (t *tunnel) Buffered() int { return t.in.Buffered() }

func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return conn.Close()
}
