// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"net"
	"sync/atomic"

	"github.com/meltemi/meltemi/proxy/config"
)

// A Tie binds a connection to the filter chain that conducts it. When the chain
// goes, the connection moves to the one that would take it now, if that succeeds the
// old one; else it is to end.
type Tie struct {
	chain atomic.Pointer[config.FilterChain]
	drain chan struct{}

	conn     net.Conn
	listener string
	facts    config.ConnFacts
	life     *life // guarded by Manager.mu
}

// Chain returns the filter chain of the moment.
func (t *Tie) Chain() *config.FilterChain { return t.chain.Load() }

// Drain is closed when the connection is to end as soon as that hurts nobody.
func (t *Tie) Drain() <-chan struct{} { return t.drain }

// A life is the connections of one filter chain.
type life struct {
	ties map[*Tie]struct{}
	over bool // the chain is gone: all are to end
}

// join counts a connection, whose socket is raw, to the chain that was chosen for
// it; leave ends that.
func (m *Manager) join(chain *config.FilterChain, t *Tie, raw net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.silent, raw)
	if !m.closed && !m.alive[chain] { // accepted under a snapshot that has gone since
		if to := m.state.Load().successor(t, chain); to != nil {
			chain = to
		}
	}
	l := m.tieLocked(t, chain)
	of := m.state.Load().byName[t.listener]
	if m.closed || !m.alive[chain] || of != nil && m.drainedLocked(of) {
		m.drainLocked(chain, l)
	}
}

func (m *Manager) tieLocked(t *Tie, chain *config.FilterChain) *life {
	l := m.lives[chain]
	if l == nil {
		l = &life{ties: make(map[*Tie]struct{})}
		m.lives[chain] = l
	}
	l.ties[t] = struct{}{}
	t.life = l
	t.chain.Store(chain)
	if l.over {
		close(t.drain)
	}
	return l
}

func (m *Manager) leave(t *Tie) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.untieLocked(t)
}

func (m *Manager) untieLocked(t *Tie) {
	chain := t.chain.Load()
	delete(t.life.ties, t)
	if len(t.life.ties) == 0 && m.lives[chain] == t.life {
		delete(m.lives, chain)
	}
}

// moveLocked lets the connections of a chain that is gone go on under the chains of
// the moment, where they may.
func (m *Manager) moveLocked(chain *config.FilterChain, l *life) {
	if l.over {
		return
	}
	now := m.state.Load()
	for t := range l.ties {
		if to := now.successor(t, chain); to != nil {
			m.untieLocked(t)
			m.tieLocked(t, to)
		}
	}
}

// successor is the chain that conducts t after chain; nil if there is none.
func (s *state) successor(t *Tie, chain *config.FilterChain) *config.FilterChain {
	l := s.byName[t.listener]
	if l == nil {
		return nil
	}
	if to := l.Choose(&t.facts); to != nil && to.Succeeds(chain) {
		return to
	}
	return nil
}
