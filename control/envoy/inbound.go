// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// ingressPrefix begins the names of listeners that the application's callers dial
// directly, where nothing is captured.
const ingressPrefix = "inbound_"

// An inboundPort is a port on which the workload is called.
type inboundPort struct {
	Target   int // where the application listens
	Protocol mesh.Protocol
	Service  *registry.Service // the first by name that has it; nil for a Sidecar's ingress
	Port     int               // of the service
	Bind     string            // of a Sidecar's ingress
	Endpoint netip.AddrPort    // where it forwards to; not valid: the address that was dialled
	Unix     string
	Origin   source.Origin
}

func inboundCluster(port int) string {
	return mesh.ClusterName{Direction: mesh.Inbound, Port: port}.String()
}

// inboundPorts lists the ports by number: those of the Sidecar in force if it
// names any, else those that services give the workload.
func (b *Backend) inboundPorts(c *derive.Context, cl Client) []inboundPort {
	served := b.facts.Served.Get(c, b.workloadKey(c, cl))
	if s := b.wishes.Sidecar.Get(c, cl.Subject); len(s.Ingress) > 0 {
		return ingressPorts(s, served)
	}
	var out []inboundPort
	for _, p := range served {
		if p.Port.Protocol == mesh.UDP || slices.ContainsFunc(out, func(o inboundPort) bool { return o.Target == p.Target }) {
			continue
		}
		out = append(out, inboundPort{
			Target: p.Target, Protocol: p.Port.Protocol, Service: p.Service, Port: p.Port.Number,
			Origin: source.Origin{Object: p.Service.Object},
		})
	}
	slices.SortFunc(out, func(a, b inboundPort) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

func ingressPorts(s *intent.Sidecar, served []registry.ServicePort) []inboundPort {
	var out []inboundPort
	for i := range s.Ingress {
		in := &s.Ingress[i]
		p := inboundPort{Target: in.Port, Protocol: in.Protocol, Port: in.Port, Bind: in.Bind, Endpoint: in.Endpoint, Unix: in.Unix, Origin: in.Origin}
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
func (b *Backend) workloadKey(c *derive.Context, cl Client) source.Key {
	if b.facts.Workload.Get(c, cl.Workload) != nil {
		return cl.Workload
	}
	first, _, _ := strings.Cut(cl.Addrs, ",")
	if a, err := netip.ParseAddr(first); err == nil {
		for _, k := range b.facts.WorkloadsAt.Get(c, a) {
			if k.Namespace == cl.Workload.Namespace {
				return k
			}
		}
	}
	return cl.Workload
}

func (b *Backend) inboundPort(c *derive.Context, cl Client, target int) (inboundPort, bool) {
	for _, p := range b.inboundPorts(c, cl) {
		if p.Target == target {
			return p, true
		}
	}
	return inboundPort{}, false
}

// inboundClusterFor is the way to the application itself.
func (b *Backend) inboundClusterFor(c *derive.Context, cl Client, target int) *clusterv3.Cluster {
	p, ok := b.inboundPort(c, cl, target)
	if !ok {
		return nil
	}
	s := b.settings(c)
	name := inboundCluster(target)
	m := original(name, s)
	switch {
	case p.Unix != "":
		m.ClusterDiscoveryType, m.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
		m.LoadAssignment = staticAssignment(name, &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: p.Unix}}})
	case p.Endpoint.IsValid() && !p.Endpoint.Addr().IsUnspecified():
		m.ClusterDiscoveryType, m.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
		m.LoadAssignment = staticAssignment(name, socketAddress(p.Endpoint.Addr().String(), int(p.Endpoint.Port())))
	case s.InboundLocalhost || cl.Traits.NoCapture:
		m.ClusterDiscoveryType, m.LbPolicy = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, clusterv3.Cluster_ROUND_ROBIN
		port := target
		if p.Endpoint.IsValid() {
			port = int(p.Endpoint.Port())
		}
		m.LoadAssignment = staticAssignment(name, socketAddress(cl.Traits.loopback(), port))
	default:
		m.UpstreamBindConfig = bindFrom(cl.Traits.passthroughSource())
		if p.Endpoint.IsValid() && int(p.Endpoint.Port()) != target {
			m.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
				UpstreamPortOverride: wrapperspb.UInt32(uint32(p.Endpoint.Port())),
			}}
		}
	}
	applyProtocol(m, p.Protocol, nil, s)
	if p.Service != nil {
		m.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			metaIstio: {Fields: map[string]*structpb.Value{
				"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStructValue(stringStruct(map[string]string{
					"host": string(p.Service.Host), "name": p.Service.Name, "namespace": string(p.Service.Namespace),
				}))}}),
			}},
			metaMeltemi: provenance([]source.Origin{p.Origin}),
		}}
	}
	return m
}

