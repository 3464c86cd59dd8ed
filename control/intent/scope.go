// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"slices"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// everything is the Sidecar of workloads that have none.
func everything() *Sidecar {
	return &Sidecar{Egress: []Egress{{Hosts: []EgressHost{{Host: "*"}}}}}
}

// sidecar finds the Sidecar in force: one that selects the workload, its namespace's, the root namespace's.
func (m *merger) sidecar(c *derive.Context, s Subject) *Sidecar {
	labels := s.Labels()
	var general *Sidecar
	for _, sc := range m.sidecars.Get(c, s.Namespace) {
		switch {
		case len(sc.Selector) == 0:
			if general == nil {
				general = sc
			}
		case sc.Selector.Match(labels):
			return sc
		}
	}
	if general == nil && s.Namespace != m.root {
		for _, sc := range m.sidecars.Get(c, m.root) {
			if len(sc.Selector) == 0 {
				general = sc
				break
			}
		}
	}
	if general == nil {
		return everything()
	}
	return general
}

// egress is the listener of a scope; nil if there is no such listener any more, whose scope sees nothing.
func (m *merger) egress(c *derive.Context, s Scope) *Egress {
	sc := everything()
	if !s.Sidecar.IsZero() {
		sc = m.sidecarByKey(c, s.Sidecar)
	}
	if sc == nil || s.Egress < 0 || s.Egress >= len(sc.Egress) {
		return nil
	}
	return &sc.Egress[s.Egress]
}

func (m *merger) sidecarByKey(c *derive.Context, k source.Key) *Sidecar {
	for _, sc := range m.sidecars.Get(c, k.Namespace) {
		if sc.Object == k {
			return sc
		}
	}
	return nil
}

// Admits reports whether the listener admits a host that an object of namespace ns declares.
func (e *Egress) Admits(ns mesh.Namespace, host mesh.Hostname) bool {
	admitted := false
	for _, h := range e.Hosts {
		if h.Namespace != "" && h.Namespace != ns || !host.Overlaps(h.Host) {
			continue
		}
		if h.Not {
			return false
		}
		admitted = true
	}
	return admitted
}

// all reports whether the listener admits everything.
func (e *Egress) all() bool {
	return len(e.Hosts) == 1 && e.Hosts[0] == EgressHost{Host: "*"}
}

// visible lists the services that a scope admits.
func (m *merger) visible(c *derive.Context, s Scope) []registry.ServiceKey {
	e := m.egress(c, s)
	if e == nil {
		return nil
	}
	list := m.facts.Visible.Get(c, s.Namespace)
	if e.all() {
		return list
	}
	var all []registry.ServiceKey
	for _, k := range list {
		if k = m.admitted(c, s, e, k); !k.IsZero() {
			all = append(all, k)
		}
	}
	return all
}

// admitted is k if the listener admits it, or else another service of the same host that it admits.
func (m *merger) admitted(c *derive.Context, s Scope, e *Egress, k registry.ServiceKey) registry.ServiceKey {
	if k.IsZero() || e.Admits(k.Namespace, k.Host) {
		return k
	}
	for _, other := range m.facts.Hosts.Get(c, k.Host) {
		if !e.Admits(other.Namespace, other.Host) {
			continue
		}
		if svc := m.facts.Service.Get(c, other); svc != nil && svc.ExportTo.To(s.Namespace) {
			return other
		}
	}
	return registry.ServiceKey{}
}

// sees finds what a host means in a scope.
func (m *merger) sees(c *derive.Context, in HostIn) registry.ServiceKey {
	e := m.egress(c, in.Scope)
	if e == nil {
		return registry.ServiceKey{}
	}
	k := m.facts.Resolve.Get(c, registry.HostFrom{Namespace: in.Scope.Namespace, Host: in.Host})
	return m.admitted(c, in.Scope, e, k)
}

// routeHosts lists the hosts that route sets name for sidecars in a scope.
func (m *merger) routeHosts(c *derive.Context, s Scope) []mesh.Hostname {
	e := m.egress(c, s)
	if e == nil {
		return nil
	}
	var all []mesh.Hostname
	for _, f := range m.fronts {
		if f.Routes.head == nil {
			continue
		}
		for _, to := range []registry.Clients{{All: true}, {Namespace: s.Namespace}} {
			for _, k := range f.Routes.byClient.Get(c, to) {
				head := f.Routes.head.Get(c, k)
				if head == nil {
					continue
				}
				for _, h := range head.Hosts {
					if e.Admits(k.Namespace, h) {
						all = append(all, h)
					}
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
