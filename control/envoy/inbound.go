// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strconv"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/envoy/rbac"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/envoy/transport"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// handshakeTime is how long a TLS handshake may take (Istio's transport_socket_connect_timeout).
var handshakeTime = &durationpb.Duration{Seconds: 15}

// An entrance is what the chains of one workload's inbound listeners have in common.
type entrance struct {
	client   sight.Client
	settings *intent.Settings
	auth     *intent.PeerAuth
	http     []*hcmv3.HttpFilter  // who may pass
	network  []*listenerv3.Filter // the same for connections
	log      []*accesslogv3.AccessLog
}

func (b *Backend) entrance(c *derive.Context, cl sight.Client) *entrance {
	e := &entrance{client: cl, settings: b.Settings(c), auth: b.peerOf.Get(c, b.workloadKey(c, cl))}
	policies := b.Wishes.Authorization.Get(c, cl.Subject).Policies
	e.http, e.network = rbac.HTTP(policies, trustOf(e.settings)), rbac.Network(policies, trustOf(e.settings))
	e.log = filter.Log(b.logOf(c, cl.Subject).log())
	return e
}

// name of the listener that callers dial.
func (p *inboundPort) listener(t sight.Traits) string {
	bind := p.Bind
	if bind == "" {
		bind = t.Wildcard()
	}
	if isSocket(bind) {
		return socketPath(bind)
	}
	return listenerName(bind, p.Target)
}

func (b *Backend) inboundNames(c *derive.Context, cl sight.Client) []string {
	var names []string
	if !cl.Traits.NoCapture {
		names = append(names, listenerInbound)
	}
	for _, p := range b.inboundPorts(c, cl) {
		if p.Dialled {
			names = append(names, p.listener(cl.Traits))
		}
	}
	return names
}

// inboundListener is one of them, or nil.
func (b *Backend) inboundListener(c *derive.Context, cl sight.Client, name string) *xds.Resource {
	if name == listenerInbound && !cl.Traits.NoCapture {
		return b.resource(name, b.virtualInbound(c, cl))
	}
	ports := b.inboundPorts(c, cl)
	i := slices.IndexFunc(ports, func(p inboundPort) bool { return p.Dialled && p.listener(cl.Traits) == name })
	if i < 0 {
		return nil
	}
	return b.resource(name, b.dialledListener(c, cl, ports[i]))
}

// dialledListener is dialled by callers, because nothing is captured.
func (b *Backend) dialledListener(c *derive.Context, cl sight.Client, p inboundPort) *listenerv3.Listener {
	bind := p.Bind
	if bind == "" {
		bind = cl.Traits.Wildcard()
	}
	e := b.entrance(c, cl)
	l := &listenerv3.Listener{
		Name: p.listener(cl.Traits), Address: emit.Address(bind, p.Target), TrafficDirection: filter.Inbound,
		AccessLog: filter.ListenerLog(b.logOf(c, cl.Subject).log()), Metadata: emit.From(p.Origin),
	}
	kinds := filter.Entries(e.auth.ForPort(p.Target), p.Protocol, httpProtocols(cl.Traits))
	l.FilterChains = e.chains(p, kinds, false)
	forTLS, forHTTP := filter.Inspects(kinds)
	b.inspect(c, l, cl.Traits, forTLS, forHTTP)
	return l
}

// virtualInbound takes every connection that was captured on its way in.
func (b *Backend) virtualInbound(c *derive.Context, cl sight.Client) *listenerv3.Listener {
	e := b.entrance(c, cl)
	l := &listenerv3.Listener{
		Name: listenerInbound, Address: emit.Address(cl.Traits.Wildcard(), mesh.PortInbound), TrafficDirection: filter.Inbound,
		AccessLog: filter.ListenerLog(b.logOf(c, cl.Subject).log()), ListenerFilters: []*listenerv3.ListenerFilter{filter.OriginalDst()},
	}
	if cl.Traits.Transparent {
		l.Transparent = wrapperspb.Bool(true)
		l.ListenerFilters = append(l.ListenerFilters, filter.OriginalSrc())
	}
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name:             "virtualInbound-blackhole",
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(mesh.PortInbound)},
		Filters:          e.tcp(mesh.ClusterBlackHole, false),
	})
	tlsNeeds, httpNeeds := filter.Needs{Ports: map[int]bool{}}, filter.Needs{Ports: map[int]bool{}}
	add := func(port int, kinds []filter.Entry, chains []*listenerv3.FilterChain) {
		l.FilterChains = append(l.FilterChains, chains...)
		forTLS, forHTTP := filter.Inspects(kinds)
		if port == 0 {
			tlsNeeds.Others, httpNeeds.Others = forTLS, forHTTP
		} else {
			tlsNeeds.Ports[port], httpNeeds.Ports[port] = forTLS, forHTTP
		}
	}
	ports := slices.DeleteFunc(b.inboundPorts(c, cl), func(p inboundPort) bool { return p.Dialled })
	for _, set := range e.unnamed(ports) {
		add(set.port, set.kinds, e.passthrough(set))
	}
	for _, p := range ports {
		kinds := filter.Entries(e.auth.ForPort(p.Target), p.Protocol, httpProtocols(cl.Traits))
		add(p.Target, kinds, e.chains(p, kinds, true))
	}
	if rule, some := tlsNeeds.Disabled(); some {
		l.ListenerFilters = append(l.ListenerFilters, filter.TLSInspector(rule))
	}
	if rule, some := httpNeeds.Disabled(); some {
		l.ListenerFilters = append(l.ListenerFilters, filter.HTTPInspector(rule))
	}
	b.setDetection(c, l, cl.Traits)
	return l
}

