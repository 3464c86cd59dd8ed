// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// l4Chains adds the chains through which bytes for one service port go: as TLS and TCP routes say, or else to the
// service. A listener that is not the service's alone tells it by name or range of addresses.
func (b *Backend) l4Chains(c *derive.Context, set *filter.Chains, k listenKey, s *registry.Service, p registry.Port, shared bool) {
	t := sight.Target{World: b.World, Context: c, Sight: k.Sight, Client: k.Client, Port: p.Number}
	r := route.Compiler{Port: p.Number, Namespace: k.Sight.Namespace(), Labels: k.Client.Labels()}
	routes := b.Routes(c, k.Sight, s.Host, p.Number)
	if routes == nil {
		routes = &intent.HostRoutes{}
	}
	var ranges []netip.Prefix
	if shared && len(s.VIPs()) == 0 {
		ranges = family(s.Prefixes, k.Traits.IPv6)
	}
	by := func(o source.Origin) *corev3.Metadata { return emit.From(o, source.Origin{Object: s.Object}) }
	tls := p.Protocol == mesh.TLS || p.Protocol == mesh.HTTPS
	if tls {
		some := false
		l4Routes(routes.TLS, &r, func(w *intent.L4Route, m *intent.L4Match) {
			some = true
			set.Add(filter.Want{Transport: "tls", Names: m.SNI, At: either(m.Subnets, ranges)}, by(m.Origin), func() []*listenerv3.Filter { return k.bytes(t, w.Forward) })
		})
		if some {
			return
		}
	}
	done := false
	l4Routes(routes.TCP, &r, func(w *intent.L4Route, m *intent.L4Match) {
		if done {
			return
		}
		o, at := w.Origin, ranges
		if m != nil {
			o, at = m.Origin, either(m.Subnets, ranges)
		}
		done = m == nil || len(m.Subnets) == 0
		set.Add(filter.Want{At: at}, by(o), func() []*listenerv3.Filter { return k.bytes(t, w.Forward) })
	})
	if done {
		return
	}
	w := filter.Want{At: ranges}
	if tls && shared {
		w.Transport, w.Names = "tls", []mesh.Hostname{s.Host}
	}
	set.Add(w, by(source.Origin{}), func() []*listenerv3.Filter {
		return k.bytes(t, []intent.Destination{{Host: s.Host, Port: p.Number}})
	})
}

// l4Routes calls each with every match that can hold, or with none for a route without.
func l4Routes(routes []intent.L4Route, r *route.Compiler, each func(w *intent.L4Route, m *intent.L4Match)) {
	for i := range routes {
		w := &routes[i]
		if len(w.Matches) == 0 {
			each(w, nil)
		}
		for j := range w.Matches {
			if m := &w.Matches[j]; r.Holds(m.Port, m.SourceNS, m.SourceLabels, m.Gateways) {
				each(w, m)
			}
		}
	}
}

func either(a, b []netip.Prefix) []netip.Prefix {
	if len(a) > 0 {
		return a
	}
	return b
}

// family leaves the prefixes of one IP family.
func family(all []netip.Prefix, v6 bool) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
}

// bytes passes bytes on to destinations.
func (k listenKey) bytes(t sight.Target, forward []intent.Destination, before ...*listenerv3.Filter) []*listenerv3.Filter {
	f := filter.TCP{AccessLog: filter.Log(k.Log.log())}
	for i := range forward {
		d := &forward[i]
		f.Targets = append(f.Targets, filter.Target{Cluster: t.Cluster(d.Host, d.Port, d.Subset), Weight: d.Weight})
	}
	if len(forward) > 0 {
		f.Policy = t.Policy(forward[0].Host, forward[0].Port, forward[0].Subset).ClusterPolicy
	}
	return f.Filters(k.Traits.Features, before...)
}

// isPortPersonal reports whether the routes of connections on a port differ between clients of one sight.
func (b *Backend) isPortPersonal(c *derive.Context, k sight.OnPort) bool {
	personal := func(h mesh.Hostname) bool { return b.Personal(c, k.Sight, h) }
	for _, key := range b.OnPort.Get(c, k) {
		s := b.Facts.Service.Get(c, key)
		if p, _ := s.Port(k.Port); p.Protocol.IsHTTP() {
			continue
		}
		if personal(key.Host) {
			return true
		}
		routes := b.Routes(c, k.Sight, key.Host, k.Port)
		if routes == nil {
			continue
		}
		for _, r := range slices.Concat(routes.TLS, routes.TCP) {
			if slices.ContainsFunc(r.Matches, func(m intent.L4Match) bool { return len(m.SourceLabels) > 0 }) ||
				slices.ContainsFunc(r.Forward, func(d intent.Destination) bool { return personal(d.Host) }) {
				return true
			}
		}
	}
	return false
}
