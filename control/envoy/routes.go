// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// routeHTTPProxy is the table of the forward proxy that applications may dial.
const routeHTTPProxy = "http_proxy"

// A routeKey asks for a sidecar's route table: "9080", "host:port", or http_proxy.
type routeKey struct {
	View
	Name string
}

// A vhostKey asks for one host's routes in a table for a port. Proxy tables are
// for every port, so their domains keep it.
type vhostKey struct {
	View
	Host  mesh.Hostname
	Port  int
	Proxy bool
	Alone bool // the only host of a table: domain "*"
}

// routes is one route table by name. A name nobody knows is answered with an
// empty table, so that no listener waits for it.
func (b *Backend) routes(c *derive.Context, n Named) *xds.Resource {
	var m *routev3.RouteConfiguration
	if n.Client.Traits.Router {
		m = b.gatewayRoutes(c, n.Client, n.Name)
	} else {
		m = b.outRoute.Get(c, routeKey{n.Client.View, n.Name})
	}
	if m == nil {
		m = &routev3.RouteConfiguration{Name: n.Name}
	}
	return resource(n.Name, m)
}

func (b *Backend) routesFor(c *derive.Context, k routeKey) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{
		Name: k.Name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true,
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
	}
	if k.Name == routeHTTPProxy {
		m.IgnorePortInHostMatching = false
		m.VirtualHosts = unique(b.proxyHosts(c, k.View))
		m.VirtualHosts = append(m.VirtualHosts, b.catchAll(c, k.View))
		return m
	}
	if port, err := strconv.Atoi(k.Name); err == nil {
		m.VirtualHosts = unique(b.portHosts(c, k.View, port))
		m.VirtualHosts = append(m.VirtualHosts, b.catchAll(c, k.View))
		return m
	}
	host, portText, err := net.SplitHostPort(k.Name)
	if err != nil {
		return nil
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil
	}
	if vh := b.vhost.Get(c, vhostKey{View: k.View, Host: mesh.NormalHost(host), Port: port, Alone: true}); vh != nil {
		m.VirtualHosts = []*routev3.VirtualHost{vh}
	}
	return m
}

// portHosts are the hosts that HTTP on a port can be meant for.
func (b *Backend) portHosts(c *derive.Context, v View, port int) []*routev3.VirtualHost {
	var out []*routev3.VirtualHost
	done := make(map[mesh.Hostname]bool)
	for _, key := range b.services.Get(c, portView{v, port}) {
		s := b.facts.Service.Get(c, key)
		if p, ok := s.Port(port); !ok || !carriesHTTP(p.Protocol) {
			continue
		}
		done[key.Host] = true
		if vh := b.vhost.Get(c, vhostKey{View: v, Host: key.Host, Port: port}); vh != nil {
			out = append(out, vh)
		}
	}
	// Hosts that only routes know: on port 80, as in Istio.
	if port == 80 {
		for _, h := range b.wishes.RouteHosts.Get(c, b.scope(c, v, port)) {
			if !done[h] && b.visible(c, v, h, port).IsZero() {
				if vh := b.vhost.Get(c, vhostKey{View: v, Host: h, Port: port}); vh != nil {
					out = append(out, vh)
				}
			}
		}
	}
	return out
}

// proxyHosts are the hosts that a forward proxy is asked for, on all ports.
func (b *Backend) proxyHosts(c *derive.Context, v View) []*routev3.VirtualHost {
	var out []*routev3.VirtualHost
	for _, key := range b.allVisible(c, v) {
		s := b.facts.Service.Get(c, key)
		if s == nil {
			continue
		}
		for _, p := range s.Ports {
			if !carriesHTTP(p.Protocol) {
				continue
			}
			if vh := b.vhost.Get(c, vhostKey{View: v, Host: key.Host, Port: p.Number, Proxy: true}); vh != nil {
				out = append(out, vh)
			}
		}
	}
	return out
}

// carriesHTTP says whether a port may carry HTTP, known or found by sniffing.
func carriesHTTP(p mesh.Protocol) bool {
	switch p {
	case mesh.HTTP, mesh.HTTP2, mesh.GRPC, mesh.GRPCWeb, mesh.HTTPProxy, mesh.Unset:
		return true
	}
	return false
}

// knownHTTP says whether a port is declared to carry HTTP.
func knownHTTP(p mesh.Protocol) bool { return carriesHTTP(p) && p != mesh.Unset }

func (b *Backend) vhostFor(c *derive.Context, k vhostKey) *routev3.VirtualHost {
	scope := b.scope(c, k.View, k.Port)
	key := b.visible(c, k.View, k.Host, k.Port)
	service := b.facts.Service.Get(c, key)
	routes := b.wishes.Routes.Get(c, intent.HostIn{Scope: scope, Host: k.Host})
	if service == nil && routes == nil {
		return nil
	}
	vh := &routev3.VirtualHost{
		Name:                       string(k.Host) + ":" + strconv.Itoa(k.Port),
		Domains:                    domains(k, service, b.settings(c).Domain),
		IncludeRequestAttemptCount: true,
	}
	if routes != nil && len(routes.HTTP) > 0 {
		r := router{b: b, c: c, view: k.View, port: k.Port, host: k.Host}
		vh.Routes = r.compile(routes.HTTP)
		return vh
	}
	if service == nil {
		return nil
	}
	r := router{b: b, c: c, view: k.View, port: k.Port, host: k.Host}
	vh.Routes = []*routev3.Route{r.defaultRoute(service)}
	return vh
}