// chains are the chains of one port. In a captured listener they match its number; a listener of its own needs no such
// condition.
func (e *entrance) chains(p inboundPort, kinds []filter.Entry, captured bool) []*listenerv3.FilterChain {
	name := listenerName(e.client.Traits.Wildcard(), p.Target)
	to := inboundCluster(p.Target)
	var retries *intent.Retries
	if p.Protocol != mesh.GRPC && p.Protocol != mesh.GRPCWeb {
		retries = &e.settings.InboundRetries
	}
	var out []*listenerv3.FilterChain
	for _, kind := range kinds {
		ch := e.chain(kind, name)
		ch.Metadata = emit.From(append(slices.Clone(e.auth.Origins), p.Origin)...)
		if captured {
			ch.FilterChainMatch.DestinationPort = wrapperspb.UInt32(uint32(p.Target))
		}
		if kind.HTTP {
			ch.Filters = e.requests(filter.HTTP{
				StatPrefix: "inbound_" + name, Inline: route.To(to, "inbound|http|"+strconv.Itoa(p.Port), p.operation(), retries),
				HTTP2: p.Protocol.IsHTTP2(), GRPCWeb: p.Protocol == mesh.GRPCWeb,
			})
		} else {
			ch.Filters = e.tcp(to, true)
		}
		out = append(out, ch)
	}
	return out
}

func (e *entrance) chain(kind filter.Entry, name string) *listenerv3.FilterChain {
	ch := &listenerv3.FilterChain{Name: name, FilterChainMatch: &listenerv3.FilterChainMatch{
		TransportProtocol: kind.Transport, ApplicationProtocols: kind.ALPN,
	}}
	if kind.MTLS {
		ch.TransportSocket = transport.Server(trusted(e.settings), kind.HTTP, e.client.Traits.PeerExchange && !kind.HTTP)
		ch.TransportSocketConnectTimeout = handshakeTime
	}
	return ch
}

// requests looks at requests.
func (e *entrance) requests(h filter.HTTP) []*listenerv3.Filter {
	h.Side, h.RBAC, h.AccessLog, h.HTTP10 = filter.ToWorkload, e.http, e.log, e.client.Traits.HTTP10
	var out []*listenerv3.Filter
	if e.client.Traits.PeerExchange {
		out = append(out, filter.Exchange())
	}
	return append(out, filter.Manager(e.client.Traits.Features, h))
}

// tcp passes bytes on; guarded says whether anybody is to be refused.
func (e *entrance) tcp(to string, guarded bool) []*listenerv3.Filter {
	f := filter.TCP{Targets: filter.To(to), Inbound: true, AccessLog: e.log}
	if !guarded {
		return f.Filters(e.client.Traits.Features)
	}
	return f.Filters(e.client.Traits.Features, e.network...)
}

// An unnamed is a set of chains for ports that no service names; port 0 is all of them.
type unnamed struct {
	port  int
	kinds []filter.Entry
}

// unnamed lists them. They obey the same policies: what is not described is not unguarded.
func (e *entrance) unnamed(ports []inboundPort) []unnamed {
	kinds := func(m intent.MTLSMode) []filter.Entry {
		return filter.Entries(m, mesh.Unset, httpProtocols(e.client.Traits))
	}
	out := []unnamed{{0, kinds(e.auth.Mode)}}
	for _, pm := range e.auth.Ports {
		named := slices.ContainsFunc(ports, func(p inboundPort) bool { return p.Target == pm.Port })
		if !named && pm.Mode != e.auth.Mode && pm.Port != mesh.PortInbound {
			out = append(out, unnamed{pm.Port, kinds(pm.Mode)})
		}
	}
	return out
}

func (e *entrance) passthrough(u unnamed) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	for _, kind := range u.kinds {
		ch := e.chain(kind, listenerInbound)
		ch.Metadata = emit.From(e.auth.Origins...)
		if u.port != 0 {
			ch.FilterChainMatch.DestinationPort = wrapperspb.UInt32(uint32(u.port))
		}
		if kind.HTTP {
			ch.Name = "virtualInbound-catchall-http"
			ch.Filters = e.requests(filter.HTTP{
				StatPrefix: mesh.ClusterInboundPassthrough,
				Inline:     route.To(mesh.ClusterInboundPassthrough, "inbound|http|0", ":0/*", nil),
			})
		} else {
			ch.Filters = e.tcp(mesh.ClusterInboundPassthrough, true)
		}
		out = append(out, ch)
	}
	return out
}
