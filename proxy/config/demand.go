// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/proxy/upstream"
)

// OnDemand says whether l learns of destinations as it meets them.
func (l *Listener) OnDemand() bool {
	for _, c := range l.Chains {
		if c.OnDemand != nil {
			return true
		}
	}
	return l.Default != nil && l.Default.OnDemand != nil
}

// tableWarming bounds how long a route table waits for clusters that it names
// and that are on their way; the table before it serves meanwhile.
const tableWarming = 5 * time.Second

// emptyWarming bounds how long a table waits that would send requests to a new
// cluster without endpoints, while the table before it serves: what comes next may
// already say that the cluster is gone, or where its endpoints are.
const emptyWarming = time.Second

// clusterLinger is how long a cluster is kept after the last table that named it
// has gone: exchanges that began with that table may still want it.
const clusterLinger = 2 * time.Second

// A Need is what is wanted on demand; each may be "".
type Need struct {
	// Listener is one that does not bind. It takes connections from whoever wanted
	// it, not from listeners that hand off; it is in no snapshot.
	Listener string
	Route    string
	Cluster  string
}

// Refs are what a Need names, resolved once; nil for "".
type Refs struct {
	Listener *ListenerRef
	Routes   *RouteRef
	Cluster  *upstream.Ref
}

// A ListenerRef is a listener by name: whoever holds it sees each new version.
type ListenerRef struct {
	listener atomic.Pointer[Listener]
}

// Load returns the listener of the moment; nil while it has not arrived, and if
// there is none.
func (r *ListenerRef) Load() *Listener { return r.listener.Load() }

// Want asks for resources on demand: they become part of Wanted, and so does all
// that they name, until Drop has been called as often. What is returned need not
// have arrived; see Lacks.
//
// Not to be called from a callback of the store.
func (s *Store) Want(n Need) (refs Refs) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	if n.Listener != "" {
		e := s.listenerLocked(n.Listener)
		if e.ref == nil {
			e.ref = &ListenerRef{}
		}
		e.demanded++
		refs.Listener = e.ref
	}
	if n.Route != "" {
		e := s.routeLocked(n.Route)
		e.demanded++
		refs.Routes = e.ref
	}
	if n.Cluster != "" {
		s.demanded[n.Cluster]++
		refs.Cluster = s.cfg.Clusters.Ref(n.Cluster)
	}
	s.finishLocked()
	return refs
}

// Drop takes back what Want asked for. A route table that nobody wants any more
// is gone at once; listeners and clusters go when the control plane removes them.
//
// Not to be called from a callback of the store.
func (s *Store) Drop(n Need) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	if e := s.listeners[n.Listener]; e != nil && e.demanded > 0 {
		if e.demanded--; e.demanded == 0 && e.active == nil && e.warming == nil {
			delete(s.listeners, n.Listener)
		}
	}
	if e := s.routes[n.Route]; e != nil && e.demanded > 0 {
		if e.demanded--; e.demanded == 0 && !e.byListener {
			e.ref.forget()
			delete(s.routes, n.Route)
		}
	}
	if s.demanded[n.Cluster]--; s.demanded[n.Cluster] <= 0 {
		delete(s.demanded, n.Cluster)
	}
	s.finishLocked()
}

// Lacks says what has yet to arrive, or to be found not to exist, before traffic
// can follow what was wanted; "" if nothing has. The error says what came and was
// refused, where nothing is in force in its place.
func (s *Store) Lacks(n Need) (what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, look := range [...]func() (string, error){
		func() (string, error) { return s.lacksClusterLocked(n.Cluster) },
		func() (string, error) { return s.lacksListenerLocked(n.Listener) },
		func() (string, error) { return s.lacksRouteLocked(n.Route) },
	} {
		if what, err = look(); what != "" || err != nil {
			return what, err
		}
	}
	return "", nil
}

func (s *Store) lacksListenerLocked(name string) (string, error) {
	e := s.listeners[name]
	switch {
	case name == "" || e != nil && (e.active != nil || e.absent):
		return "", nil
	case e != nil && e.warming != nil:
		for c := range e.warming.all {
			for _, r := range c.needs.routes {
				if what, err := s.lacksRouteLocked(r.name); what != "" || err != nil {
					return what, err
				}
			}
			if cluster, coming := s.tcpComing(c); coming {
				return fmt.Sprintf("cluster %s, which listener %s names", cluster, name), nil
			}
		}
		return "a certificate for listener " + name, nil
	case e != nil && e.failed != nil:
		return "", fmt.Errorf("listener %s was refused: %w", name, e.failed.err)
	}
	return "listener " + name, nil
}

func (s *Store) lacksRouteLocked(name string) (string, error) {
	e := s.routes[name]
	switch {
	case name == "" || e != nil && e.ref.Answered():
		return "", nil
	case e != nil && e.warming != nil:
		for _, cluster := range e.warming.Clusters() {
			if s.comingLocked(cluster, true) {
				return fmt.Sprintf("cluster %s, which route table %s names", cluster, name), nil
			}
		}
	case e != nil && e.failed != nil:
		return "", fmt.Errorf("route table %s was refused: %w", name, e.failed.err)
	}
	return "route table " + name, nil
}

