// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// SocketOptions are what a socket gets before it is bound. The zero value asks for nothing
// but Go's own defaults (SO_REUSEADDR on listeners, TCP_NODELAY and keep-alive on connections).
type SocketOptions struct {
	Mark        uint32 // SO_MARK, if not 0; needs CAP_NET_ADMIN
	Transparent bool   // IP_TRANSPARENT: bind to addresses that are not ours; needs CAP_NET_ADMIN
	ReusePort   bool   // SO_REUSEPORT: several listeners share the port
	V6Only      bool   // IPV6_V6ONLY: a listener on [::] leaves IPv4 alone
}

// InUseError is why a listener could not be bound: somebody else has the port.
type InUseError struct {
	Network string // "tcp" or "udp"
	Addr    netip.AddrPort
	Owner   *Owner // nil if it could not be found out
	Err     error
}

func (e *InUseError) Error() string {
	if e.Owner == nil {
		return fmt.Sprintf("%s port %s is taken by another program; stop it or choose another port", e.Network, e.Addr)
	}
	return fmt.Sprintf("%s port %s is taken by %s; stop it or choose another port", e.Network, e.Addr, e.Owner)
}

func (e *InUseError) Unwrap() error { return e.Err }

// Listen opens a TCP listener on addr. A taken port yields an *InUseError.
func Listen(ctx context.Context, addr netip.AddrPort, opt SocketOptions) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: Control(opt)}
	lc.SetMultipathTCP(false) // its sockets know no original destination and do not splice
	l, err := lc.Listen(ctx, network("tcp", addr), hostPort(addr))
	if err != nil {
		return nil, listenError("tcp", addr, err)
	}
	return l.(*net.TCPListener), nil
}

// ListenUDP opens a UDP socket on addr. A taken port yields an *InUseError.
func ListenUDP(ctx context.Context, addr netip.AddrPort, opt SocketOptions) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: Control(opt)}
	c, err := lc.ListenPacket(ctx, network("udp", addr), hostPort(addr))
	if err != nil {
		return nil, listenError("udp", addr, err)
	}
	return c.(*net.UDPConn), nil
}

// network keeps an IPv4 wildcard from becoming a dual-stack socket; [::] stays dual.
func network(proto string, addr netip.AddrPort) string {
	switch {
	case addr.Addr().Is4():
		return proto + "4"
	case addr.Addr().IsUnspecified():
		return proto
	default:
		return proto + "6"
	}
}

// hostPort leaves [::] out, so that a machine without IPv6 listens on IPv4 alone.
func hostPort(addr netip.AddrPort) string {
	if addr.Addr().Is6() && addr.Addr().IsUnspecified() {
		return ":" + strconv.Itoa(int(addr.Port()))
	}
	return addr.String()
}

func listenError(proto string, addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		inUse := &InUseError{Network: proto, Addr: addr, Err: err}
		if o, ok := PortOwner(proto, addr); ok {
			inUse.Owner = &o
		}
		return inUse
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s port %s may not be bound by this user (ports below 1024 need CAP_NET_BIND_SERVICE): %w", proto, addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s port %s: this machine, or this network namespace, does not have the address: %w", proto, addr, err)
	}
	return fmt.Errorf("listen on %s port %s: %w", proto, addr, err)
}

// Control returns the hook for net.Dialer and net.ListenConfig that applies opt to a socket before it is bound or connected.
func Control(opt SocketOptions) func(string, string, syscall.RawConn) error {
	if opt == (SocketOptions{}) {
		return nil
	}
	return func(network, _ string, raw syscall.RawConn) error {
		var optErr error
		err := raw.Control(func(fd uintptr) { optErr = setOptions(fd, network, opt) })
		return errors.Join(err, optErr)
	}
}