// domains are the names by which clients of the view may call the host.
func domains(k vhostKey, s *registry.Service, domain string) []string {
	if k.Alone {
		return []string{"*"}
	}
	host := string(k.Host)
	names := []string{host}
	if !k.Host.IsWildcard() && !k.Host.IsAddr() {
		names = append(names, host+".")
	}
	if s != nil && s.Kube {
		if svc, ns, ok := mesh.SplitServiceHost(k.Host, domain); ok {
			short := []string{svc + "." + string(ns), svc + "." + string(ns) + ".svc"}
			if ns == k.View.namespace() {
				short = append([]string{svc}, short...)
			}
			names = append(names, short...)
			if s.Headless {
				for _, n := range append([]string{host}, short...) {
					names = append(names, "*."+n)
				}
			}
		}
	}
	if s != nil {
		for _, a := range s.VIPs() {
			text := a.String()
			if a.Is6() {
				text = "[" + text + "]"
			}
			names = append(names, text)
		}
	}
	if !k.Proxy {
		return names
	}
	port := strconv.Itoa(k.Port)
	var out []string
	for _, n := range names {
		if k.Port == 80 {
			out = append(out, n)
		}
		if !strings.HasSuffix(n, ".") {
			out = append(out, n+":"+port)
		}
	}
	return out
}

// unique sorts hosts by name and drops domains that an earlier one has: an
// Envoy refuses a table in which two hosts share one.
func unique(hosts []*routev3.VirtualHost) []*routev3.VirtualHost {
	slices.SortFunc(hosts, func(a, b *routev3.VirtualHost) int { return strings.Compare(a.Name, b.Name) })
	seen := make(map[string]bool)
	out := hosts[:0]
	for _, vh := range hosts {
		var kept []string
		for _, d := range vh.Domains {
			if d = strings.ToLower(d); !seen[d] {
				seen[d] = true
				kept = append(kept, d)
			}
		}
		if len(kept) == 0 {
			continue
		}
		if len(kept) != len(vh.Domains) {
			vh = &routev3.VirtualHost{
				Name: vh.Name, Domains: kept, Routes: vh.Routes, RequireTls: vh.RequireTls,
				IncludeRequestAttemptCount: vh.IncludeRequestAttemptCount,
			}
		}
		out = append(out, vh)
	}
	return out
}

// catchAll is what becomes of requests to hosts that the mesh does not know.
func (b *Backend) catchAll(c *derive.Context, v View) *routev3.VirtualHost {
	any := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	to, allow := b.outboundPolicy(c, v)
	if !allow {
		return &routev3.VirtualHost{Name: "block_all", Domains: []string{"*"}, IncludeRequestAttemptCount: true, Routes: []*routev3.Route{{
			Name: "block_all", Match: any,
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}},
		}}}
	}
	return &routev3.VirtualHost{Name: "allow_any", Domains: []string{"*"}, IncludeRequestAttemptCount: true, Routes: []*routev3.Route{{
		Name: "allow_any", Match: any,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: to},
			Timeout:          durationpb.New(0), MaxGrpcTimeout: durationpb.New(0),
		}},
	}}}
}

// outboundPolicy says where traffic to unknown hosts goes, and whether it may.
func (b *Backend) outboundPolicy(c *derive.Context, v View) (cluster string, allow bool) {
	allow = b.settings(c).AllowAny
	if o := b.wishes.Sidecar.Get(c, v.Subject).Outbound; o != nil {
		allow = o.AllowAny
		if allow && o.Proxy != nil {
			r := router{b: b, c: c, view: v}
			return r.cluster(o.Proxy.Host, o.Proxy.Port, o.Proxy.Subset), true
		}
	}
	if !allow {
		return mesh.ClusterBlackHole, false
	}
	return mesh.ClusterPassthrough, true
}

// A router compiles the routes of one host as one view sees them on one port.
type router struct {
	b    *Backend
	c    *derive.Context
	view View
	port int
	host mesh.Hostname
	// gateways whose routes these are; empty for sidecars.
	gateways []intent.GatewayName
}

func (r *router) defaultRoute(s *registry.Service) *routev3.Route {
	cluster := mesh.ClusterName{Direction: mesh.Outbound, Port: r.port, Host: s.Host}.String()
	key := registry.ServiceKey{Namespace: s.Namespace, Host: s.Host}
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		Timeout:          durationpb.New(0), MaxGrpcTimeout: durationpb.New(0),
		HashPolicy: r.hashPolicy(key, r.port, ""),
	}
	settings := r.b.settings(r.c)
	action.RetryPolicy = retryPolicy(&settings.OutboundRetries, len(action.HashPolicy) > 0)
	return &routev3.Route{
		Name:      "default",
		Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action:    &routev3.Route_Route{Route: action},
		Decorator: &routev3.Decorator{Operation: string(s.Host) + ":" + strconv.Itoa(r.port) + "/*"},
		Metadata:  provenanceMetadata(source.Origin{Object: s.Object}),
	}
}

// cluster is the name of the cluster for a destination: port 0 means the
// service's only port, or else the one the request was sent to. A host that is
// not there still names a cluster, which nobody defines: 503 with NC says so.
func (r *router) cluster(host mesh.Hostname, port int, subset string) string {
	if port == 0 {
		port = r.port
		if s := r.b.facts.Service.Get(r.c, r.b.visible(r.c, r.view, host, r.port)); s != nil && len(s.Ports) == 1 {
			port = s.Ports[0].Number
		}
	}
	return mesh.ClusterName{Direction: mesh.Outbound, Port: port, Subset: subset, Host: host}.String()
}
