// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netio

import (
	"fmt"
	"net"
	"net/netip"
)

func originalDst(c *net.TCPConn) (netip.AddrPort, error) {
	return netip.AddrPort{}, fmt.Errorf("original destination of %s: transparent capture needs Linux: %w; use explicit proxies here", c.LocalAddr(), ErrUnsupported)
}