func (b *Backend) inboundNames(c *derive.Context, cl Client) []string {
	if !cl.Traits.NoCapture {
		return []string{listenerInbound}
	}
	var names []string
	for _, p := range b.inboundPorts(c, cl) {
		if p.Origin.Object.Kind == source.KindSidecar { // without one, the application is dialled directly
			names = append(names, ingressPrefix+strconv.Itoa(p.Target))
		}
	}
	return names
}

// ingressListener is dialled by callers, because nothing is captured.
func (b *Backend) ingressListener(c *derive.Context, cl Client, name string) *listenerv3.Listener {
	target, err := strconv.Atoi(strings.TrimPrefix(name, ingressPrefix))
	if err != nil {
		return nil
	}
	p, ok := b.inboundPort(c, cl, target)
	if !ok {
		return nil
	}
	bind := p.Bind
	if bind == "" {
		bind = cl.Traits.wildcard()
	}
	l := &listenerv3.Listener{
		Name: name, Address: socketAddress(bind, target), TrafficDirection: corev3.TrafficDirection_INBOUND,
		FilterChains: b.inboundChains(c, cl, p, false),
	}
	l.ListenerFilters = b.inspectors(true, true)
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = b.detection(c, cl.Traits), true
	return l
}

// virtualInbound takes every connection that was captured on its way in.
func (b *Backend) virtualInbound(c *derive.Context, cl Client) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name: listenerInbound, Address: socketAddress(cl.Traits.wildcard(), mesh.PortInbound),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
	}
	if cl.Traits.Transparent {
		l.Transparent = wrapperspb.Bool(true)
	}
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name:             "virtualInbound-blackhole",
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(mesh.PortInbound)},
		Filters:          b.tcp(c, cl, mesh.ClusterBlackHole, []tcpTarget{{cluster: mesh.ClusterBlackHole}}),
	})
	l.FilterChains = append(l.FilterChains, b.passthroughChains(c, cl)...)
	for _, p := range b.inboundPorts(c, cl) {
		l.FilterChains = append(l.FilterChains, b.inboundChains(c, cl, p, true)...)
	}
	l.ListenerFilters = append([]*listenerv3.ListenerFilter{originalDst()}, b.inspectors(true, true)...)
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = b.detection(c, cl.Traits), true
	return l
}

// A chainKind is one way in which a connection may come in.
type chainKind struct {
	transport string
	alpn      []string
	mtls      bool
	http      bool
}

// What callers offer, by what they are.
var (
	offersHTTP = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	offersMesh = []string{"istio-peer-exchange", "istio"}
	offersAny  = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
)

// chainKinds is Istio's table of filter chains by mutual TLS mode and protocol.
// TLS that is not the mesh's passes through to the application under PERMISSIVE,
// unless the port is known to carry HTTP: then nobody takes it.
func chainKinds(mode intent.MTLSMode, p mesh.Protocol, plainHTTP []string) []chainKind {
	auto, http := p == mesh.Unset, knownHTTP(p)
	switch {
	case mode == intent.MTLSStrict && auto:
		return []chainKind{{"tls", offersHTTP, true, true}, {"tls", nil, true, false}}
	case mode == intent.MTLSStrict:
		return []chainKind{{"tls", nil, true, http}}
	case mode == intent.MTLSDisable && auto:
		return []chainKind{{"raw_buffer", plainHTTP, false, true}, {"", nil, false, false}}
	case mode == intent.MTLSDisable && http:
		return []chainKind{{"raw_buffer", nil, false, true}}
	case mode == intent.MTLSDisable:
		return []chainKind{{"", nil, false, false}}
	case auto:
		return []chainKind{
			{"tls", offersHTTP, true, true}, {"raw_buffer", plainHTTP, false, true},
			{"tls", offersMesh, true, false}, {"raw_buffer", nil, false, false}, {"tls", nil, false, false},
		}
	case http:
		return []chainKind{{"tls", offersAny, true, true}, {"raw_buffer", nil, false, true}}
	}
	return []chainKind{{"tls", offersAny, true, false}, {"tls", nil, false, false}, {"raw_buffer", nil, false, false}}
}

