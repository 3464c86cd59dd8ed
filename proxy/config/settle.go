// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"slices"
	"time"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/secrets"
)

// finishLocked lets what has warmed take over, publishes what is new, and
// unlocks mu. Callbacks run without mu, in the order of changes.
func (s *Store) finishLocked() {
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.settleLocked()
	snap := s.nextLocked()
	wanted, asked := s.wantedLocked()
	s.mu.Unlock()
	if asked && s.cfg.OnWanted != nil {
		s.cfg.OnWanted(wanted)
	}
	if snap != nil && s.cfg.OnSnapshot != nil {
		s.cfg.OnSnapshot(snap)
	}
}

// settleLocked promotes what is ready and sets the timer for what has to wait no
// longer than some time.
func (s *Store) settleLocked() {
	w := waiting{now: s.cfg.Now()}
	for _, e := range s.clusters {
		if e.warming != nil && s.clusterReady(e, &w) {
			s.cfg.Clusters.Put(e.warming.Spec)
			e.active, e.activeRec, e.warming, e.warmingRec = e.warming, e.warmingRec, nil, record{}
		}
	}
	for _, e := range s.routes {
		if e.warming != nil && s.tableReady(e, &w) {
			e.promote()
		}
	}
	for _, e := range s.listeners {
		if e.warming != nil && s.listenerReady(e, &w) {
			e.active, e.activeRec, e.warming, e.warmingRec = e.warming, e.warmingRec, nil, record{}
			if e.ref != nil {
				e.ref.listener.Store(e.active)
			}
		}
	}
	s.removeLocked(&w)
	s.nameLocked(&w)
	if t := &s.reader.Transports; t.Remembered() > 2*len(s.clusters)+16 {
		t.Forget(s.liveClusters())
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !w.next.IsZero() {
		s.timer = time.AfterFunc(w.next.Sub(w.now), s.tick)
	}
}

// clusterGrace is how long a cluster that was removed may still be named by the
// tables in force. Where the next tables are on their way that is a moment; where
// none come, nobody keeps its endpoints up to date.
const clusterGrace = 5 * time.Second

// removeLocked removes the clusters that were waiting for tables to let go of them.
func (s *Store) removeLocked(w *waiting) {
	var named map[string]bool
	for name, e := range s.clusters {
		if e.removed.IsZero() {
			continue
		}
		if named == nil {
			named = s.clustersInForce()
		}
		if !named[name] || w.over(e.removed, clusterGrace) {
			delete(s.clusters, name)
			s.cfg.Clusters.Remove(name)
		}
	}
}

// clustersInForce are those that tables and chains name, in force or to come.
func (s *Store) clustersInForce() map[string]bool {
	out := map[string]bool{}
	for _, e := range s.routes {
		for _, t := range [...]*RouteTable{e.ref.Load(), e.warming} {
			if t != nil {
				for _, name := range t.Clusters() {
					out[name] = true
				}
			}
		}
	}
	for _, e := range s.listeners {
		for _, l := range [...]*Listener{e.active, e.warming} {
			if l == nil {
				continue
			}
			for c := range l.all {
				if c.TCP != nil {
					for i := range c.TCP.Clusters {
						out[c.TCP.Clusters[i].Cluster] = true
					}
				}
			}
		}
	}
	return out
}

// tick is settling because a time is over.
func (s *Store) tick() {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	s.finishLocked()
}

// waiting is what the timer has to be set for.
type waiting struct{ now, next time.Time }

// over says whether there was time enough since then; 0 is never enough.
func (w *waiting) over(since time.Time, timeout time.Duration) bool {
	if timeout <= 0 {
		return false
	}
	end := since.Add(timeout)
	if !w.now.Before(end) {
		return true
	}
	if w.next.IsZero() || end.Before(w.next) {
		w.next = end
	}
	return false
}

func (s *Store) clusterReady(e *clusterEntry, w *waiting) bool {
	c := e.warming
	ready := s.secretsReady(c.Wants, e.since, w)
	if c.EDS && s.endpoints[c.Spec.ServiceName] == nil && !w.over(e.since, c.Timeout) {
		return false
	}
	return ready
}

func (s *Store) listenerReady(e *listenerEntry, w *waiting) bool {
	ready := true
	for c := range e.warming.all {
		ready = s.secretsReady(c.needs.secrets, e.since, w) && ready
		for _, n := range c.needs.routes {
			if !s.routeLocked(n.name).ref.Answered() && !w.over(e.since, n.timeout) {
				ready = false
			}
		}
		if _, coming := s.tcpComing(c); coming && e.demanded > 0 && !w.over(e.since, tableWarming) {
			ready = false
		}
	}
	return ready
}

func (s *Store) secretsReady(wants []secrets.Want, since time.Time, w *waiting) bool {
	ready := true
	for _, want := range wants {
		if !s.builder.keeper.Secret(want.Name).Loaded() && !w.over(since, want.Timeout) {
			ready = false
		}
	}
	return ready
}

// all visits the chains, the default one included.
func (l *Listener) all(yield func(*FilterChain) bool) {
	for _, c := range l.Chains {
		if !yield(c) {
			return
		}
	}
	if l.Default != nil {
		yield(l.Default)
	}
}

func (s *Store) liveClusters() []*decode.Cluster {
	var live []*decode.Cluster
	for _, e := range s.clusters {
		for _, c := range [...]*decode.Cluster{e.active, e.warming} {
			if c != nil {
				live = append(live, c)
			}
		}
	}
	return live
}

// nextLocked returns the next snapshot if it differs from the one in force.
func (s *Store) nextLocked() *Snapshot {
	now := s.snapshot.Load()
	next := &Snapshot{Serial: now.Serial + 1, byName: map[string]*Listener{}}
	for _, name := range sortedKeys(s.listeners) {
		if e := s.listeners[name]; e.active != nil && (e.ref == nil || e.active.Bind) {
			l := e.active
			next.Listeners = append(next.Listeners, l)
			next.byName[name] = l
		}
	}
	if slices.Equal(now.Listeners, next.Listeners) {
		return nil
	}
	s.snapshot.Store(next)
	return next
}

// wantedLocked works out what must be subscribed to, and whether that is new.
// Route tables and endpoints that were wanted and are not any more are dropped.
func (s *Store) wantedLocked() (Wanted, bool) {
	endpoints, routes, secretNames := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range s.liveClusters() {
		if c.EDS {
			endpoints[c.Spec.ServiceName] = true
		}
		for _, w := range c.Wants {
			secretNames[w.Name] = true
		}
	}
	for _, e := range s.listeners {
		for _, l := range [...]*Listener{e.active, e.warming} {
			if l == nil {
				continue
			}
			for c := range l.all {
				for _, n := range c.needs.routes {
					routes[n.name] = true
					s.routeLocked(n.name).byListener = true
				}
				for _, w := range c.needs.secrets {
					secretNames[w.Name] = true
				}
			}
		}
	}
	for name, e := range s.routes {
		if e.demanded > 0 {
			routes[name] = true
		}
	}
	maps.DeleteFunc(s.routes, func(name string, e *routeEntry) bool { return e.byListener && !routes[name] })
	maps.DeleteFunc(s.endpoints, func(name string, _ *record) bool {
		if !endpoints[name] {
			s.cfg.Clusters.Assign(name, nil)
		}
		return !endpoints[name]
	})
	next := Wanted{
		Endpoints: sortedKeys(endpoints), Routes: sortedKeys(routes), Secrets: sortedKeys(secretNames),
		Clusters: sortedKeys(s.named), Listeners: s.demandedListeners(),
	}
	same := slices.Equal(next.Endpoints, s.wanted.Endpoints) && slices.Equal(next.Routes, s.wanted.Routes) &&
		slices.Equal(next.Secrets, s.wanted.Secrets) && slices.Equal(next.Clusters, s.wanted.Clusters) &&
		slices.Equal(next.Listeners, s.wanted.Listeners)
	s.wanted = next
	return next, !same
}
