// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"sync"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
)

// A meter counts a connection into the istio_tcp_* metrics, for each istio.stats
// filter of its chain, as Envoy does: opened once it is known who the other end
// is, or at the end; the bytes of one that stays open at intervals.
type meter struct {
	x     *filter.Exchange
	moved netio.Counts // A is the client
	of    []metered
	every time.Duration // 0: at the end only

	mu      sync.Mutex    // from Begin on what is below, and what is told of peers in x
	other   **filter.Peer // of x: the end that labels name
	awaited bool          // it has yet to say who it is
	opened  bool
	over    bool
	timer   *time.Timer
	// counted is what of moved has been.
	counted struct{ received, sent int64 }
}

type metered struct {
	stats  *stock.Stats
	series *stock.TCPSeries // from opened on
}

func (m *meter) init(x *filter.Exchange, chain *config.FilterChain) {
	m.x = x
	for i := range chain.Network {
		f := &chain.Network[i]
		if f.Stats == nil {
			continue
		}
		m.of = append(m.of, metered{stats: f.Stats})
		if d := f.Stats.Interval(); d > 0 && (m.every == 0 || d < m.every) {
			m.every = d
		}
	}
}

// begin counts from now on. If other is awaited, heard will say who it is.
func (m *meter) begin(other **filter.Peer, awaited bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.other, m.awaited = other, awaited
	m.countLocked()
	if m.every > 0 && len(m.of) > 0 {
		m.timer = time.AfterFunc(m.every, m.tick)
	}
}

func (m *meter) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return
	}
	m.countLocked()
	m.timer.Reset(m.every)
}

// heard notes in to who an end is; nil if it does not say.
func (m *meter) heard(to **filter.Peer, p *filter.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*to = p
	if to == m.other {
		m.awaited = false
		m.countLocked()
	}
}

// end counts the rest.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.timer != nil {
		m.timer.Stop()
	}
	m.countLocked()
	for i := range m.of {
		m.of[i].series.Closed(m.x.Conn.ID)
	}
	m.x.Received, m.x.Sent = uint64(m.moved.AToB.Load()), uint64(m.moved.BToA.Load())
}

// countLocked counts what has not been counted yet.
func (m *meter) countLocked() {
	if m.awaited && !m.over {
		return
	}
	if !m.opened {
		m.opened = true
		for i := range m.of {
			m.of[i].series = m.of[i].stats.TCP(m.x)
			m.of[i].series.Opened(m.x.Conn.ID)
		}
	}
	received, sent := m.moved.AToB.Load(), m.moved.BToA.Load()
	for i := range m.of {
		m.of[i].series.Received(m.x.Conn.ID, uint64(received-m.counted.received))
		m.of[i].series.Sent(m.x.Conn.ID, uint64(sent-m.counted.sent))
	}
	m.counted.received, m.counted.sent = received, sent
}
