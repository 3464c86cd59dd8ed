// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "io"

// A Tunnel is the raw bytes of a connection after 101, or after 2xx to CONNECT.
// It is an alias of an unnamed interface, so that the conductors' own
// declarations of it are the same type. What is inside has also
// NetConn() net.Conn and Buffered() int: once Buffered is 0 the connection may
// be spliced.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}
