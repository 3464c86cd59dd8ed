// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

// An inboundPort is a port on which the workload is called.
type inboundPort struct {
	Target   int // where the application listens
	Protocol mesh.Protocol
	Service  *registry.Service // the first by name that has it; nil for a Sidecar's ingress that no service names
	Port     int               // of the service
	Bind     string            // of a Sidecar's ingress
	Dialled  bool              // callers dial a listener for this port alone
	Endpoint netip.AddrPort    // where it forwards to; not valid: the address that was dialled
	Unix     string
	Pool     *intent.ConnectionPool
	Origin   source.Origin
}

func inboundCluster(port int) string {
	return mesh.ClusterName{Direction: mesh.Inbound, Port: port}.String()
}

// inboundPorts lists the ports by number: those of the Sidecar in force if it
// names any, else those that services give the workload.
func (b *Backend) inboundPorts(c *derive.Context, cl sight.Client) []inboundPort {
	served := b.Facts.Served.Get(c, b.workloadKey(c, cl))
	sc := b.Wishes.Sidecar.Get(c, cl.Subject)
	if len(sc.Ingress) > 0 {
		return ingressPorts(sc, served, cl.Traits)
	}
	var out []inboundPort
	for _, p := range served {
		if p.Port.Protocol == mesh.UDP || slices.ContainsFunc(out, func(o inboundPort) bool { return o.Target == p.Target }) {
			continue
		}
		out = append(out, inboundPort{
			Target: p.Target, Protocol: p.Port.Protocol, Service: p.Service, Port: p.Port.Number, Pool: sc.Inbound,
			Origin: source.Origin{Object: p.Service.Object},
		})
	}
	slices.SortFunc(out, func(a, b inboundPort) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

func ingressPorts(sc *intent.Sidecar, served []registry.ServicePort, t sight.Traits) []inboundPort {
	var out []inboundPort
	for i := range sc.Ingress {
		in := &sc.Ingress[i]
		p := inboundPort{
			Target: in.Port, Protocol: in.Protocol, Port: in.Port, Bind: in.Bind, Endpoint: in.Endpoint, Unix: in.Unix, Pool: in.Pool,
			Dialled: t.NoCapture || in.Capture == intent.CaptureNone, Origin: in.Origin,
		}
		if p.Pool == nil {
			p.Pool = sc.Inbound
		}
		for _, sp := range served {
			if sp.Target == in.Port {
				p.Service, p.Port = sp.Service, sp.Port.Number
				break
			}
		}
		out = append(out, p)
	}
	return out
}

// workloadKey is the workload the proxy stands beside: the one of its name, or
// else the one that has its address.
func (b *Backend) workloadKey(c *derive.Context, cl sight.Client) source.Key {
	if b.Facts.Workload.Get(c, cl.Workload) != nil {
		return cl.Workload
	}
	if a, err := netip.ParseAddr(cl.Address()); err == nil {
		for _, k := range b.Facts.WorkloadsAt.Get(c, a) {
			if k.Namespace == cl.Workload.Namespace {
				return k
			}
		}
	}
	return cl.Workload
}

func (b *Backend) inboundPort(c *derive.Context, cl sight.Client, target int) (inboundPort, bool) {
	for _, p := range b.inboundPorts(c, cl) {
		if p.Target == target {
			return p, true
		}
	}
	return inboundPort{}, false
}

// inboundClusterFor is the way to the application itself.
func (b *Backend) inboundClusterFor(c *derive.Context, cl sight.Client, target int) *xds.Resource {
	p, ok := b.inboundPort(c, cl, target)
	if !ok {
		return nil
	}
	s := b.Settings(c)
	m := cluster.Original(inboundCluster(target), s)
	if fixed := p.application(cl, s); fixed != nil {
		cluster.Fix(m, fixed)
	} else {
		cluster.KeepHosts(m)
		cluster.BindFrom(m, cl.Traits.PassthroughSource())
		if p.Endpoint.IsValid() && int(p.Endpoint.Port()) != target {
			m.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
				UpstreamPortOverride: wrapperspb.UInt32(uint32(p.Endpoint.Port())),
			}}
		}
	}
	cluster.SetPool(m, intent.ClusterPolicy{Pool: p.Pool}, &intent.Settings{})
	if cluster.CarriesHTTP(p.Protocol) {
		// What callers may upgrade to HTTP/2 is not for the application to bear.
		cluster.SetHTTP(m, cluster.VersionOf(p.Protocol, nil, false), cluster.HTTP{Pool: p.Pool})
	}
	m.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	origins := []source.Origin{p.Origin}
	if p.Service != nil {
		m.Metadata.FilterMetadata[emit.Istio] = &structpb.Struct{Fields: map[string]*structpb.Value{"services": emit.Services(p.Service)}}
		origins = append(origins, source.Origin{Object: p.Service.Object})
	}
	emit.AddFrom(m.Metadata, origins...)
	return b.resource(m.Name, m)
}

// application is where it is found if not at the address that was dialled; nil if there.
func (p *inboundPort) application(cl sight.Client, s *intent.Settings) *corev3.Address {
	port := p.Target
	if p.Endpoint.IsValid() {
		port = int(p.Endpoint.Port())
	}
	switch {
	case p.Unix != "":
		return emit.Pipe(p.Unix)
	case p.Endpoint.IsValid() && !p.Endpoint.Addr().IsUnspecified():
		return emit.Address(p.Endpoint.Addr().String(), port)
	case p.Dialled:
		// The address that was dialled is the proxy's own. Behind a listener on one address the application may
		// have the same port on the workload's.
		return emit.Address(cl.Address(), port)
	case s.InboundLocalhost:
		return emit.Address(cl.Traits.Loopback(), port)
	}
	return nil
}

// operation names the spans of what comes in.
func (p *inboundPort) operation() string {
	host := ""
	if p.Service != nil {
		host = string(p.Service.Host)
	}
	return host + ":" + strconv.Itoa(p.Port) + "/*"
}
