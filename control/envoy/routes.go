// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net"
	"slices"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// routeHTTPProxy is the table of the forward proxy that applications may dial.
const routeHTTPProxy = "http_proxy"

// routesNamed is one route table by name. A name nobody knows is answered with an
// empty table, so that no listener waits for it.
func (b *Backend) routesNamed(c *derive.Context, n Named) *xds.Resource {
	var r *xds.Resource
	s := b.Of(c, n.Client.View)
	if n.Client.Traits.Router {
		r = b.edgeRoutes(c, n.Client, s, n.Name)
	} else {
		k := tableKey{Sight: s, Name: n.Name, Captured: !n.Client.Traits.NoCapture}
		k.Client = sight.Nobody(s.Namespace())
		if b.tablePersonal.Get(c, tableKey{Sight: s, Name: n.Name}) {
			k.Client = n.Client.Subject
		}
		r = b.outRoute.Get(c, k)
	}
	if r == nil {
		return b.resource(n.Name, &routev3.RouteConfiguration{Name: n.Name})
	}
	return r
}

// A tableKey asks for a sidecar's route table: "9080", "host:port", the path of a socket, or http_proxy.
type tableKey struct {
	Sight    sight.Sight
	Client   intent.Subject // with labels only where some route or rule tells clients apart by them
	Name     string
	Captured bool // connections have a destination of their own, where requests for unknown hosts can go
}

func (b *Backend) routesFor(c *derive.Context, k tableKey) *xds.Resource {
	keys, catchAll := b.tableHosts(c, k.Sight, k.Name)
	if keys == nil && !catchAll {
		return nil
	}
	hosts := make([]*route.Host, 0, len(keys)+1)
	for _, hk := range keys {
		hk.Client = sight.Nobody(k.Sight.Namespace())
		if b.hostPersonal.Get(c, hk) {
			hk.Client = k.Client
		}
		if h := b.outHost.Get(c, hk); h != nil {
			hosts = append(hosts, h)
		}
	}
	var last *route.Host
	if catchAll {
		to, allow := b.OutboundPolicy(c, k.Sight)
		if !allow || to == mesh.ClusterPassthrough && !k.Captured {
			to = "" // nobody knows where such a request was meant to go
		}
		last = route.NewHost(route.Unknown(to))
	}
	return packed(k.Name, route.Table(k.Name, k.Name == routeHTTPProxy, hosts, last))
}

// isPersonal reports whether a table differs between clients of one sight.
func (b *Backend) isPersonal(c *derive.Context, k tableKey) bool {
	keys, _ := b.tableHosts(c, k.Sight, k.Name)
	return slices.ContainsFunc(keys, func(hk hostKey) bool { return b.hostPersonal.Get(c, hk) })
}

// tableHosts lists the hosts of a table, with Client left empty; catchAll: requests for others are dealt with, too.
func (b *Backend) tableHosts(c *derive.Context, s sight.Sight, name string) (keys []hostKey, catchAll bool) {
	if name == routeHTTPProxy {
		return b.allHosts(c, s, intent.Scope{}), true
	}
	if port, err := strconv.Atoi(name); err == nil {
		return b.portHosts(c, s, port), true
	}
	if scope, ok := b.socketScope(c, s, name); ok {
		return b.allHosts(c, s, scope), true
	}
	h, portText, err := net.SplitHostPort(name)
	if err != nil {
		return nil, false
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, false
	}
	return []hostKey{{Sight: s, Host: mesh.NormalHost(h), Port: port, Sort: hostAlone}}, false
}

// portHosts are the hosts that HTTP on a port can be meant for.
func (b *Backend) portHosts(c *derive.Context, s sight.Sight, port int) []hostKey {
	var out []hostKey
	for _, key := range b.OnPort.Get(c, sight.OnPort{Sight: s, Port: port}) {
		svc := b.Facts.Service.Get(c, key)
		if p, ok := svc.Port(port); ok && cluster.CarriesHTTP(p.Protocol) {
			out = append(out, hostKey{Sight: s, Host: key.Host, Port: port})
		}
	}
	if port != 80 {
		return out
	}
	// Hosts that only routes know: on port 80, as in Istio.
	sc := b.Sidecar(c, s)
	i, ok := sight.EgressFor(sc, port)
	if !ok {
		return out
	}
	for _, h := range b.Wishes.RouteHosts.Get(c, sight.ScopeOf(s, sc, i)) {
		if b.Sees(c, s, h, port).IsZero() {
			out = append(out, hostKey{Sight: s, Host: h, Port: port})
		}
	}
	return out
}

// allHosts are the hosts that a forward proxy is asked for, on all ports. A scope narrows them to that of one listener.
func (b *Backend) allHosts(c *derive.Context, s sight.Sight, scope intent.Scope) []hostKey {
	services := b.Services.Get(c, s)
	if scope != (intent.Scope{}) {
		services = b.Wishes.Visible.Get(c, scope)
	}
	var out []hostKey
	for _, key := range services {
		svc := b.Facts.Service.Get(c, key)
		if svc == nil {
			continue
		}
		for _, p := range svc.Ports {
			if p.Protocol != mesh.UDP {
				out = append(out, hostKey{Sight: s, Host: key.Host, Port: p.Number, Sort: hostProxied})
			}
		}
	}
	return out
}

// socketScope is what lies behind the listener at a Unix socket.
func (b *Backend) socketScope(c *derive.Context, s sight.Sight, path string) (intent.Scope, bool) {
	sc := b.Sidecar(c, s)
	for i := range sc.Egress {
		if e := &sc.Egress[i]; isSocket(e.Bind) && socketPath(e.Bind) == path {
			return sight.ScopeOf(s, sc, i), true
		}
	}
	return intent.Scope{}, false
}
