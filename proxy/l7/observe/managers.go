// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/telemetry"
)

// Managers are Envoy's statistics of connection managers, by stat_prefix: they
// survive the configuration they were made for.
type Managers struct {
	reg *telemetry.Registry

	mu  sync.Mutex
	all map[string]*Manager
}

// A Manager counts for one stat_prefix, in several places so that
// connections do not meet at one.
type Manager struct {
	shards [statShards]managerShard
	took   [statShards]*telemetry.Histogram
}

const statShards = 4

type managerShard struct {
	conns, connsActive, requests, active atomic.Int64
	codes                                [6]atomic.Int64 // by class; 0: no response
	_                                    [48]byte
}

// NewManagers returns an empty set that reg collects from.
func NewManagers(reg *telemetry.Registry) *Managers {
	m := &Managers{reg: reg, all: map[string]*Manager{}}
	reg.Collect(m.collect)
	return m
}

// Get returns the statistics of a stat_prefix.
func (m *Managers) Get(prefix string) *Manager {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.all[prefix]
	if s == nil {
		s = &Manager{}
		for i := range s.took {
			s.took[i] = telemetry.NewHistogram(m.reg.Bounds("http.downstream_rq_time"))
		}
		m.all[prefix] = s
	}
	return s
}

func (s *Manager) shard(id uint64) *managerShard { return &s.shards[id%statShards] }

// ConnOpened counts a connection; id spreads connections over shards.
func (s *Manager) ConnOpened(id uint64) {
	sh := s.shard(id)
	sh.conns.Add(1)
	sh.connsActive.Add(1)
}

// ConnClosed counts its end.
func (s *Manager) ConnClosed(id uint64) { s.shard(id).connsActive.Add(-1) }

// Begin counts an exchange.
func (s *Manager) Begin(id uint64) {
	sh := s.shard(id)
	sh.requests.Add(1)
	sh.active.Add(1)
}

// End counts its end; status 0 is no response.
func (s *Manager) End(id uint64, status int, took time.Duration) {
	sh := s.shard(id)
	sh.active.Add(-1)
	class := status / 100
	if class < 0 || class > 5 {
		class = 0
	}
	sh.codes[class].Add(1)
	s.took[id%statShards].Record(float64(took) / float64(time.Millisecond))
}

// Active returns how many connections and exchanges are under way.
func (s *Manager) Active() (conns, exchanges int64) {
	for i := range s.shards {
		conns += s.shards[i].connsActive.Load()
		exchanges += s.shards[i].active.Load()
	}
	return conns, exchanges
}

var classes = [6]string{2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx", 1: "1xx"}

func (m *Managers) collect(e *telemetry.Emitter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for prefix, s := range m.all {
		tag := telemetry.Tag{Key: "http_conn_manager_prefix", Value: prefix}
		var conns, connsActive, requests, active int64
		var codes [6]int64
		var took telemetry.Distribution
		for i := range s.shards {
			sh := &s.shards[i]
			conns += sh.conns.Load()
			connsActive += sh.connsActive.Load()
			requests += sh.requests.Load()
			active += sh.active.Load()
			for j := range codes {
				codes[j] += sh.codes[j].Load()
			}
			s.took[i].AddTo(&took)
		}
		const name = "http.{http_conn_manager_prefix}."
		e.Counter(name+"downstream_cx_total", float64(conns), tag)
		e.Gauge(name+"downstream_cx_active", float64(connsActive), tag)
		e.Counter(name+"downstream_rq_total", float64(requests), tag)
		e.Gauge(name+"downstream_rq_active", float64(active), tag)
		for class, n := range codes {
			if classes[class] != "" {
				e.Counter(name+"downstream_rq_{response_code_class}", float64(n), tag, telemetry.Tag{Key: "response_code_class", Value: classes[class]})
			}
		}
		e.Histogram(name+"downstream_rq_time", took, tag)
	}
}
