// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// A listenerEntry is a listener by name: what serves, and what is to come.
type listenerEntry struct {
	active, warming       *Listener // either may be nil
	activeRec, warmingRec record
	since                 time.Time // of warming
	failed                *failure

	ref      *ListenerRef // of one that was wanted on demand, else nil
	demanded int          // how often it is
	absent   bool         // it was asked for and does not exist
}

// latest is what serves once what is to come has warmed; nil if there is nothing.
func (e *listenerEntry) latest() *Listener {
	if e.warming != nil {
		return e.warming
	}
	return e.active
}

// listenerName is the name, or the address of one that has none.
func listenerName(m *listenerv3.Listener) string {
	if m.GetName() != "" || m.GetAddress() == nil {
		return m.GetName()
	}
	a, err := listenerAddress(m.GetAddress())
	if err != nil {
		return ""
	}
	return a.String()
}

func (s *Store) listenerLocked(name string) *listenerEntry {
	e := s.listeners[name]
	if e == nil {
		e = &listenerEntry{}
		s.listeners[name] = e
	}
	return e
}

func (s *Store) putListener(m *listenerv3.Listener, in *incoming) error {
	name, hash := listenerName(m), hashOf(m)
	e := s.listeners[name]
	if e != nil {
		switch {
		case e.warming != nil && e.warming.Hash == hash:
			e.failed, e.warmingRec = nil, in.record()
			return nil
		case e.active != nil && e.active.Hash == hash:
			if e.warming != nil && e.active.Bind {
				in.claims.note(name, e, in)
			}
			e.failed, e.warming, e.activeRec = nil, nil, in.record()
			return nil
		}
	}
	var old *Listener
	if e != nil {
		old = e.latest()
	}
	l, err := s.builder.listener(m, hash, old)
	if err != nil {
		return err
	}
	l.Name, l.Version = name, in.version
	e = s.listenerLocked(name)
	if l.Bind {
		in.claims.note(name, e, in)
	}
	e.warming, e.warmingRec, e.since, e.failed, e.absent = l, in.record(), in.at, nil, false
	return nil
}

func (s *Store) removeListener(name string) {
	if e := s.listeners[name]; e != nil && e.demanded > 0 {
		*e = listenerEntry{ref: e.ref, demanded: e.demanded, absent: true}
		e.ref.listener.Store(nil)
		return
	}
	delete(s.listeners, name)
}

func (s *Store) failListener(name string, f *failure) { s.listenerLocked(name).failed = f }

// A clusterEntry is a cluster by name.
type clusterEntry struct {
	active, warming       *decode.Cluster
	activeRec, warmingRec record
	since                 time.Time
	failed                *failure
	removed               time.Time // when it was, if tables in force still named it
}

func (s *Store) clusterLocked(name string) *clusterEntry {
	e := s.clusters[name]
	if e == nil {
		e = &clusterEntry{}
		s.clusters[name] = e
	}
	return e
}

func (s *Store) putCluster(m *clusterv3.Cluster, in *incoming) error {
	hash := hashOf(m)
	if e := s.clusters[m.GetName()]; e != nil {
		e.removed = time.Time{}
		switch {
		case e.warming != nil && e.warming.Spec.Hash == hash:
			e.failed, e.warmingRec = nil, in.record()
			return nil
		case e.active != nil && e.active.Spec.Hash == hash:
			e.failed, e.warming, e.activeRec = nil, nil, in.record()
			return nil
		}
	}
	c, err := s.reader.Cluster(m, hash)
	if err != nil {
		return err
	}
	e := s.clusterLocked(m.GetName())
	e.warming, e.warmingRec, e.since, e.failed = c, in.record(), in.at, nil
	return nil
}

