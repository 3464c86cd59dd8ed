// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package memnet is the in-memory twin of a network: listeners, dials and connections with addresses,
// without ports, root or sockets.
//
//	memnet.go   the network: who listens where, what is diverted
//	conn.go     a connection: two buffered pipes with deadlines and half-close
//
// Connections behave as TCP does where it matters to a proxy: writes are buffered up to a limit, an
// end is passed on after the data, reading from a connection closed by its peer's error fails, and
// the original destination of a diverted connection is known to netio.OriginalDst. All waiting is on
// condition variables and timers, so tests may run under testing/synctest.
package memnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

const backlog = 128 // connections a listener holds that nobody has accepted yet

// A Network is a world of addresses. The zero value is not usable; see New.
type Network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*Listener
	diverts   []divert
	nextPort  uint16
}

type divert struct {
	match func(src, dst netip.AddrPort) bool
	to    netip.AddrPort
}

// New returns an empty network.
func New() *Network {
	return &Network{listeners: map[netip.AddrPort]*Listener{}, nextPort: 40000}
}

// Listen opens a listener on addr. Port 0 is replaced by a free one. An unspecified IP listens on every
// address of the port that has no listener of its own.
func (n *Network) Listen(addr netip.AddrPort) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Port() == 0 {
		addr = netip.AddrPortFrom(addr.Addr(), n.portLocked())
	}
	if _, taken := n.listeners[addr]; taken {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: syscall.EADDRINUSE}
	}
	l := &Listener{net: n, addr: addr, queue: make(chan *Conn, backlog), done: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Divert sends connections for which match holds to the listener at to, as capture rules do.
// Diversions are tried in the order they were made.
func (n *Network) Divert(match func(src, dst netip.AddrPort) bool, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.diverts = append(n.diverts, divert{match, to})
}

// Dial connects from src to dst; an invalid src means 127.0.0.1 and any port, port 0 any port.
func (n *Network) Dial(ctx context.Context, src, dst netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(dst, err)
	}
	n.mu.Lock()
	if !src.IsValid() {
		src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	if src.Port() == 0 {
		src = netip.AddrPortFrom(src.Addr(), n.portLocked())
	}
	target := dst
	for _, d := range n.diverts {
		if d.match(src, dst) {
			target = d.to
			break
		}
	}
	l := n.listenerLocked(target)
	n.mu.Unlock()
	if l == nil {
		return nil, dialError(dst, syscall.ECONNREFUSED)
	}
	client, server := pair(src, dst, dst)
	select {
	case <-l.done:
		return nil, dialError(dst, syscall.ECONNREFUSED)
	default:
	}
	select {
	case l.queue <- server:
		return client, nil
	case <-l.done:
		return nil, dialError(dst, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, dialError(dst, ctx.Err())
	}
}

func dialError(dst netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(dst), Err: err}
}

// DialContext has the shape of net.Dialer's method, for code that takes such a function.
func (n *Network) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	dst, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("memnet: dial %q: %w; names are not resolved here", addr, err)
	}
	c, err := n.Dial(ctx, netip.AddrPort{}, dst)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n *Network) portLocked() uint16 {
	n.nextPort++
	if n.nextPort < 40000 {
		n.nextPort = 40000
	}
	return n.nextPort
}

func (n *Network) listenerLocked(addr netip.AddrPort) *Listener {
	if l := n.listeners[addr]; l != nil {
		return l
	}
	any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
	any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())
	if l := n.listeners[any4]; l != nil && addr.Addr().Is4() {
		return l
	}
	return n.listeners[any6]
}

// A Listener accepts the connections dialled to its address.
type Listener struct {
	net   *Network
	addr  netip.AddrPort
	queue chan *Conn
	once  sync.Once
	done  chan struct{}
}

var _ net.Listener = (*Listener)(nil)

// Accept returns the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closed()
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, l.closed()
	}
}

func (l *Listener) closed() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close frees the address. Connections nobody accepted are reset.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.Reset()
			default:
				return
			}
		}
	})
	return nil
}

// Addr returns the address listened on, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// AddrPort returns the address listened on.
func (l *Listener) AddrPort() netip.AddrPort { return l.addr }
