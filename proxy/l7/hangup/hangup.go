// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package hangup tells whether a client has hung up while nobody reads from it.
package hangup

import (
	"errors"
	"net"
	"syscall"
)

// Seen says whether a connection is over: the peer has closed its side, whatever
// of it has not been read yet, or we have closed ours. It reads nothing. What
// the peer does is known of TCP on Linux only; elsewhere it is noticed when it
// is written to.
func Seen(conn net.Conn) bool {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = outer.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return errors.Is(err, net.ErrClosed)
	}
	gone := false
	if err := raw.Control(func(fd uintptr) { gone = closedByPeer(fd) }); err != nil {
		return errors.Is(err, net.ErrClosed)
	}
	return gone
}
