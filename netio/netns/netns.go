// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package netns works in network namespaces: it runs functions and opens sockets inside one, creates and
// deletes named ones, and wires them together.
//
//	netns.go    a namespace, and what can be done in it; every system
//	enter.go    how a thread enters a namespace and leaves it again (Linux)
//	start.go    processes inside, with files of their own where needed (Linux)
//	links.go    bridges, veth pairs, addresses, routes (Linux)
//
// A namespace belongs to a thread, not to a goroutine: whatever runs inside Do must not start
// goroutines that rely on being inside. Sockets and processes keep the namespace they were made in.
package netns

import (
	"context"
	"net"
	"net/netip"

	"github.com/meltemi/meltemi/netio"
)

// Folder is where named namespaces are kept, as ip-netns(8) keeps them.
const Folder = "/run/netns"

// A Namespace is a network namespace by its path. The zero value is the one the caller is in:
// outside of Do, the one this process began in.
type Namespace struct{ path string }

// Permitted returns nil if this process may make namespaces and capture traffic in them, or says what it lacks. Being
// root is not enough: a container's root often has neither capability.
func Permitted() error { return permitted() }

// Named returns the namespace of that name, whether or not it exists.
func Named(name string) Namespace { return Namespace{path: Folder + "/" + name} }

// At returns the namespace that a file such as /proc/PID/ns/net stands for.
func At(path string) Namespace { return Namespace{path: path} }

// Path returns the namespace's file; empty for the zero value.
func (n Namespace) Path() string { return n.path }

func (n Namespace) String() string {
	if n.path == "" {
		return "the own network namespace"
	}
	return "network namespace " + n.path
}

// Do runs f inside n, on a thread of its own, and returns f's error or why n could not be entered.
func (n Namespace) Do(f func() error) error { return n.do(f) }

// Listen opens a TCP listener inside n.
func (n Namespace) Listen(ctx context.Context, addr netip.AddrPort, opt netio.SocketOptions) (l *net.TCPListener, err error) {
	err = n.Do(func() error {
		l, err = netio.Listen(ctx, addr, opt)
		return err
	})
	return l, err
}

// ListenUDP opens a UDP socket inside n.
func (n Namespace) ListenUDP(ctx context.Context, addr netip.AddrPort, opt netio.SocketOptions) (c *net.UDPConn, err error) {
	err = n.Do(func() error {
		c, err = netio.ListenUDP(ctx, addr, opt)
		return err
	})
	return c, err
}

// Dial connects from inside n.
func (n Namespace) Dial(ctx context.Context, d *netio.Dialer, addr netip.AddrPort) (c *net.TCPConn, err error) {
	err = n.Do(func() error {
		c, err = d.Dial(ctx, addr)
		return err
	})
	return c, err
}

// An End is one end of a veth pair.
type End struct {
	Namespace Namespace
	Name      string         // interface name, at most 15 bytes
	Bridge    string         // bridge in Namespace that it becomes a port of, if any
	Addrs     []netip.Prefix // its addresses, host bits included
}
