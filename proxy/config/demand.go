// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"time"

	"github.com/meltemi/meltemi/proxy/upstream"
)

// tableWarming bounds how long a route table waits for clusters that it names
// and that are on their way; the table before it serves meanwhile.
const tableWarming = 5 * time.Second

// clusterLinger is how long a cluster is kept after the last table that named it
// has gone: exchanges that began with that table may still want it.
const clusterLinger = 2 * time.Second

// Want asks for a route table and a cluster on demand, either of which may be
// "": they become part of Wanted, and so do the clusters that the table names,
// until Drop has been called as often. What is returned need not have arrived;
// see Lacks.
//
// Not to be called from a callback of the store.
func (s *Store) Want(route, cluster string) (*RouteRef, *upstream.Ref) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	var table *RouteRef
	var ref *upstream.Ref
	if route != "" {
		e := s.routeLocked(route)
		e.demanded++
		table = e.ref
	}
	if cluster != "" {
		s.demanded[cluster]++
		ref = s.cfg.Clusters.Ref(cluster)
	}
	s.finishLocked()
	return table, ref
}

// Drop takes back what Want asked for. A route table that nobody wants any more
// is gone at once; a cluster goes when the control plane removes it.
//
// Not to be called from a callback of the store.
func (s *Store) Drop(route, cluster string) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	if e := s.routes[route]; e != nil && e.demanded > 0 {
		if e.demanded--; e.demanded == 0 && !e.byListener {
			e.ref.forget()
			delete(s.routes, route)
		}
	}
	if s.demanded[cluster]--; s.demanded[cluster] <= 0 {
		delete(s.demanded, cluster)
	}
	s.finishLocked()
}

// Lacks says what has yet to arrive, or to be found not to exist, before traffic
// can follow a wanted route table and cluster; "" if nothing has. The error says
// what came and was refused, where nothing is in force in its place.
func (s *Store) Lacks(route, cluster string) (what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cluster != "" {
		if s.comingLocked(cluster, true) {
			return "cluster " + cluster, nil
		}
		if e := s.clusters[cluster]; e != nil && e.active == nil && e.failed != nil {
			return "", fmt.Errorf("cluster %s was refused: %w", cluster, e.failed.err)
		}
	}
	e := s.routes[route]
	switch {
	case route == "" || e != nil && e.ref.Answered():
		return "", nil
	case e != nil && e.warming != nil:
		for _, name := range e.warming.Clusters() {
			if s.comingLocked(name, true) {
				return fmt.Sprintf("cluster %s, which route table %s names", name, route), nil
			}
		}
	case e != nil && e.failed != nil:
		return "", fmt.Errorf("route table %s was refused: %w", route, e.failed.err)
	}
	return "route table " + route, nil
}

// comingLocked says whether a cluster is on its way: it warms for the first
// time, or it was asked for by name and nobody has answered.
func (s *Store) comingLocked(name string, asked bool) bool {
	if c := s.clusters[name]; c != nil && (c.active != nil || c.warming != nil || c.failed != nil) {
		return c.active == nil && c.warming != nil
	}
	return asked && !s.absent[name]
}

// tableReady says whether a table that is to come into force may do so.
func (s *Store) tableReady(e *routeEntry, w *waiting) bool {
	for _, name := range e.warming.Clusters() {
		if s.comingLocked(name, e.demanded > 0) {
			return w.over(e.since, tableWarming)
		}
	}
	return true
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
		if e.demanded == 0 {
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
	for name := range s.absent {
		if !out[name] {
			delete(s.absent, name)
		}
	}
	s.named = out
}
