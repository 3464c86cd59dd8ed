// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// names is the whole table for clients of a namespace.
func (b *builder) names(c *derive.Context, ns mesh.Namespace) []Name {
	var all []Name
	for _, s := range b.facts.Visible.Get(c, ns) {
		n := b.facts.Name.Get(c, HostFrom{ns, s.Host})
		if n == nil {
			continue
		}
		all = append(all, *n)
		all = append(all, b.memberNames(c, s)...)
	}
	slices.SortStableFunc(all, func(x, y Name) int { return cmp.Compare(x.Host, y.Host) })
	return all
}

// name is the row of one host; nil where the question should go to somebody else.
func (b *builder) name(c *derive.Context, from HostFrom) *Name {
	key := b.facts.Resolve.Get(c, from)
	s := b.facts.Service.Get(c, key)
	if s == nil {
		return nil
	}
	n := &Name{Host: s.Host, Addrs: s.VIPs(), Kube: s.Kube, Namespace: s.Namespace}
	if s.Kube {
		n.ShortName = s.Name
	}
	if s.Headless {
		n.Addrs = b.memberAddrs(c, key)
	}
	if s.Resolution == Alias && s.Alias != from.Host {
		// Two aliases of each other are followed one step each: this query never needs itself.
		target := b.facts.Service.Get(c, b.facts.Resolve.Get(c, HostFrom{from.Namespace, s.Alias}))
		if target == nil {
			return nil
		}
		n.Addrs = target.VIPs()
	}
	if len(n.Addrs) == 0 && !s.Headless {
		return nil
	}
	return n
}

// memberAddrs are the addresses of the ready workloads of a headless service.
func (b *builder) memberAddrs(c *derive.Context, key ServiceKey) []netip.Addr {
	var all []netip.Addr
	for _, k := range b.facts.Members.Get(c, key) {
		w := b.facts.Workload.Get(c, k)
		if w != nil && w.Health == source.Ready {
			all = appendNew(all, w.Addrs...)
		}
	}
	return all
}

// memberNames are the rows of the single workloads of a headless Kubernetes service: WORKLOAD.SERVICE.
func (b *builder) memberNames(c *derive.Context, key ServiceKey) []Name {
	s := b.facts.Service.Get(c, key)
	if s == nil || !s.Headless || !s.Kube {
		return nil
	}
	var all []Name
	for _, k := range b.facts.Members.Get(c, key) {
		w := b.facts.Workload.Get(c, k)
		if w == nil || w.Health != source.Ready || len(w.Addrs) == 0 {
			continue
		}
		all = append(all, Name{
			Host: mesh.Hostname(w.Name) + "." + s.Host, Addrs: w.Addrs, Kube: true,
			ShortName: w.Name + "." + s.Name, Namespace: s.Namespace,
		})
	}
	return all
}
