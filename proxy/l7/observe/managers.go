// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
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
	forwarded, noRoute, delays, aborts   atomic.Int64
	_                                    [16]byte
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

// End counts its end.
func (s *Manager) End(x *filter.Exchange) {
	id, class := x.Conn.ID, x.Response.Status/100
	sh := s.shard(id)
	sh.active.Add(-1)
	if class < 0 || class > 5 {
		class = 0
	}
	sh.codes[class].Add(1)
	if x.Attempts > 0 {
		sh.forwarded.Add(1)
	}
	if x.Flags != 0 {
		sh.unusual(x.Flags)
	}
	took, ok := x.Since(filter.ResponseEnd)
	if !ok {
		took = time.Since(x.Start)
	}
	s.took[id%statShards].Record(float64(took) / float64(time.Millisecond))
}

func (sh *managerShard) unusual(f filter.Flags) {
	if f.Has(filter.NoRouteFound) {
		sh.noRoute.Add(1)
	}
	if f.Has(filter.DelayInjected) {
		sh.delays.Add(1)
	}
	if f.Has(filter.FaultInjected) {
		sh.aborts.Add(1)
	}
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
		var sum managerShard
		var took telemetry.Distribution
		for i := range s.shards {
			sum.add(&s.shards[i])
			s.took[i].AddTo(&took)
		}
		const name = "http.{http_conn_manager_prefix}."
		count := func(what string, n *atomic.Int64) { e.Counter(name+what, float64(n.Load()), tag) }
		count("downstream_cx_total", &sum.conns)
		e.Gauge(name+"downstream_cx_active", float64(sum.connsActive.Load()), tag)
		count("downstream_rq_total", &sum.requests)
		e.Gauge(name+"downstream_rq_active", float64(sum.active.Load()), tag)
		count("rq_total", &sum.forwarded)
		count("no_route", &sum.noRoute)
		count("fault.delays_injected", &sum.delays)
		count("fault.aborts_injected", &sum.aborts)
		for class := range sum.codes {
			if classes[class] != "" {
				e.Counter(name+"downstream_rq_{response_code_class}", float64(sum.codes[class].Load()), tag, telemetry.Tag{Key: "response_code_class", Value: classes[class]})
			}
		}
		e.Histogram(name+"downstream_rq_time", took, tag)
	}
}

// add adds o's counts to sh.
func (sh *managerShard) add(o *managerShard) {
	for _, p := range [...][2]*atomic.Int64{
		{&sh.conns, &o.conns}, {&sh.connsActive, &o.connsActive}, {&sh.requests, &o.requests}, {&sh.active, &o.active},
		{&sh.forwarded, &o.forwarded}, {&sh.noRoute, &o.noRoute}, {&sh.delays, &o.delays}, {&sh.aborts, &o.aborts},
	} {
		p[0].Add(p[1].Load())
	}
	for i := range sh.codes {
		sh.codes[i].Add(o.codes[i].Load())
	}
}
