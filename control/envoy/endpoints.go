// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// An endpointKey is all that an assignment depends on. Locality and the client's labels are left out where
// nobody prefers near endpoints, so that clients everywhere share it.
type endpointKey struct {
	Sight    sight.Sight
	Client   intent.Subject
	Locality mesh.Locality
	Name     mesh.ClusterName
}

// endpointsNamed is the assignment of one cluster. A cluster that is not known is
// answered with an empty one, so that no proxy waits for it. Its version stays
// empty: an Envoy whose cluster changed needs it again, changed or not.
func (b *Backend) endpointsNamed(c *derive.Context, n Named) *xds.Resource {
	name, err := mesh.ParseClusterName(n.Name)
	if err != nil || name.Direction != mesh.Outbound {
		return &xds.Resource{Name: n.Name, Body: emit.Any(&endpointv3.ClusterLoadAssignment{ClusterName: n.Name})}
	}
	return b.outEnds.Get(c, b.endpointKey(c, n.Client.View, name))
}

func (b *Backend) endpointKey(c *derive.Context, v sight.View, name mesh.ClusterName) endpointKey {
	seen := b.Of(c, v)
	key := b.Knows(c, seen, name.Host)
	k := endpointKey{Sight: seen, Client: b.Asked(c, v.Subject, key), Name: name}
	if s := b.Facts.Service.Get(c, key); s != nil {
		near := b.nearness(c, s, b.Policies.Get(c, sight.PolicyKey{Client: k.Client, Service: key, Port: name.Port, Subset: name.Subset}))
		if near.Weighs() {
			k.Locality = v.Locality
		}
		if len(near.Labels) > 0 {
			k.Client = v.Subject
		}
	}
	return k
}

func (b *Backend) endpointsFor(c *derive.Context, k endpointKey) *xds.Resource {
	name := k.Name.String()
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	key := b.Knows(c, k.Sight, k.Name.Host)
	if s := b.Facts.Service.Get(c, key); s != nil {
		policy := b.Policies.Get(c, sight.PolicyKey{Client: b.Asked(c, k.Client, key), Service: key, Port: k.Name.Port, Subset: k.Name.Subset})
		if !policy.Missing {
			client := cluster.Client{Locality: k.Locality, Labels: k.Client.Labels()}
			out = assignment(name, client, b.nearness(c, s, policy), b.endpointList(c, s, k.Name.Port, policy, false))
		}
	}
	return &xds.Resource{Name: name, Body: emit.Any(out)}
}

func (b *Backend) nearness(c *derive.Context, s *registry.Service, p *sight.Policy) cluster.Nearness {
	var rule *intent.LocalityLB
	if p.LoadBalancer != nil {
		rule = p.LoadBalancer.Locality
	}
	return cluster.NearnessOf(b.Settings(c).LocalityLB, rule, p.Outliers != nil, s.Distribution)
}

func assignment(name string, client cluster.Client, near cluster.Nearness, list []cluster.Endpoint) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: near.Assign(client, list)}
}

// endpointList lists the endpoints of a cluster. Names are for clusters that resolve them, sockets and all else for those that
// do not: the other way round an Envoy refuses the whole cluster.
func (b *Backend) endpointList(c *derive.Context, s *registry.Service, port int, p *sight.Policy, resolves bool) []cluster.Endpoint {
	var all []cluster.Endpoint
	list := b.Facts.Endpoints.Get(c, registry.PortKey{Service: s.ServiceKey, Port: port}).List
	for i := range list {
		e := &list[i]
		if !p.Labels.Match(e.Labels) || e.Health == source.Draining || e.Host != "" && !resolves || e.Unix != "" && resolves {
			continue
		}
		all = append(all, cluster.Endpoint{Locality: e.Locality, Labels: e.Labels, Weight: e.Weight, LB: b.endpoint(c, e)})
	}
	return all
}

func (b *Backend) endpoint(c *derive.Context, e *registry.Endpoint) *endpointv3.LbEndpoint {
	var addr *corev3.Address
	port := e.Port
	switch {
	case e.Unix != "":
		addr = emit.Pipe(e.Unix)
	case e.Host != "":
		addr = emit.Address(e.Host, e.Port)
	default:
		port = int(e.Addr.Port())
		addr = emit.Address(e.Addr.Addr().String(), port)
	}
	md := map[string]*structpb.Struct{}
	if e.App != "" { // the world outside has no workloads
		md[emit.Istio] = emit.Texts(map[string]string{"workload": workloadMetadata(e)})
	}
	if e.MTLS && b.acceptsMTLS(c, e, port) {
		md[emit.Socket] = emit.Texts(map[string]string{"tlsMode": "istio"})
	}
	health := corev3.HealthStatus_HEALTHY
	if e.Health == source.NotReady {
		health = corev3.HealthStatus_UNHEALTHY
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}},
		HealthStatus:   health,
		Metadata:       &corev3.Metadata{FilterMetadata: md},
	}
}

// workloadMetadata is name;namespace;canonical-name;canonical-revision;cluster.
func workloadMetadata(e *registry.Endpoint) string {
	ns := string(e.Identity.Namespace)
	if ns == "" {
		ns = string(e.Workload.Namespace)
	}
	return strings.Join([]string{e.App, ns, mesh.CanonicalService(e.Labels, e.App), mesh.CanonicalRevision(e.Labels), e.Cluster}, ";")
}
