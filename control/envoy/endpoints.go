// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"math"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// endpoints is the assignment of one cluster. A cluster that is not known is
// answered with an empty one, so that no proxy waits for it. Its version stays
// empty: an Envoy whose cluster changed needs it again, changed or not.
func (b *Backend) endpoints(c *derive.Context, n Named) *xds.Resource {
	name, err := mesh.ParseClusterName(n.Name)
	if err != nil || name.Direction != mesh.Outbound {
		return &xds.Resource{Name: n.Name, Body: pack(&endpointv3.ClusterLoadAssignment{ClusterName: n.Name})}
	}
	return &xds.Resource{Name: n.Name, Body: pack(b.assignment(c, clusterKey{n.Client.View, name}))}
}

func (b *Backend) assignment(c *derive.Context, k clusterKey) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: k.Name.String()}
	key := b.visible(c, k.View, k.Name.Host, k.Name.Port)
	if key.IsZero() {
		return out
	}
	policy := b.policies.Get(c, policyKey{k.View.Subject, key, k.Name.Port, k.Name.Subset})
	if policy.Missing {
		return out
	}
	places := make(map[mesh.Locality]*endpointv3.LocalityLbEndpoints)
	var order []mesh.Locality
	for i, list := 0, b.facts.Endpoints.Get(c, registry.PortKey{Service: key, Port: k.Name.Port}).List; i < len(list); i++ {
		e := &list[i]
		if !policy.Labels.Match(e.Labels) || e.Health == source.Draining {
			continue
		}
		p := places[e.Locality]
		if p == nil {
			p = &endpointv3.LocalityLbEndpoints{LoadBalancingWeight: wrapperspb.UInt32(0)}
			if l := e.Locality; !l.IsZero() {
				p.Locality = &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
			}
			places[e.Locality] = p
			order = append(order, e.Locality)
		}
		p.LbEndpoints = append(p.LbEndpoints, b.endpoint(c, e))
		p.LoadBalancingWeight.Value += max(1, e.Weight)
	}
	slices.SortFunc(order, func(a, b mesh.Locality) int { return cmp.Compare(a.String(), b.String()) })
	for _, l := range order {
		out.Endpoints = append(out.Endpoints, places[l])
	}
	b.localise(c, out, k.View, policy)
	return out
}

func (b *Backend) endpoint(c *derive.Context, e *registry.Endpoint) *endpointv3.LbEndpoint {
	var addr *corev3.Address
	switch {
	case e.Unix != "":
		addr = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.Unix}}}
	case e.Host != "":
		addr = socketAddress(e.Host, e.Port)
	default:
		addr = socketAddress(e.Addr.Addr().String(), int(e.Addr.Port()))
	}
	port := e.Port
	if e.Addr.IsValid() {
		port = int(e.Addr.Port())
	}
	md := map[string]*structpb.Struct{
		metaIstio: stringStruct(map[string]string{"workload": workloadMetadata(e)}),
	}
	if e.MTLS && b.acceptsMTLS(c, e, port) {
		md[metaSocket] = stringStruct(map[string]string{"tlsMode": "istio"})
	}
	health := corev3.HealthStatus_HEALTHY
	if e.Health == source.NotReady {
		health = corev3.HealthStatus_UNHEALTHY
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}},
		HealthStatus:        health,
		LoadBalancingWeight: wrapperspb.UInt32(max(1, e.Weight)),
		Metadata:            &corev3.Metadata{FilterMetadata: md},
	}
}

// workloadMetadata is name;namespace;canonical-name;canonical-revision;cluster.
func workloadMetadata(e *registry.Endpoint) string {
	return strings.Join([]string{
		e.App, string(e.Identity.Namespace), mesh.CanonicalService(e.Labels, e.App), mesh.CanonicalRevision(e.Labels), e.Cluster,
	}, ";")
}

// acceptsMTLS: an endpoint whose policy disables mutual TLS is called in
// plaintext, whatever its proxy could do.
func (b *Backend) acceptsMTLS(c *derive.Context, e *registry.Endpoint, port int) bool {
	return b.peerOf.Get(c, e.Workload).ForPort(port) != intent.MTLSDisable
}

