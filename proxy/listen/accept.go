// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// Waiting after a failed accept (too many open files), as net/http does it.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// accept takes connections from ln, which is p's, until it is closed, for whoever has p at the time.
func (m *Manager) accept(p *port, ln net.Listener) {
	pause := firstPause
	for {
		conn, err := ln.Accept()
		s := p.owner.Load()
		switch {
		case err == nil:
			pause = firstPause
		case errors.Is(err, net.ErrClosed):
			return
		default:
			m.cfg.Log.Warn("accepting failed; trying again", "listener", s.name, "error", err, "pause", pause)
			time.Sleep(pause)
			pause = min(2*pause, lastPause)
			continue
		}
		if s.refused.Load() {
			_ = conn.Close()
			continue
		}
		if n := m.active.Add(1); m.cfg.MaxConns > 0 && n > m.cfg.MaxConns {
			m.active.Add(-1)
			_ = conn.Close()
			continue
		}
		l := s.current.Load()
		m.wg.Go(func() {
			defer m.active.Add(-1)
			defer func() { _ = conn.Close() }()
			defer m.contain(l)
			if m.enter(conn) {
				defer m.quit(conn)
				m.serve(conn, l)
			}
		})
	}
}

// contain keeps a defect that one connection meets from ending all others.
func (m *Manager) contain(l *config.Listener) {
	if r := recover(); r != nil {
		m.cfg.Log.Error("a connection met a defect of the proxy and was closed", "listener", l.Name, "panic", r, "stack", string(debug.Stack()))
	}
}

// serve brings one connection to its chain.
func (m *Manager) serve(conn net.Conn, l *config.Listener) {
	facts := &filter.Conn{
		ID: m.lastID.Add(1), Direction: l.Direction, Listener: l.Name, Start: time.Now(),
		DirectRemote: netio.AddrPortOf(conn.RemoteAddr()), DirectLocal: netio.AddrPortOf(conn.LocalAddr()),
	}
	facts.Remote, facts.Local = facts.DirectRemote, facts.DirectLocal
	peeked := netio.NewPeeked(conn)
	if l.ProxyProtocol != nil {
		if err := readProxyHeader(peeked, l, facts); err != nil {
			m.cfg.Unmatched(l, facts, err)
			return
		}
	}
	if l.OriginalDst || l.HandOff {
		dst, err := netio.OriginalDst(conn)
		if err != nil {
			m.cfg.Unmatched(l, facts, err)
			return
		}
		facts.OriginalDst, facts.Local = dst, dst
		if dst == facts.DirectLocal && !l.Transparent {
			facts.OriginalDst = netip.AddrPort{} // dialled directly: nothing was restored
		}
	}
	if l.HandOff {
		if to := m.state.Load().handOff(facts.Local); to != nil && to != l {
			l = to
			facts.Listener, facts.Direction = to.Name, to.Direction
		}
	}
	m.dispatch(peeked, conn, l, facts)
}
