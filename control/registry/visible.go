// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// visible lists what clients of ns see: one service per host.
func (b *builder) visible(c *derive.Context, ns mesh.Namespace) []ServiceKey {
	perHost := map[mesh.Hostname][]ServiceKey{}
	for _, rows := range b.services {
		for _, to := range []Clients{{All: true}, {Namespace: ns}} {
			for _, o := range rows.byClient.Get(c, to) {
				for _, s := range b.offers.Get(c, o) {
					perHost[s.Host] = append(perHost[s.Host], s)
				}
			}
		}
	}
	all := make([]ServiceKey, 0, len(perHost))
	for _, candidates := range perHost {
		if best := b.best(c, ns, candidates); !best.IsZero() {
			all = append(all, best)
		}
	}
	slices.SortFunc(all, ServiceKey.Compare)
	return all
}

// offersTo lists the services that an object declares.
func (b *builder) offersTo(c *derive.Context, k source.Key) []ServiceKey {
	var all []ServiceKey
	for _, h := range b.declaration(c, k).Hosts {
		all = append(all, ServiceKey{k.Namespace, h})
	}
	return all
}

// best is the one of several services of one host that clients of ns mean: that of their own
// namespace, a Kubernetes Service, the first by namespace.
func (b *builder) best(c *derive.Context, ns mesh.Namespace, candidates []ServiceKey) ServiceKey {
	var best ServiceKey
	var rank int
	slices.SortFunc(candidates, ServiceKey.Compare)
	for _, s := range candidates {
		br := b.brief.Get(c, s)
		if !br.exists || !br.to.To(ns) {
			continue
		}
		r := 1
		if br.kube {
			r = 2
		}
		if s.Namespace == ns {
			r = 3
		}
		if r > rank {
			best, rank = s, r
		}
	}
	return best
}

// resolve finds the service that a name means, by itself or by the longest wildcard that covers it.
func (b *builder) resolve(c *derive.Context, from HostFrom) ServiceKey {
	for _, h := range Covering(from.Host) {
		keys := slices.Clone(b.facts.Hosts.Get(c, h))
		if best := b.best(c, from.Namespace, keys); !best.IsZero() {
			return best
		}
	}
	return ServiceKey{}
}

// Covering lists h and the wildcards that cover it, the most specific first.
func Covering(h mesh.Hostname) []mesh.Hostname {
	all := []mesh.Hostname{h}
	rest := strings.TrimPrefix(string(h), "*.")
	for {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		all = append(all, mesh.Hostname("*."+after))
		rest = after
	}
	if h != "*" {
		all = append(all, "*")
	}
	return all
}

// byAddr finds the service of an address: its own, one given to it, or the longest CIDR around it.
func (b *builder) byAddr(c *derive.Context, from AddrFrom) ServiceKey {
	a := from.Addr.Unmap()
	var candidates []ServiceKey
	for _, rows := range b.services {
		for _, o := range rows.byAddr.Get(c, a) {
			candidates = append(candidates, b.offers.Get(c, o)...)
		}
	}
	if g, ok := vipGroupOf(a); ok && len(candidates) == 0 {
		if s, ok := b.vips.Get(c, g).at[a]; ok {
			candidates = append(candidates, s)
		}
	}
	if s := b.best(c, from.Namespace, candidates); !s.IsZero() {
		return s
	}
	for _, l := range b.lengths.Get(c, struct{}{}) {
		if l.total != a.BitLen() {
			continue
		}
		p := netip.PrefixFrom(a, l.ones).Masked()
		candidates = nil
		for _, rows := range b.services {
			for _, o := range rows.byPrefix.Get(c, p) {
				candidates = append(candidates, b.offers.Get(c, o)...)
			}
		}
		if s := b.best(c, from.Namespace, candidates); !s.IsZero() {
			return s
		}
	}
	return ServiceKey{}
}

// lengthsInUse lists which lengths of prefixes services have, the longest first.
func (b *builder) lengthsInUse(c *derive.Context, _ struct{}) []bits {
	var all []bits
	for _, total := range []int{32, 128} {
		for ones := total; ones >= 0; ones-- {
			for _, rows := range b.services {
				if len(rows.byBits.Get(c, bits{total, ones})) > 0 {
					all = append(all, bits{total, ones})
					break
				}
			}
		}
	}
	return all
}