// peerAuthOf is the mutual TLS that a workload demands.
func (b *Backend) peerAuthOf(c *derive.Context, k source.Key) *intent.PeerAuth {
	subject := intent.NewSubject(k.Namespace, nil)
	if w := b.facts.Workload.Get(c, k); w != nil {
		subject = intent.NewSubject(w.Namespace, w.Labels)
	}
	return b.wishes.PeerAuth.Get(c, subject)
}

// localise sets priorities or weights by locality, where rule or mesh ask for
// it: distribution always, failover only with outlier detection, without
// which nobody would notice that a locality is down.
func (b *Backend) localise(c *derive.Context, a *endpointv3.ClusterLoadAssignment, v View, p *clusterPolicy) {
	lb := b.settings(c).LocalityLB
	if p.LoadBalancer != nil && p.LoadBalancer.Locality != nil {
		lb = p.LoadBalancer.Locality
	}
	if lb == nil || lb.Enabled != nil && !*lb.Enabled || v.Locality.IsZero() {
		return
	}
	if len(lb.Distribute) > 0 {
		distribute(a, v.Locality, lb.Distribute)
		return
	}
	if p.Outliers != nil {
		failover(a, v.Locality, lb.Failover)
	}
}

// failover: nearer localities first (sub-zone, zone, region, elsewhere), numbers
// without gaps. Of the other regions the one named for ours goes first.
func failover(a *endpointv3.ClusterLoadAssignment, own mesh.Locality, to []intent.Failover) {
	for _, p := range a.Endpoints {
		l := p.GetLocality()
		switch {
		case l.GetRegion() != own.Region:
			p.Priority = 3
			for _, f := range to {
				if f.From == own.Region && f.To != l.GetRegion() {
					p.Priority = 4
				}
			}
		case l.GetZone() != own.Zone:
			p.Priority = 2
		case l.GetSubZone() != own.SubZone:
			p.Priority = 1
		}
	}
	used := make(map[uint32]bool)
	for _, p := range a.Endpoints {
		used[p.Priority] = true
	}
	for _, p := range a.Endpoints {
		var rank uint32
		for n := range p.Priority {
			if used[n] {
				rank++
			}
		}
		p.Priority = rank
	}
	slices.SortStableFunc(a.Endpoints, func(x, y *endpointv3.LocalityLbEndpoints) int { return cmp.Compare(x.Priority, y.Priority) })
}

// distribute weighs localities as the first entry says that our locality
// matches; those it does not name get nothing.
func distribute(a *endpointv3.ClusterLoadAssignment, own mesh.Locality, rules []intent.Distribute) {
	for _, d := range rules {
		if !localityMatches(d.From, own) {
			continue
		}
		kept := a.Endpoints[:0]
		weighed := make(map[int]bool)
		for _, to := range d.To {
			var sum uint32
			var members []int
			for i, p := range a.Endpoints {
				l := p.GetLocality()
				if !weighed[i] && localityMatches(to.Locality, mesh.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}) {
					members = append(members, i)
					sum += p.LoadBalancingWeight.GetValue()
				}
			}
			for _, i := range members {
				weighed[i] = true
				p := a.Endpoints[i]
				share := float64(to.Percent) * float64(p.LoadBalancingWeight.GetValue()) / float64(sum)
				p.LoadBalancingWeight = wrapperspb.UInt32(uint32(math.Ceil(share)))
			}
		}
		for i, p := range a.Endpoints {
			if weighed[i] && p.LoadBalancingWeight.GetValue() > 0 {
				kept = append(kept, p)
			}
		}
		a.Endpoints = kept
		return
	}
}

// localityMatches compares with a pattern whose parts may be "*".
func localityMatches(pattern string, l mesh.Locality) bool {
	parts := []string{l.Region, l.Zone, l.SubZone}
	for i, want := range strings.Split(pattern, "/") {
		if want == "*" {
			return true
		}
		if i >= len(parts) || want != parts[i] {
			return false
		}
	}
	return true
}
