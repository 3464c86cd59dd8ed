// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// members are the workloads behind a service: those of its namespace that a selector
// takes, and those that name the service as theirs.
func (b *builder) members(c *derive.Context, k ServiceKey) []source.Key {
	var all []source.Key
	claims := b.claims(c, k)
	for i, cl := range claims {
		if i > 0 && !joins(claims[0], cl) {
			continue
		}
		all = append(all, b.selected(c, cl)...)
	}
	slices.SortFunc(all, source.Key.Compare)
	return slices.Compact(all)
}

// selected are the workloads of one declaration.
func (b *builder) selected(c *derive.Context, cl claim) []source.Key {
	var all []source.Key
	ns := cl.object.Namespace
	for _, rows := range b.workloads {
		if cl.Kube && cl.Resolution != Alias {
			all = append(all, rows.byJoin.Get(c, join{ns, cl.object.Name})...)
		}
		if len(cl.Selector) == 0 {
			continue
		}
		for _, w := range rows.byLabel.Get(c, Telling(ns, cl.Selector)) {
			if cl.Selector.Match(b.labels.Get(c, w)) && !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

// endpoints lists the endpoints of one service port.
func (b *builder) endpoints(c *derive.Context, k PortKey) *Endpoints {
	out := &Endpoints{PortKey: k}
	claims := b.claims(c, k.Service)
	for i, cl := range claims {
		if i > 0 && !joins(claims[0], cl) {
			continue
		}
		port, ok := portOf(cl.Ports, k.Port)
		if !ok {
			continue
		}
		for _, w := range b.selected(c, cl) {
			if wl := b.facts.Workload.Get(c, w); wl != nil {
				out.List = append(out.List, endpointsOf(wl, cl, port)...)
			}
		}
		for _, in := range cl.Inline {
			wl := &Workload{Workload: in.Workload, Object: cl.object, Namespace: cl.object.Namespace, Labels: in.Labels}
			out.List = append(out.List, endpointsOf(wl, cl, port)...)
		}
		if len(out.List) == 0 && len(cl.Inline) == 0 && len(cl.Selector) == 0 &&
			(cl.Resolution == DNS || cl.Resolution == DNSRoundRobin) {
			out.List = append(out.List, Endpoint{
				Workload: cl.object, Host: string(k.Service.Host), Port: cmp.Or(port.Target.Number, port.Number), Weight: 1,
			})
		}
	}
	slices.SortStableFunc(out.List, func(x, y Endpoint) int {
		return cmp.Or(x.Workload.Compare(y.Workload), x.Addr.Compare(y.Addr),
			cmp.Compare(x.Host, y.Host), cmp.Compare(x.Port, y.Port), cmp.Compare(x.Unix, y.Unix))
	})
	return out
}

func portOf(ports []Port, number int) (Port, bool) {
	i := slices.IndexFunc(ports, func(p Port) bool { return p.Number == number })
	if i < 0 {
		return Port{}, false
	}
	return ports[i], true
}

// endpointsOf is a workload as an endpoint of a port; none if it does not serve that port.
func endpointsOf(w *Workload, cl claim, port Port) []Endpoint {
	number, ok := targetOf(w, port)
	if !ok {
		return nil
	}
	e := Endpoint{
		Workload: w.Object, UID: w.UID, Labels: w.Labels, Locality: w.Locality, Network: w.Network,
		Cluster: w.Cluster, Node: w.Node, Weight: max(w.Weight, 1), Health: w.Health, App: cmp.Or(w.App, w.Name),
		MTLS: w.MTLS(),
	}
	if cl.PublishNotReady && e.Health == source.NotReady {
		e.Health = source.Ready
	}
	// An endpoint outside of the mesh has no identity unless its object names one.
	if w.Object.Kind == source.KindWorkload || w.ServiceAccount != "" {
		e.Identity = w.Identity()
	}
	switch {
	case w.Unix != "":
		e.Unix = w.Unix
	case w.Host != "":
		e.Host, e.Port = w.Host, number
	case len(w.Addrs) > 0:
		e.Addr = netip.AddrPortFrom(w.Addrs[0], uint16(number))
	default:
		return nil
	}
	return []Endpoint{e}
}

// targetOf is the port on which a workload serves a service's port: what it says itself under the port's name, then
// what the service says, then the same number.
func targetOf(w *Workload, p Port) (int, bool) {
	if w.Object.Kind != source.KindWorkload {
		// The ports of a WorkloadEntry are named like the service's ports and replace their targets.
		if n, ok := w.Ports[p.Name]; ok {
			return n, true
		}
	}
	if p.Target.Name != "" {
		n, ok := w.Ports[p.Target.Name]
		return n, ok
	}
	return cmp.Or(p.Target.Number, p.Number), true
}

// MTLS reports whether the workload's proxy accepts the mesh's mutual TLS: what its label says, or
// else, for a workload that somebody described by hand, whether it was given an identity.
func (w *Workload) MTLS() bool {
	if mode, ok := w.Labels[mesh.LabelTLSMode]; ok {
		return mode == "istio"
	}
	return w.Object.Kind != source.KindWorkload && w.ServiceAccount != ""
}

// served lists the service ports that a workload serves.
func (b *builder) served(c *derive.Context, k source.Key) []ServicePort {
	w := b.facts.Workload.Get(c, k)
	if w == nil {
		return nil
	}
	var keys []ServiceKey
	for _, rows := range b.services {
		for _, key := range slices.Sorted(maps.Keys(w.Labels)) {
			for _, o := range rows.byLabel.Get(c, Label{w.Namespace, key, w.Labels[key]}) {
				if d := rows.declare(c, o); d != nil && d.Selector.Match(w.Labels) {
					keys = appendNew(keys, b.offersWith(c, o)...)
				}
			}
		}
	}
	for _, name := range w.Joins {
		keys = appendNew(keys, ServiceKey{w.Namespace, mesh.ServiceHost(name, w.Namespace, b.domain)})
	}
	var all []ServicePort
	for _, key := range keys {
		s := b.facts.Service.Get(c, key)
		if s == nil || s.Resolution == Alias {
			continue
		}
		for _, p := range s.Ports {
			if target, ok := targetOf(w, p); ok {
				all = append(all, ServicePort{s, p, target})
			}
		}
	}
	slices.SortFunc(all, func(x, y ServicePort) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), x.Service.Compare(y.Service.ServiceKey), cmp.Compare(x.Port.Number, y.Port.Number))
	})
	return all
}

// offersWith lists the services to which an object gives endpoints.
func (b *builder) offersWith(c *derive.Context, o source.Key) []ServiceKey {
	var all []ServiceKey
	for _, s := range b.offers.Get(c, o) {
		claims := b.claims(c, s)
		for _, cl := range claims {
			if cl.object == o && (o == claims[0].object || joins(claims[0], cl)) {
				all = append(all, s)
			}
		}
	}
	return all
}
