// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
)

// A socket is one listener's open ports.
type socket struct {
	name    string
	current atomic.Pointer[config.Listener]
	ports   []*port
	refused atomic.Bool // drained: a connection that came at that moment is not taken
}

// A port is one open address. While it is open, another socket may take it over.
type port struct {
	addr        config.Address
	transparent bool
	ln          net.Listener
	owner       atomic.Pointer[socket]
}

// leavingLocked are the open ports that need not stay with whom they are: their listener is gone or drained, or is to listen
// elsewhere, perhaps where it did before another one took a port of its own over.
func (m *Manager) leavingLocked() []*port {
	next := m.state.Load()
	var left []*port
	for name, s := range m.sockets {
		if l := next.byName[name]; l == nil || m.drainedLocked(l) || !s.serves(l) {
			left = append(left, s.ports...)
		}
	}
	return left
}

// put opens l. What it wants of left it takes over; what is in its way there is closed, but nothing before
// all else that l wants is open. If that fails, everything stays as it was.
func (m *Manager) put(ctx context.Context, l *config.Listener, left *[]*port) error {
	if s := m.sockets[l.Name]; s != nil && s.serves(l) {
		s.current.Store(l)
		return nil
	}
	ports := make([]*port, len(l.Addrs)) // as l.Addrs
	for i, a := range l.Addrs {
		for _, p := range *left {
			if p.is(a, l.Transparent) && !slices.Contains(ports, p) {
				ports[i] = p
				break
			}
		}
	}
	var opened, closed []*port
	for _, mayClose := range [...]bool{false, true} {
		for i, a := range l.Addrs {
			inTheWay := func(p *port) bool { return p.overlaps(a) && !slices.Contains(ports, p) }
			if ports[i] != nil || !mayClose && slices.ContainsFunc(*left, inTheWay) {
				continue
			}
			for _, p := range *left {
				if inTheWay(p) {
					p.close()
					p.owner.Load().drop(p)
					closed = append(closed, p)
				}
			}
			*left = slices.DeleteFunc(*left, inTheWay)
			ln, err := m.open(ctx, a, l.Transparent)
			if err != nil {
				for _, p := range opened {
					p.close()
				}
				*left = append(*left, m.reopen(ctx, closed)...)
				return err
			}
			ports[i] = &port{addr: a, transparent: l.Transparent, ln: ln}
			opened = append(opened, ports[i])
		}
	}
	s := &socket{name: l.Name, ports: ports}
	s.current.Store(l)
	for _, p := range ports {
		if was := p.owner.Swap(s); was != nil {
			was.drop(p)
		}
	}
	*left = slices.DeleteFunc(*left, func(p *port) bool { return slices.Contains(ports, p) })
	m.sockets[l.Name] = s
	for _, p := range opened {
		m.wg.Go(func() { m.accept(p, p.ln) })
	}
	return nil
}

// reopen opens again what was closed for nothing, as far as that is possible.
func (m *Manager) reopen(ctx context.Context, closed []*port) (open []*port) {
	for _, was := range closed {
		a := was.addr
		if a.IP.IsValid() {
			a.IP = was.bound()
		}
		ln, err := m.open(ctx, a, was.transparent)
		if err != nil {
			m.cfg.Log.Warn("a port that was closed for another could not be opened again", "address", a.String(), "error", err)
			continue
		}
		p := &port{addr: was.addr, transparent: was.transparent, ln: ln}
		s := was.owner.Load()
		p.owner.Store(s)
		s.ports = append(s.ports, p)
		open = append(open, p)
		m.wg.Go(func() { m.accept(p, ln) })
	}
	return open
}

func (m *Manager) open(ctx context.Context, a config.Address, transparent bool) (net.Listener, error) {
	switch {
	case a.Internal != "":
		return nil, fmt.Errorf("internal listeners (%s) are not supported", a.Internal)
	case a.Pipe != "":
		if !strings.HasPrefix(a.Pipe, "@") {
			if err := os.Remove(a.Pipe); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
		return net.Listen("unix", a.Pipe)
	}
	return m.cfg.Listen(ctx, a.IP, netio.SocketOptions{Transparent: transparent})
}

// serves reports whether s is open where l wants to listen. Which listener it is of does not tell: a port may have been
// handed over, or closed for another and not opened again.
func (s *socket) serves(l *config.Listener) bool {
	return s.current.Load().SameSocket(l) && len(s.ports) == len(l.Addrs)
}

func (s *socket) close() {
	for _, p := range s.ports {
		p.close()
	}
}

func (s *socket) drop(p *port) {
	s.ports = slices.DeleteFunc(slices.Clone(s.ports), func(o *port) bool { return o == p })
}

// where names the open ports.
func (s *socket) where() string {
	var all []string
	for _, p := range s.ports {
		all = append(all, p.ln.Addr().String())
	}
	return strings.Join(all, " and ")
}

func (p *port) close() {
	_ = p.ln.Close()
	if p.addr.Pipe != "" && !strings.HasPrefix(p.addr.Pipe, "@") {
		_ = os.Remove(p.addr.Pipe)
	}
}

// bound is the address of an IP port with what a configured port of 0 has become.
func (p *port) bound() netip.AddrPort {
	return netip.AddrPortFrom(p.addr.IP.Addr(), netio.AddrPortOf(p.ln.Addr()).Port())
}

// is reports whether who wants a need not open it.
func (p *port) is(a config.Address, transparent bool) bool {
	return p.transparent == transparent && (p.addr == a || a.IP.IsValid() && p.addr.IP.IsValid() && p.bound() == a.IP)
}

// overlaps reports whether a can perhaps not be opened while p is open.
func (p *port) overlaps(a config.Address) bool {
	if !a.IP.IsValid() || !p.addr.IP.IsValid() {
		return p.addr == a
	}
	x, y := p.bound().Addr().Unmap(), a.IP.Addr().Unmap()
	return p.bound().Port() == a.IP.Port() && (x == y || x.IsUnspecified() || y.IsUnspecified())
}