// inboundChains are the chains of one port. In a captured listener they match
// its number; a listener of its own needs no such condition.
func (b *Backend) inboundChains(c *derive.Context, cl Client, p inboundPort, captured bool) []*listenerv3.FilterChain {
	auth := b.peerOf.Get(c, b.workloadKey(c, cl))
	mode := auth.ForPort(p.Target)
	name := listenerName(cl.Traits.wildcard(), p.Target)
	origins := append([]source.Origin{p.Origin}, auth.Origins...) // what mutual TLS is asked for decides about chains
	var out []*listenerv3.FilterChain
	for _, kind := range chainKinds(mode, p.Protocol, httpProtocols(cl.Traits)) {
		m := &listenerv3.FilterChainMatch{TransportProtocol: kind.transport, ApplicationProtocols: kind.alpn}
		if captured {
			m.DestinationPort = wrapperspb.UInt32(uint32(p.Target))
		}
		ch := &listenerv3.FilterChain{Name: name, FilterChainMatch: m, Metadata: provenanceMetadata(origins...)}
		if kind.mtls {
			b.addMTLS(c, ch)
		}
		if kind.http {
			ch.Filters = []*listenerv3.Filter{b.manager(c, cl, hcm{
				side: inbound, statPrefix: "inbound_" + name, inline: b.inboundRoutes(c, p), rbac: b.httpRBAC(c, cl),
				http2: p.Protocol == mesh.HTTP2 || p.Protocol == mesh.GRPC,
			})}
		} else {
			cluster := inboundCluster(p.Target)
			ch.Filters = b.tcp(c, cl, cluster, []tcpTarget{{cluster: cluster}}, b.networkRBAC(c, cl)...)
		}
		out = append(out, ch)
	}
	return out
}

func (b *Backend) addMTLS(c *derive.Context, ch *listenerv3.FilterChain) {
	ch.TransportSocket = meshServer(b.settings(c))
	ch.TransportSocketConnectTimeout = &durationpb.Duration{Seconds: 15}
}

// inboundRoutes is the table of one port: everything goes to the application.
func (b *Backend) inboundRoutes(c *derive.Context, p inboundPort) *routev3.RouteConfiguration {
	cluster := inboundCluster(p.Target)
	host := ""
	if p.Service != nil {
		host = string(p.Service.Host)
	}
	return inlineRoutes(cluster, "inbound|http|"+strconv.Itoa(p.Port), host+":"+strconv.Itoa(p.Port)+"/*", func() *routev3.RetryPolicy {
		if p.Protocol == mesh.GRPC || p.Protocol == mesh.GRPCWeb {
			return nil
		}
		return retryPolicy(&b.settings(c).InboundRetries, true)
	}())
}

func inlineRoutes(cluster, vhost, operation string, retry *routev3.RetryPolicy) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: cluster, ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{Name: vhost, Domains: []string{"*"}, Routes: []*routev3.Route{{
			Name:      "default",
			Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Decorator: &routev3.Decorator{Operation: operation},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          durationpb.New(0), RetryPolicy: retry,
				MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(0), GrpcTimeoutHeaderMax: durationpb.New(0)},
			}},
		}}}},
	}
}

// passthroughChains take connections to ports that no service names. They obey
// the same policies: what is not described is not unguarded.
func (b *Backend) passthroughChains(c *derive.Context, cl Client) []*listenerv3.FilterChain {
	auth := b.peerOf.Get(c, b.workloadKey(c, cl))
	out := b.passthroughSet(c, cl, auth, auth.Mode, 0)
	ports := b.inboundPorts(c, cl)
	for _, pm := range auth.Ports {
		known := slices.ContainsFunc(ports, func(p inboundPort) bool { return p.Target == pm.Port })
		if !known && pm.Mode != auth.Mode {
			out = append(out, b.passthroughSet(c, cl, auth, pm.Mode, pm.Port)...)
		}
	}
	return out
}

func (b *Backend) passthroughSet(c *derive.Context, cl Client, auth *intent.PeerAuth, mode intent.MTLSMode, port int) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	for _, kind := range chainKinds(mode, mesh.Unset, httpProtocols(cl.Traits)) {
		m := &listenerv3.FilterChainMatch{TransportProtocol: kind.transport, ApplicationProtocols: kind.alpn}
		if port != 0 {
			m.DestinationPort = wrapperspb.UInt32(uint32(port))
		}
		ch := &listenerv3.FilterChain{Name: listenerInbound, FilterChainMatch: m, Metadata: provenanceMetadata(auth.Origins...)}
		if kind.mtls {
			b.addMTLS(c, ch)
		}
		if kind.http {
			ch.Name = "virtualInbound-catchall-http"
			ch.Filters = []*listenerv3.Filter{b.manager(c, cl, hcm{
				side: inbound, statPrefix: mesh.ClusterInboundPassthrough, rbac: b.httpRBAC(c, cl),
				inline: inlineRoutes(mesh.ClusterInboundPassthrough, "inbound|http|0", ":0/*", nil),
			})}
		} else {
			ch.Filters = b.tcp(c, cl, mesh.ClusterInboundPassthrough, []tcpTarget{{cluster: mesh.ClusterInboundPassthrough}}, b.networkRBAC(c, cl)...)
		}
		out = append(out, ch)
	}
	return out
}
