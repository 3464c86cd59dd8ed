// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// Names of listeners.
const (
	listenerOutbound = "virtualOutbound"
	listenerInbound  = "virtualInbound"
)

// A listenKey asks for an outbound listener by name.
type listenKey struct {
	View
	Name string
}

// listenerNames lists the listeners of a client.
func (b *Backend) listenerNames(c *derive.Context, cl Client) []string {
	if cl.Traits.Router {
		return b.gatewayListenerNames(c, cl)
	}
	names := slices.Clone(b.outNames.Get(c, cl.View))
	names = append(names, b.inboundNames(c, cl)...)
	slices.Sort(names)
	return names
}

func (b *Backend) listener(c *derive.Context, n Named) *xds.Resource {
	var m *listenerv3.Listener
	switch {
	case n.Client.Traits.Router:
		m = b.gatewayListener(c, n.Client, n.Name)
	case n.Name == listenerInbound:
		m = b.virtualInbound(c, n.Client)
	case strings.HasPrefix(n.Name, ingressPrefix):
		m = b.ingressListener(c, n.Client, n.Name)
	default:
		m = b.outListen.Get(c, listenKey{n.Client.View, n.Name})
	}
	if m == nil {
		return nil
	}
	return resource(n.Name, m)
}

// outboundNames lists the listeners for what a view calls: the virtual one that
// takes captured connections, one for each port that carries HTTP, one for each
// address and port that carries anything else, and a forward proxy.
func (b *Backend) outboundNames(c *derive.Context, v View) []string {
	var names []string
	if p := v.Traits.HTTPProxyPort; p != 0 {
		names = append(names, listenerName(v.Traits.loopback(), int(p)))
	}
	if v.Traits.NoCapture {
		return names
	}
	names = append(names, listenerOutbound)
	if v.Traits.OnDemand {
		return names
	}
	for _, key := range b.allVisible(c, v) {
		s := b.facts.Service.Get(c, key)
		if s == nil || s.Resolution == registry.Alias {
			continue
		}
		for _, p := range s.Ports {
			names = append(names, b.namesFor(c, v, s, p)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// namesFor lists the listeners through which one service port is reached.
func (b *Backend) namesFor(c *derive.Context, v View, s *registry.Service, p registry.Port) []string {
	switch {
	case p.Protocol == mesh.UDP:
		return nil
	case knownHTTP(p.Protocol):
		return []string{listenerName(v.Traits.wildcard(), p.Number)}
	}
	var names []string
	for _, a := range b.addressesOf(c, s, p) {
		if a.Is6() == v.Traits.IPv6 {
			names = append(names, listenerName(a.String(), p.Number))
		}
	}
	if len(names) == 0 {
		names = append(names, listenerName(v.Traits.wildcard(), p.Number))
	}
	return names
}

// addressesOf are where clients dial a service port: its addresses, or for a
// headless service those of its workloads.
func (b *Backend) addressesOf(c *derive.Context, s *registry.Service, p registry.Port) []netip.Addr {
	if !s.Headless {
		return s.VIPs()
	}
	var out []netip.Addr
	for _, e := range b.facts.Endpoints.Get(c, registry.PortKey{Service: s.ServiceKey, Port: p.Number}).List {
		if e.Addr.IsValid() {
			out = append(out, e.Addr.Addr())
		}
	}
	return out
}

func listenerName(addr string, port int) string { return addr + "_" + strconv.Itoa(port) }

// splitListenerName is the reverse of listenerName.
func splitListenerName(name string) (addr string, port int, ok bool) {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return "", 0, false
	}
	port, err := strconv.Atoi(name[i+1:])
	return name[:i], port, err == nil && port > 0 && port < 1<<16
}

func (b *Backend) outboundListener(c *derive.Context, k listenKey) *listenerv3.Listener {
	if k.Name == listenerOutbound {
		return b.virtualOutbound(c, k.View)
	}
	addr, port, ok := splitListenerName(k.Name)
	if !ok {
		return nil
	}
	t := k.View.Traits
	if port == int(t.HTTPProxyPort) && addr == t.loopback() {
		return b.forwardProxy(c, k.View, addr, port)
	}
	var keys []registry.ServiceKey
	for _, key := range b.services.Get(c, portView{k.View, port}) {
		s := b.facts.Service.Get(c, key)
		p, _ := s.Port(port)
		if slices.Contains(b.namesFor(c, k.View, s, p), k.Name) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	l := &listenerv3.Listener{
		Name: k.Name, Address: socketAddress(addr, port), BindToPort: wrapperspb.Bool(false),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
	}
	b.outboundChains(c, l, k.View, addr, port, keys)
	return l
}

// outboundChains fills a listener: HTTP first where any service carries it, then
// chains by SNI, then one for all other bytes.
func (b *Backend) outboundChains(c *derive.Context, l *listenerv3.Listener, v View, addr string, port int, keys []registry.ServiceKey) {
	client := Client{View: v}
	var http, sniffed, wantsTLS bool
	var plain []tcpTarget
	alone := ""
	for _, key := range keys {
		s := b.facts.Service.Get(c, key)
		p, _ := s.Port(port)
		if carriesHTTP(p.Protocol) {
			http = true
			sniffed = sniffed || p.Protocol == mesh.Unset
		}
		if knownHTTP(p.Protocol) {
			continue
		}
		alone = string(key.Host)
		chains, rest := b.l4Chains(c, client, s, p)
		for _, ch := range chains {
			wantsTLS = true
			l.FilterChains = append(l.FilterChains, ch)
		}
		if plain == nil {
			plain = rest
		}
	}
	name := strconv.Itoa(port)
	if sniffed && addr != v.Traits.wildcard() {
		name = net.JoinHostPort(alone, strconv.Itoa(port))
	}
	if http {
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer", ApplicationProtocols: httpProtocols(v.Traits)},
			Filters:          []*listenerv3.Filter{b.manager(c, client, hcm{side: outbound, statPrefix: "outbound_" + listenerName(addr, port), rds: name})},
		})
	}
	if plain == nil {
		to, _ := b.outboundPolicy(c, v)
		plain = []tcpTarget{{cluster: to}}
	}
	l.DefaultFilterChain = &listenerv3.FilterChain{Name: "PassthroughFilterChain", Filters: b.tcp(c, client, plain[0].cluster, plain)}
	l.ListenerFilters = b.inspectors(wantsTLS, http)
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = b.detection(c, v.Traits), true
}

func httpProtocols(t Traits) []string {
	if t.HTTP10 {
		return []string{"http/1.0", "http/1.1", "h2c"}
	}
	return []string{"http/1.1", "h2c"}
}

// ownDetection is how long our proxies wait for a client to speak before they
// let the server begin; Envoys are sent what the mesh says, by default no limit.
const ownDetection = 100

// detection is how long a connection's first bytes are waited for.
func (b *Backend) detection(c *derive.Context, t Traits) *durationpb.Duration {
	s := b.settings(c)
	if s.DetectionTimeout == 0 && t.ALPN {
		return &durationpb.Duration{Nanos: ownDetection * 1e6}
	}
	return durationpb.New(s.DetectionTimeout)
}

func (b *Backend) inspectors(forTLS, forHTTP bool) []*listenerv3.ListenerFilter {
	var out []*listenerv3.ListenerFilter
	if forTLS || forHTTP {
		out = append(out, listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}))
	}
	if forHTTP {
		out = append(out, listenerFilter("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}))
	}
	return out
}

func listenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(m)}}
}

