// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"math"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// A Nearness is how a client prefers or weighs endpoints by where they are; the zero value does neither.
type Nearness struct {
	Distribute []intent.Distribute
	Failover   bool
	Regions    []intent.Failover // which region takes over for which
	Labels     []string          // endpoints that share more of these labels with the client go first
}

// NearnessOf is what the rule and the mesh say together. Failing over needs outlier detection, without which
// nobody would notice that a locality is down, unless the service asks for near endpoints itself.
func NearnessOf(mesh, rule *intent.LocalityLB, outliers bool, distribution string) Nearness {
	lb := mesh
	if rule != nil {
		lb = rule
	}
	enabled := func(l *intent.LocalityLB) *bool {
		if l == nil {
			return nil
		}
		return l.Enabled
	}
	on := enabled(rule)
	if on == nil {
		on = enabled(mesh)
	}
	near := distribution == "PreferClose" || distribution == "PreferSameZone" || distribution == "PreferSameNode"
	if lb == nil || on != nil && !*on {
		return Nearness{Failover: near}
	}
	if len(lb.Distribute) > 0 {
		return Nearness{Distribute: lb.Distribute}
	}
	if !outliers {
		return Nearness{Failover: near}
	}
	return Nearness{Failover: true, Regions: lb.Failover, Labels: lb.Priority}
}

// Weighs reports whether localities have weights that count.
func (n Nearness) Weighs() bool { return len(n.Distribute) > 0 || n.Failover }

// A Client is who looks at endpoints.
type Client struct {
	Locality mesh.Locality
	Labels   mesh.Labels
}

// An Endpoint is one of an assignment, with what nearness is decided by.
type Endpoint struct {
	Locality mesh.Locality
	Labels   mesh.Labels
	Weight   uint32
	LB       *endpointv3.LbEndpoint
}

// Assign groups endpoints by locality and, where that is wanted, by priority or weight.
func (n Nearness) Assign(c Client, all []Endpoint) []*endpointv3.LocalityLbEndpoints {
	scale(all)
	type place struct {
		priority uint32
		locality mesh.Locality
	}
	groups := map[place]*endpointv3.LocalityLbEndpoints{}
	var order []place
	for i := range all {
		e := &all[i]
		p := place{n.priority(c, e), e.Locality}
		g := groups[p]
		if g == nil {
			g = &endpointv3.LocalityLbEndpoints{LoadBalancingWeight: wrapperspb.UInt32(0)}
			if l := e.Locality; !l.IsZero() {
				g.Locality = localityProto(l)
			}
			groups[p] = g
			order = append(order, p)
		}
		e.LB.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
		g.LbEndpoints = append(g.LbEndpoints, e.LB)
		g.LoadBalancingWeight.Value += e.Weight
	}
	slices.SortFunc(order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.locality.String(), b.locality.String()))
	})
	out := make([]*endpointv3.LocalityLbEndpoints, len(order))
	rank := uint32(0)
	for i, p := range order { // priorities become numbers without gaps
		if i > 0 && p.priority != order[i-1].priority {
			rank++
		}
		out[i] = groups[p]
		out[i].Priority = rank
	}
	if len(n.Distribute) > 0 && !c.Locality.IsZero() {
		return distribute(out, c.Locality, n.Distribute)
	}
	return out
}

// scale makes weights fit: Envoy refuses an assignment whose sum is beyond 32 bits.
func scale(all []Endpoint) {
	sum := uint64(0)
	for i := range all {
		all[i].Weight = max(1, all[i].Weight)
		sum += uint64(all[i].Weight)
	}
	by := sum/math.MaxUint32 + 1
	if by == 1 {
		return
	}
	by *= 2 // rounding up must not bring it back above
	for i := range all {
		all[i].Weight = uint32(max(1, uint64(all[i].Weight)/by))
	}
}

// farthest is one more than the last priority that localities give.
const farthest = 5

// priority is smaller for nearer endpoints: first by labels, then by locality.
func (n Nearness) priority(c Client, e *Endpoint) uint32 {
	if !n.Failover {
		return 0
	}
	return n.byLabels(c.Labels, e.Labels)*farthest + n.byLocality(c.Locality, e.Locality)
}

// byLabels counts how many labels are left from the first that differs.
func (n Nearness) byLabels(client, endpoint mesh.Labels) uint32 {
	for i, l := range n.Labels {
		key, want, fixed := strings.Cut(l, "=")
		if !fixed {
			want = client[key]
		}
		if endpoint[key] != want {
			return uint32(len(n.Labels) - i)
		}
	}
	return 0
}

func (n Nearness) byLocality(own, l mesh.Locality) uint32 {
	switch {
	case own.IsZero():
		return 0
	case l.Region != own.Region:
		for _, f := range n.Regions {
			if f.From == own.Region && f.To != l.Region {
				return 4
			}
		}
		return 3
	case l.Zone != own.Zone:
		return 2
	case l.SubZone != own.SubZone:
		return 1
	}
	return 0
}

// distribute weighs localities as the first entry says that our locality matches; those it does not name get
// nothing.
func distribute(all []*endpointv3.LocalityLbEndpoints, own mesh.Locality, rules []intent.Distribute) []*endpointv3.LocalityLbEndpoints {
	i := slices.IndexFunc(rules, func(d intent.Distribute) bool { return localityMatches(d.From, own) })
	if i < 0 {
		return all
	}
	var kept []*endpointv3.LocalityLbEndpoints
	taken := make(map[*endpointv3.LocalityLbEndpoints]bool)
	for _, to := range rules[i].To {
		var members []*endpointv3.LocalityLbEndpoints
		sum := 0.0
		for _, p := range all {
			if !taken[p] && localityMatches(to.Locality, localityOf(p)) {
				taken[p] = true
				members = append(members, p)
				sum += float64(p.LoadBalancingWeight.GetValue())
			}
		}
		for _, p := range members {
			if share := float64(to.Percent) * float64(p.LoadBalancingWeight.GetValue()) / sum; share > 0 {
				p.LoadBalancingWeight = wrapperspb.UInt32(uint32(math.Ceil(share)))
				kept = append(kept, p)
			}
		}
	}
	slices.SortFunc(kept, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Compare(localityOf(a).String(), localityOf(b).String())
	})
	return kept
}

// localityMatches compares with a pattern whose parts may be "*", and which covers what it leaves out.
func localityMatches(pattern string, l mesh.Locality) bool {
	parts := []string{l.Region, l.Zone, l.SubZone}
	for i, want := range strings.Split(pattern, "/") {
		if want == "*" {
			continue
		}
		if i >= len(parts) || want != parts[i] {
			return false
		}
	}
	return true
}

func localityProto(l mesh.Locality) *corev3.Locality {
	return &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
}

func localityOf(p *endpointv3.LocalityLbEndpoints) mesh.Locality {
	l := p.GetLocality()
	return mesh.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
}
