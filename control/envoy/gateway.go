// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// gatewayListenerNames lists the ports that a gateway opens.
func (b *Backend) gatewayListenerNames(c *derive.Context, cl Client) []string {
	var names []string
	for _, l := range b.wishes.Listeners.Get(c, cl.Subject) {
		names = append(names, listenerName(bindOf(l, cl.Traits), l.Port))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func bindOf(l intent.Listener, t Traits) string {
	if l.Bind != "" {
		return l.Bind
	}
	return t.wildcard()
}

// gatewayListener opens one port: a chain for plaintext HTTP, or one for each
// server that needs the client's SNI to be told apart.
func (b *Backend) gatewayListener(c *derive.Context, cl Client, name string) *listenerv3.Listener {
	for _, l := range b.wishes.Listeners.Get(c, cl.Subject) {
		bind := bindOf(l, cl.Traits)
		if listenerName(bind, l.Port) != name {
			continue
		}
		out := &listenerv3.Listener{
			Name: name, Address: socketAddress(bind, l.Port), TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		}
		secure := false
		for i, srv := range l.Servers {
			switch {
			case srv.TLS == nil || srv.TLS.Redirect:
				if knownHTTP(srv.Protocol) {
					continue // all plaintext HTTP servers share a chain, below
				}
				out.FilterChains = append(out.FilterChains, b.gatewayL4(c, cl, srv, "")...)
			case srv.TLS.Mode == intent.ServerPassthrough || srv.TLS.Mode == intent.ServerAutoPassthrough:
				secure = true
				out.FilterChains = append(out.FilterChains, b.gatewayL4(c, cl, srv, "tls")...)
			default:
				secure = true
				out.FilterChains = append(out.FilterChains, b.gatewayTLS(c, cl, l, i, srv)...)
			}
		}
		if slices.ContainsFunc(l.Servers, plainHTTP) {
			m := b.manager(c, cl, hcm{side: gateway, statPrefix: "outbound_" + name, rds: plainTable(l), rbac: b.httpRBAC(c, cl)})
			out.FilterChains = append(out.FilterChains, &listenerv3.FilterChain{
				Filters: []*listenerv3.Filter{m}, Metadata: serverOrigins(l.Servers, plainHTTP),
			})
		}
		if secure {
			out.ListenerFilters = b.inspectors(true, false)
		}
		if len(out.FilterChains) == 0 {
			return nil
		}
		return out
	}
	return nil
}

func plainHTTP(s *intent.Server) bool {
	return knownHTTP(s.Protocol) && (s.TLS == nil || s.TLS.Redirect)
}

func serverOrigins(servers []*intent.Server, which func(*intent.Server) bool) *corev3.Metadata {
	var all []source.Origin
	for _, s := range servers {
		if which(s) {
			all = append(all, s.Origin)
		}
	}
	return provenanceMetadata(all...)
}

// plainTable is the name of the route table that plaintext servers share.
func plainTable(l intent.Listener) string {
	name := "http." + strconv.Itoa(l.Port)
	if l.Bind != "" {
		name += "." + l.Bind
	}
	return name
}

// secureTable is the name of one TLS server's table: https.port.portName.gateway.namespace.
func secureTable(l intent.Listener, s *intent.Server) string {
	ns, gw, _ := strings.Cut(string(s.Gateway), "/")
	name := "https." + strconv.Itoa(l.Port) + "." + s.PortName + "." + gw + "." + ns
	if l.Bind != "" {
		name += "." + l.Bind
	}
	return name
}

// gatewayTLS is the chain of a server that terminates TLS. A server whose
// certificate cannot be had gets none, and its port answers nobody in its name.
func (b *Backend) gatewayTLS(c *derive.Context, cl Client, l intent.Listener, i int, srv *intent.Server) []*listenerv3.FilterChain {
	http := knownHTTP(srv.Protocol) || srv.Protocol == mesh.HTTPS
	socket, why := gatewayServer(b.settings(c), srv, http)
	if why != "" {
		return nil
	}
	ch := &listenerv3.FilterChain{
		FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: serverNames(srv)},
		TransportSocket:  socket, TransportSocketConnectTimeout: durationpb.New(15e9),
		Metadata: provenanceMetadata(srv.Origin),
	}
	if http {
		ch.Filters = []*listenerv3.Filter{b.manager(c, cl, hcm{
			side: gateway, statPrefix: "outbound_" + listenerName(bindOf(l, cl.Traits), l.Port),
			rds: secureTable(l, srv), rbac: b.httpRBAC(c, cl),
		})}
		return []*listenerv3.FilterChain{ch}
	}
	r := router{b: b, c: c, view: cl.View, port: l.Port, gateways: []intent.GatewayName{srv.Gateway}}
	for _, w := range b.serverRoutes(c, srv).TCP {
		if len(w.Matches) == 0 || slices.ContainsFunc(w.Matches, func(m intent.L4Match) bool { return r.holdsL4(&m) }) {
			to := r.l4Targets(w.Forward)
			ch.Filters = b.tcp(c, cl, to[0].cluster, to, b.networkRBAC(c, cl)...)
			return []*listenerv3.FilterChain{ch}
		}
	}
	return nil
}

// serverNames are the hosts that a server answers TLS for; "*" is no condition.
func serverNames(srv *intent.Server) []string {
	var names []string
	for _, h := range srv.Hosts {
		if h.Host == "*" {
			return nil
		}
		names = append(names, string(h.Host))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// serverRoutes are the TLS and TCP routes bound to a server.
func (b *Backend) serverRoutes(c *derive.Context, srv *intent.Server) *intent.L4Routes {
	ns, name, _ := strings.Cut(string(srv.Gateway), "/")
	key := source.Key{Kind: source.KindGateway, Namespace: mesh.Namespace(ns), Name: name}
	routes := b.wishes.L4Routes.Get(c, intent.ServerKey{Gateway: key, Server: serverIndex(srv)})
	if routes == nil {
		return &intent.L4Routes{}
	}
	return routes
}

// serverIndex is the server's place in its Gateway, which its origin names.
func serverIndex(srv *intent.Server) int {
	_, rest, ok := strings.Cut(srv.Origin.Field, "servers[")
	if !ok {
		return 0
	}
	text, _, _ := strings.Cut(rest, "]")
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// gatewayL4 is the chains of a server that passes bytes on: by SNI where the
// client speaks TLS, else all of them.
func (b *Backend) gatewayL4(c *derive.Context, cl Client, srv *intent.Server, transport string) []*listenerv3.FilterChain {
	r := router{b: b, c: c, view: cl.View, port: srv.Port, gateways: []intent.GatewayName{srv.Gateway}}
	routes := b.serverRoutes(c, srv)
	var out []*listenerv3.FilterChain
	if transport == "tls" {
		for i := range routes.TLS {
			w := &routes.TLS[i]
			for j := range w.Matches {
				m := &w.Matches[j]
				if !r.holdsL4(m) {
					continue
				}
				to := r.l4Targets(w.Forward)
				ch := b.sniChain(c, cl, m.SNI, m.Subnets, to)
				ch.Filters = b.tcp(c, cl, to[0].cluster, to, b.networkRBAC(c, cl)...)
				ch.Metadata = provenanceMetadata(m.Origin, srv.Origin)
				out = append(out, ch)
			}
		}
		return out
	}
	for i := range routes.TCP {
		w := &routes.TCP[i]
		if len(w.Matches) > 0 && !slices.ContainsFunc(w.Matches, func(m intent.L4Match) bool { return r.holdsL4(&m) }) {
			continue
		}
		to := r.l4Targets(w.Forward)
		return []*listenerv3.FilterChain{{
			Filters: b.tcp(c, cl, to[0].cluster, to, b.networkRBAC(c, cl)...), Metadata: provenanceMetadata(w.Origin, srv.Origin),
		}}
	}
	return nil
}

// gatewayRoutes is a gateway's route table by name.
func (b *Backend) gatewayRoutes(c *derive.Context, cl Client, name string) *routev3.RouteConfiguration {
	for _, l := range b.wishes.Listeners.Get(c, cl.Subject) {
		if name == plainTable(l) {
			return b.gatewayTable(c, cl, l, -1, name)
		}
		for i, srv := range l.Servers {
			if srv.TLS != nil && !srv.TLS.Redirect && secureTable(l, srv) == name {
				return b.gatewayTable(c, cl, l, i, name)
			}
		}
	}
	return nil
}

func (b *Backend) gatewayTable(c *derive.Context, cl Client, l intent.Listener, server int, name string) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{
		Name: name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true,
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
	}
	r := router{b: b, c: c, view: cl.View, port: l.Port, gateways: gatewaysOf(l, server)}
	for _, vh := range b.wishes.VirtualHosts.Get(c, intent.Table{Subject: cl.Subject, Port: l.Port, Bind: l.Bind, Server: server}) {
		out := &routev3.VirtualHost{
			Name: string(vh.Host) + ":" + strconv.Itoa(l.Port), Domains: []string{string(vh.Host)},
			IncludeRequestAttemptCount: true,
		}
		if vh.Redirect {
			out.RequireTls = routev3.VirtualHost_ALL
		}
		r.host = vh.Host
		out.Routes = r.compile(vh.Routes)
		m.VirtualHosts = append(m.VirtualHosts, out)
	}
	m.VirtualHosts = unique(m.VirtualHosts)
	if len(m.VirtualHosts) == 0 {
		m.VirtualHosts = []*routev3.VirtualHost{{Name: "blackhole:" + strconv.Itoa(l.Port), Domains: []string{"*"}}}
	}
	return m
}

// gatewaysOf are the Gateways whose servers share a table.
func gatewaysOf(l intent.Listener, server int) []intent.GatewayName {
	if server >= 0 {
		return []intent.GatewayName{l.Servers[server].Gateway}
	}
	var out []intent.GatewayName
	for _, s := range l.Servers {
		if plainHTTP(s) && !slices.Contains(out, s.Gateway) {
			out = append(out, s.Gateway)
		}
	}
	return out
}