func (s *Store) lacksClusterLocked(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if s.comingLocked(name, true) {
		return "cluster " + name, nil
	}
	if e := s.clusters[name]; e != nil && e.active == nil && e.failed != nil {
		return "", fmt.Errorf("cluster %s was refused: %w", name, e.failed.err)
	}
	return "", nil
}

// comingLocked says whether a cluster is on its way: it warms for the first
// time, or it was asked for by name and nobody has answered.
func (s *Store) comingLocked(name string, asked bool) bool {
	if c := s.clusters[name]; c != nil && (c.active != nil || c.warming != nil || c.failed != nil) {
		return c.active == nil && c.warming != nil
	}
	return asked && !s.absent[name]
}

// tcpComing says whether a cluster of the chain's TCP proxy, asked for by name,
// is on its way.
func (s *Store) tcpComing(c *FilterChain) (cluster string, coming bool) {
	if c.TCP != nil {
		for i := range c.TCP.Clusters {
			if name := c.TCP.Clusters[i].Cluster; s.comingLocked(name, true) {
				return name, true
			}
		}
	}
	return "", false
}

// tableReady says whether a table that is to come into force may do so.
func (s *Store) tableReady(e *routeEntry, w *waiting) bool {
	for _, name := range e.warming.Clusters() {
		if s.comingLocked(name, e.demanded > 0 || e.byDemanded) {
			return w.over(e.since, tableWarming)
		}
	}
	old := e.ref.Load()
	return old == nil || !s.emptier(old, e.warming) || w.over(e.since, emptyWarming)
}

// emptier says whether next names a cluster without endpoints that old does not.
func (s *Store) emptier(old, next *RouteTable) bool {
	var had map[string]bool // that old names; made when it is asked for
	was := old.Clusters()
	for i, name := range next.Clusters() {
		if i < len(was) && was[i] == name {
			continue // in a table of which little has changed, most are where they were
		}
		c := s.clusters[name]
		if c == nil || c.active == nil || !c.active.EDS {
			continue
		}
		if r := s.endpoints[c.active.Spec.ServiceName]; r != nil && !r.empty && r.raw != nil {
			continue
		}
		if had == nil {
			had = map[string]bool{}
			for _, name := range was {
				had[name] = true
			}
		}
		if !had[name] {
			return true
		}
	}
	return false
}

// promote lets the table that has warmed take over.
func (e *routeEntry) promote() {
	e.ref.table.Store(e.warming)
	e.record = e.warmingRec
	e.warming, e.warmingRec = nil, record{}
	e.ref.answered.Store(true)
}

// nameLocked works out which clusters must be asked for by name. What is known of
// others is forgotten.
func (s *Store) nameLocked(w *waiting) {
	out := map[string]bool{}
	add := func(name string) {
		if c := s.clusters[name]; c == nil || !c.activeRec.static {
			out[name] = true
		}
	}
	for name := range s.demanded {
		add(name)
	}
	for _, e := range s.routes {
		e.byDemanded = false
	}
	for _, e := range s.listeners {
		if e.demanded > 0 {
			s.nameByListener(e, add)
		}
	}
	for _, e := range s.routes {
		if e.demanded == 0 && !e.byDemanded {
			continue
		}
		for _, t := range [...]*RouteTable{e.ref.Load(), e.warming} {
			if t != nil {
				for _, name := range t.Clusters() {
					add(name)
				}
			}
		}
	}
	s.linger(out, w)
	for name := range s.absent {
		if !out[name] {
			delete(s.absent, name)
		}
	}
	s.named = out
}

func (s *Store) nameByListener(e *listenerEntry, add func(cluster string)) {
	for _, l := range [...]*Listener{e.active, e.warming} {
		if l == nil {
			continue
		}
		for c := range l.all {
			for _, r := range c.needs.routes {
				s.routeLocked(r.name).byDemanded = true
			}
			if c.TCP != nil {
				for i := range c.TCP.Clusters {
					add(c.TCP.Clusters[i].Cluster)
				}
			}
		}
	}
}

// linger adds to out the clusters that were named a moment ago.
func (s *Store) linger(out map[string]bool, w *waiting) {
	for name := range out {
		delete(s.leaving, name)
	}
	for _, name := range s.wanted.Clusters {
		if _, ok := s.leaving[name]; !ok && !out[name] && !s.absent[name] {
			s.leaving[name] = w.now
		}
	}
	for name, since := range s.leaving {
		if w.over(since, clusterLinger) {
			delete(s.leaving, name)
		} else {
			out[name] = true
		}
	}
}

// demandedListeners are the listeners to be asked for by name.
func (s *Store) demandedListeners() []string {
	names := map[string]bool{}
	for name, e := range s.listeners {
		if e.demanded > 0 {
			names[name] = true
		}
	}
	return sortedKeys(names)
}
