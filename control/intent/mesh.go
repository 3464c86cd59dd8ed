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

// routes finds the route set that routes a host for sidecars of a scope, and what of it concerns them.
func (m *merger) routes(c *derive.Context, in HostIn) *HostRoutes {
	e := m.egress(c, in.Scope)
	if e == nil {
		return nil
	}
	owner := m.wishes.Sees.Get(c, in).Namespace
	for _, host := range registry.Covering(in.Host) {
		candidates := slices.DeleteFunc(m.routedBy(c, host), func(k source.Key) bool {
			head := m.head(c, k)
			return head == nil || !head.ExportTo.To(in.Scope.Namespace) || !e.Admits(k.Namespace, host)
		})
		if len(candidates) > 0 {
			winner := slices.MinFunc(candidates, Precedence(in.Scope.Namespace, owner))
			return forMesh(m.resolved.Get(c, winner), host, in.Scope.Namespace)
		}
	}
	return nil
}

// routedBy lists the objects that name a host, for sidecars.
func (m *merger) routedBy(c *derive.Context, host mesh.Hostname) []source.Key {
	var all []source.Key
	for _, f := range m.fronts {
		if f.Routes.byHost != nil {
			all = append(all, f.Routes.byHost.Get(c, host)...)
		}
	}
	slices.SortFunc(all, source.Key.Compare)
	return all
}

// Precedence orders the objects that route one host for sidecars, the winner first: those of the client's
// namespace, those of the service's, then by key.
func Precedence(client, owner mesh.Namespace) func(a, b source.Key) int {
	rank := func(k source.Key) int {
		switch k.Namespace {
		case client:
			return 0
		case owner:
			return 1
		}
		return 2
	}
	return func(a, b source.Key) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return a.Compare(b)
	}
}

// rowsOf finds the rows that hold the route set k.
func (m *merger) rowsOf(k source.Key) *RouteRows {
	for i := range m.fronts {
		if r := &m.fronts[i].Routes; r.kind == k.Kind && r.head != nil {
			return r
		}
	}
	return nil
}

func (m *merger) head(c *derive.Context, k source.Key) *RouteHead {
	if r := m.rowsOf(k); r != nil {
		return r.head.Get(c, k)
	}
	return nil
}

func forMesh(set *RouteSet, host mesh.Hostname, client mesh.Namespace) *HostRoutes {
	if set == nil {
		return nil
	}
	out := &HostRoutes{Object: set.Object, Host: host}
	holds := func(gateways []GatewayName, ns mesh.Namespace) bool {
		return slices.Contains(gateways, GatewayMesh) && (ns == "" || ns == client)
	}
	all := slices.Contains(set.Gateways, GatewayMesh)
	out.HTTP = keepHTTP(set.HTTP, all, func(m *HTTPMatch) bool { return holds(m.Gateways, m.SourceNS) })
	out.TLS = keepL4(set.TLS, all, func(m *L4Match) bool { return holds(m.Gateways, m.SourceNS) })
	out.TCP = keepL4(set.TCP, all, func(m *L4Match) bool { return holds(m.Gateways, m.SourceNS) })
	return out
}

// keepHTTP leaves out matches that never hold, and routes of which none is left. bare says whether a route
// without matches is kept.
func keepHTTP(routes []HTTPRoute, bare bool, holds func(*HTTPMatch) bool) []HTTPRoute {
	var out []HTTPRoute
	for _, r := range routes {
		if len(r.Matches) == 0 && !bare {
			continue
		}
		if matches := keep(r.Matches, holds); len(matches) > 0 || len(r.Matches) == 0 {
			r.Matches = matches
			out = append(out, r)
		}
	}
	return out
}

func keepL4(routes []L4Route, bare bool, holds func(*L4Match) bool) []L4Route {
	var out []L4Route
	for _, r := range routes {
		if len(r.Matches) == 0 && !bare {
			continue
		}
		if matches := keep(r.Matches, holds); len(matches) > 0 || len(r.Matches) == 0 {
			r.Matches = matches
			out = append(out, r)
		}
	}
	return out
}

func keep[M any](matches []M, holds func(*M) bool) []M {
	var out []M
	for i := range matches {
		if holds(&matches[i]) {
			out = append(out, matches[i])
		}
	}
	return out
}