func originalDst() *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{})
}

// l4Chains are the chains that TLS and TCP routes ask for, and where the rest goes.
func (b *Backend) l4Chains(c *derive.Context, cl Client, s *registry.Service, p registry.Port) (chains []*listenerv3.FilterChain, rest []tcpTarget) {
	v := cl.View
	r := router{b: b, c: c, view: v, port: p.Number, host: s.Host}
	rest = []tcpTarget{{cluster: mesh.ClusterName{Direction: mesh.Outbound, Port: p.Number, Host: s.Host}.String()}}
	routes := b.wishes.Routes.Get(c, intent.HostIn{Scope: b.scope(c, v, p.Number), Host: s.Host})
	if routes == nil {
		if p.Protocol == mesh.TLS || p.Protocol == mesh.HTTPS {
			chains = append(chains, b.sniChain(c, cl, []mesh.Hostname{s.Host}, nil, rest))
		}
		return chains, rest
	}
	for i := range routes.TLS {
		w := &routes.TLS[i]
		for j := range w.Matches {
			if m := &w.Matches[j]; r.holdsL4(m) {
				chains = append(chains, b.sniChain(c, cl, m.SNI, m.Subnets, r.l4Targets(w.Forward)))
			}
		}
	}
	for i := range routes.TCP {
		w := &routes.TCP[i]
		if len(w.Matches) == 0 || slices.ContainsFunc(w.Matches, func(m intent.L4Match) bool { return r.holdsL4(&m) }) {
			return chains, r.l4Targets(w.Forward)
		}
	}
	return chains, rest
}