// removeCluster lets go of a cluster, one that serves when no table in force names
// it any more: control planes send what is gone before the routes that show it.
func (s *Store) removeCluster(name string) {
	s.absent[name] = true
	e := s.clusters[name]
	switch {
	case e == nil:
	case e.active == nil:
		delete(s.clusters, name)
	default:
		e.warming, e.warmingRec = nil, record{}
		if e.removed.IsZero() {
			e.removed = s.cfg.Now()
		}
	}
}

func (s *Store) failCluster(name string, f *failure) { s.clusterLocked(name).failed = f }

func (s *Store) putEndpoints(m *endpointv3.ClusterLoadAssignment, in *incoming) error {
	a, err := decode.Endpoints(m)
	if err != nil {
		return err
	}
	s.cfg.Clusters.Assign(m.GetClusterName(), a)
	rec := in.record()
	rec.empty = !slices.ContainsFunc(a.Localities, func(l upstream.Locality) bool { return len(l.Endpoints) > 0 })
	s.endpoints[m.GetClusterName()] = &rec
	return nil
}

// removeEndpoints keeps endpoints that came. A name that never had any does not
// exist: its cluster need not wait any longer.
func (s *Store) removeEndpoints(name string) {
	if r := s.endpoints[name]; r == nil || r.raw == nil {
		s.cfg.Clusters.Assign(name, &upstream.Assignment{})
		s.endpoints[name] = &record{updated: s.cfg.Now()}
	}
}

func (s *Store) failEndpoints(name string, f *failure) {
	if r := s.endpoints[name]; r != nil {
		r.failed = f
	}
}

// A routeEntry is a route table by name.
type routeEntry struct {
	record
	ref *RouteRef
	// byListener is true if a listener wants it, or did.
	byListener bool
	demanded   int  // how often it is wanted on demand
	byDemanded bool // a listener wants it that is wanted on demand

	hosts      knownHosts  // of the table that came last
	warming    *RouteTable // waits for clusters it names; may be nil
	warmingRec record
	since      time.Time // of warming
}

func (s *Store) routeLocked(name string) *routeEntry {
	e := s.routes[name]
	if e == nil {
		e = &routeEntry{ref: &RouteRef{name: name}}
		s.routes[name] = e
	}
	return e
}

func (s *Store) putRoute(m *routev3.RouteConfiguration, in *incoming) error {
	e := s.routes[m.GetName()]
	var last knownHosts
	if e != nil {
		last = e.hosts
	}
	hosts, hash, err := s.builder.hosts(m, in.hosts, last)
	if err != nil {
		return err
	}
	if e != nil {
		switch {
		case e.warming != nil && e.warming.Hash == hash:
			e.failed, e.warmingRec, e.hosts = nil, in.record(), hosts.known()
			return nil
		case e.ref.Load() != nil && e.ref.Load().Hash == hash:
			e.warming, e.record, e.hosts = nil, in.record(), hosts.known()
			return nil
		}
	}
	table, err := s.builder.table(m, hosts, hash, in.version)
	if err != nil {
		return err
	}
	e = s.routeLocked(m.GetName())
	e.warming, e.warmingRec, e.since, e.failed, e.hosts = table, in.record(), in.at, nil, hosts.known()
	return nil
}

// removeRoute keeps a table that came, as Envoy does, until nobody wants it. A
// name that never had one does not exist: whoever waits for it need not.
func (s *Store) removeRoute(name string) { s.routeLocked(name).ref.answered.Store(true) }

func (s *Store) failRoute(name string, f *failure) { s.routeLocked(name).failed = f }

func (s *Store) putSecret(m *tlsv3.Secret, in *incoming) error {
	if err := s.builder.keeper.Put(m); err != nil {
		return err
	}
	rec := in.record()
	s.secrets[m.GetName()] = &rec
	return nil
}

func (s *Store) failSecret(name string, f *failure) {
	r := s.secrets[name]
	if r == nil {
		r = &record{}
		s.secrets[name] = r
	}
	r.failed = f
}

func (r *RouteRef) forget() {
	r.table.Store(nil)
	r.answered.Store(false)
}
