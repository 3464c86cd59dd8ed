// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ErrUnsupported is wrapped by errors about abilities this operating system does not have.
var ErrUnsupported = errors.New("not supported on this operating system")

// originalDster is a connection that knows by itself where it wanted to go, as those of memnet do.
type originalDster interface {
	OriginalDst() (netip.AddrPort, error)
}

// OriginalDst returns the address that the client of an accepted connection dialled, before any
// redirection (SO_ORIGINAL_DST on Linux). A connection that was not redirected was dialled
// at its local address, which is then the answer. Wrappers with a NetConn method are looked through.
func OriginalDst(c net.Conn) (netip.AddrPort, error) {
	for {
		switch v := c.(type) {
		case originalDster:
			return v.OriginalDst()
		case *net.TCPConn:
			return originalDst(v)
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return netip.AddrPort{}, fmt.Errorf("original destination: a %T has none, only TCP connections do", c)
		}
	}
}

// AddrPortOf returns the IP address and port of a, IPv4-mapped addresses unmapped; the zero value
// if a has none (Unix sockets, pipes).
func AddrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch v := a.(type) {
	case *net.TCPAddr:
		ap = v.AddrPort()
	case *net.UDPAddr:
		ap = v.AddrPort()
	default:
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