func (b *Backend) sniChain(c *derive.Context, cl Client, sni []mesh.Hostname, subnets []netip.Prefix, to []tcpTarget) *listenerv3.FilterChain {
	m := &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
	for _, h := range sni {
		if h != "*" {
			m.ServerNames = append(m.ServerNames, string(h))
		}
	}
	for _, p := range subnets {
		m.PrefixRanges = append(m.PrefixRanges, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))})
	}
	return &listenerv3.FilterChain{FilterChainMatch: m, Filters: b.tcp(c, cl, to[0].cluster, to)}
}

// holdsL4 says whether a match can be true for this view and port.
func (r *router) holdsL4(m *intent.L4Match) bool {
	if m.Port != 0 && m.Port != r.port {
		return false
	}
	if len(r.gateways) > 0 {
		return slices.ContainsFunc(m.Gateways, func(g intent.GatewayName) bool { return slices.Contains(r.gateways, g) })
	}
	if m.SourceNS != "" && m.SourceNS != r.view.namespace() {
		return false
	}
	return slices.Contains(m.Gateways, intent.GatewayMesh) && m.SourceLabels.Match(r.view.Subject.Labels())
}

func (r *router) l4Targets(forward []intent.Destination) []tcpTarget {
	var out []tcpTarget
	for i := range forward {
		d := &forward[i]
		if d.Weight > 0 || len(forward) == 1 {
			out = append(out, tcpTarget{cluster: r.cluster(d.Host, d.Port, d.Subset), weight: d.Weight})
		}
	}
	return out
}

// virtualOutbound takes every captured connection. Envoys hand it to the
// listener of its destination; our proxies ask what the destination is.
func (b *Backend) virtualOutbound(c *derive.Context, v View) *listenerv3.Listener {
	cl := Client{View: v}
	to, _ := b.outboundPolicy(c, v)
	l := &listenerv3.Listener{
		Name: listenerOutbound, Address: socketAddress(v.Traits.wildcard(), mesh.PortOutbound),
		UseOriginalDst:   wrapperspb.Bool(true),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
	}
	if v.Traits.Transparent {
		l.Transparent = wrapperspb.Bool(true)
	}
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name:             "virtualOutbound-blackhole",
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(mesh.PortOutbound)},
		Filters:          b.tcp(c, cl, mesh.ClusterBlackHole, []tcpTarget{{cluster: mesh.ClusterBlackHole}}),
	})
	rest := &listenerv3.FilterChain{Name: "virtualOutbound-catchall-tcp", Filters: b.tcp(c, cl, to, []tcpTarget{{cluster: to}})}
	if v.Traits.OnDemand {
		rest.Name = "virtualOutbound-on-demand"
		rest.Filters = append([]*listenerv3.Filter{
			networkFilter("meltemi.on_demand", typedStruct("meltemi.io.OnDemand", map[string]any{})),
			b.manager(c, cl, hcm{side: outbound, statPrefix: "outbound", rds: "on-demand"}),
		}, rest.Filters...)
		l.ListenerFilters = append([]*listenerv3.ListenerFilter{originalDst()}, b.inspectors(true, true)...)
		l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = b.detection(c, v.Traits), true
	}
	l.FilterChains = append(l.FilterChains, rest)
	return l
}

// forwardProxy is the listener that an application reaches by its HTTP_PROXY
// setting (Istio's http_proxy).
func (b *Backend) forwardProxy(c *derive.Context, v View, addr string, port int) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: listenerName(addr, port), Address: socketAddress(addr, port),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{b.manager(c, Client{View: v}, hcm{
				side: outbound, statPrefix: "outbound_" + listenerName(addr, port), rds: routeHTTPProxy, absolute: true,
			})},
		}},
	}
}
