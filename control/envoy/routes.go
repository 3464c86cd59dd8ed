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
		if b.hosts.Get(c, tableKey{Sight: s, Name: n.Name}).personal {
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
	list := b.hosts.Get(c, tableKey{Sight: k.Sight, Name: k.Name})
	if list.keys == nil && !list.catchAll {
		return nil
	}
	hosts := make([]*route.Host, 0, len(list.keys)+1)
	for _, hk := range list.keys {
		if hk.Client == (intent.Subject{}) {
			hk.Client = k.Client
		}
		if h := b.outHost.Get(c, hk); h != nil {
			hosts = append(hosts, h)
		}
	}
	var last *route.Host
	if list.catchAll {
		to, allow := b.OutboundPolicy(c, k.Sight)
		if !allow || to == mesh.ClusterPassthrough && !k.Captured {
			to = "" // nobody knows where such a request was meant to go
		}
		last = route.NewHost(route.Unknown(to))
	}
	return packed(k.Name, route.Table(k.Name, k.Name == routeHTTPProxy, hosts, last))
}

// A hostList is what stands in a table.
type hostList struct {
	keys     []hostKey // without Client where clients of one sight differ
	personal bool      // there is one such
	catchAll bool      // requests for other hosts are dealt with, too
}

func sameHosts(x, y *hostList) bool {
	return x.personal == y.personal && x.catchAll == y.catchAll && slices.Equal(x.keys, y.keys)
}

// listHosts is apart from the table, so that a change to one host's routes has its table read what all hosts are
// compiled to, but not ask again which they are.
func (b *Backend) listHosts(c *derive.Context, k tableKey) *hostList {
	var l hostList
	l.keys, l.catchAll = b.tableHosts(c, k.Sight, k.Name)
	nobody := sight.Nobody(k.Sight.Namespace())
	for i := range l.keys {
		hk := &l.keys[i]
		if b.hostPersonal.Get(c, *hk) {
			l.personal = true
		} else {
			hk.Client = nobody
		}
	}
	return &l
}

// tableHosts are the hosts of a table, with Client left empty, and whether requests for others are dealt with, too.
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
