// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strconv"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/envoy/rbac"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/envoy/transport"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// A door is a port that a gateway opens.
type door struct {
	intent.Listener
	addr string // where, or unix:///path
	open int    // the port's number there: the target of the gateway's own service, if that has one
}

// doors are those of a gateway, of which no two open the same address.
func (b *Backend) doors(c *derive.Context, cl sight.Client) []door {
	served := b.Facts.Served.Get(c, b.workloadKey(c, cl))
	var out []door
	for _, l := range b.Wishes.Listeners.Get(c, cl.Subject) {
		d := door{Listener: l, addr: l.Bind, open: l.Port}
		if d.addr == "" {
			d.addr = cl.Traits.Wildcard()
		}
		for _, sp := range served {
			if sp.Port.Number == l.Port {
				d.open = sp.Target
				break
			}
		}
		if !slices.ContainsFunc(out, func(o door) bool { return o.name() == d.name() }) {
			out = append(out, d)
		}
	}
	return out
}

func (d *door) name() string {
	if isSocket(d.addr) {
		return socketPath(d.addr)
	}
	return listenerName(d.addr, d.open)
}

// plainTable is the name of the route table that plaintext servers share.
func (d *door) plainTable() string { return d.bound("http." + strconv.Itoa(d.open)) }

// secureTable is the name of one TLS server's table: https.port.portName.gateway.namespace.
func (d *door) secureTable(s *intent.Server) string {
	ns, gw, _ := strings.Cut(string(s.Gateway), "/")
	return d.bound("https." + strconv.Itoa(d.Port) + "." + s.PortName + "." + gw + "." + ns)
}

func (d *door) bound(name string) string {
	if d.Bind != "" {
		name += "." + socketPath(d.Bind)
	}
	return name
}

// edgeListenerNames lists the ports that a gateway opens.
func (b *Backend) edgeListenerNames(c *derive.Context, cl sight.Client) []string {
	var names []string
	for _, d := range b.doors(c, cl) {
		names = append(names, d.name())
	}
	slices.Sort(names)
	return names
}

// A keeper builds the chains of one door.
type keeper struct {
	b       *Backend
	c       *derive.Context
	client  sight.Client
	listen  listenKey // what of the client matters to chains that pass bytes on
	http    []*hcmv3.HttpFilter
	network []*listenerv3.Filter
}

func (b *Backend) edgeListener(c *derive.Context, cl sight.Client, name string) *xds.Resource {
	doors := b.doors(c, cl)
	i := slices.IndexFunc(doors, func(d door) bool { return d.name() == name })
	if i < 0 {
		return nil
	}
	d := &doors[i]
	policies := b.Wishes.Authorization.Get(c, cl.Subject).Policies
	trust := trustOf(b.Settings(c))
	k := keeper{
		b: b, c: c, client: cl, http: rbac.HTTP(policies, trust), network: rbac.Network(policies, trust),
		listen: listenKey{Sight: b.Of(c, cl.View), Client: cl.Subject, Traits: cl.Traits, Log: b.logOf(c, cl.Subject), Name: name},
	}
	l := b.newListener(k.listen, d.addr, d.open)
	set := filter.NewChains()
	var plain []source.Origin
	for _, srv := range d.Servers {
		switch {
		case plainHTTP(srv):
			plain = append(plain, srv.Origin)
		case srv.TLS == nil:
			k.bytes(set, srv)
		case srv.TLS.Mode == intent.ServerPassthrough:
			k.names(set, srv)
		case srv.TLS.Mode == intent.ServerAutoPassthrough: // nothing is opened; the front end says so
		default:
			k.terminate(set, d, srv)
		}
	}
	l.FilterChains = set.List
	if set.Rest != nil {
		l.FilterChains = append(l.FilterChains, set.Rest)
	}
	if len(plain) > 0 { // all plaintext HTTP servers share a chain
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			Filters: []*listenerv3.Filter{k.manager(d, d.plainTable())}, Metadata: emit.From(plain...),
		})
	}
	if len(l.FilterChains) == 0 {
		return nil
	}
	if set.TLS || slices.ContainsFunc(l.FilterChains, func(ch *listenerv3.FilterChain) bool { return ch.TransportSocket != nil }) {
		l.ListenerFilters = []*listenerv3.ListenerFilter{filter.TLSInspector(nil)}
	}
	l.Metadata = emit.From(originsOf(d.Servers)...)
	return b.resource(name, l)
}

func originsOf(servers []*intent.Server) []source.Origin {
	var all []source.Origin
	for _, s := range servers {
		all = append(all, s.Origin)
	}
	return all
}

func plainHTTP(s *intent.Server) bool {
	return s.Protocol.IsHTTP() && (s.TLS == nil || s.TLS.Redirect)
}

func (k *keeper) manager(d *door, table string) *listenerv3.Filter {
	return filter.Manager(k.client.Traits.Features, filter.HTTP{
		Side: filter.AtGateway, StatPrefix: "outbound_" + d.name(), RDS: table, RBAC: k.http, HTTP10: k.client.Traits.HTTP10,
		AccessLog: filter.Log(k.listen.Log.log()),
	})
}

// serverNames are the hosts that a server answers TLS for.
func serverNames(srv *intent.Server) []mesh.Hostname {
	var names []mesh.Hostname
	for _, h := range srv.Hosts {
		names = append(names, h.Host)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// terminate adds the chain of a server that terminates TLS.
func (k *keeper) terminate(set *filter.Chains, d *door, srv *intent.Server) {
	http := srv.Protocol.IsHTTP() || srv.Protocol == mesh.HTTPS
	settings := k.b.Settings(k.c)
	exchange := k.client.Traits.PeerExchange && !http && srv.TLS.Mode == intent.ServerMesh
	filters := func() []*listenerv3.Filter { return []*listenerv3.Filter{k.manager(d, d.secureTable(srv))} }
	if !http {
		w := k.tcpRoute(srv)
		if w == nil {
			return
		}
		var before []*listenerv3.Filter
		if exchange {
			before = append(before, filter.Exchange())
		}
		before = append(before, k.network...)
		filters = func() []*listenerv3.Filter { return k.listen.bytes(k.target(srv), w.Forward, before...) }
	}
	had := len(set.List)
	rest := set.Rest
	set.Add(filter.Want{Names: serverNames(srv)}, emit.From(srv.Origin), filters)
	var ch *listenerv3.FilterChain
	switch {
	case len(set.List) > had:
		ch = set.List[had]
	case set.Rest != rest:
		ch = set.Rest
	default:
		return
	}
	ch.TransportSocketConnectTimeout = handshakeTime
	if srv.TLS.Mode == intent.ServerMesh {
		ch.TransportSocket = transport.Server(trusted(settings), http, exchange)
		return
	}
	ch.TransportSocket = transport.ForGateway(srv.TLS, http)
}

// routes are the TLS and TCP routes bound to a server.
func (k *keeper) routes(srv *intent.Server) *intent.L4Routes {
	return k.b.Wishes.L4Routes.Get(k.c, intent.ServerKey{Namespace: k.client.Namespace(), Gateway: srv.Origin.Object, Server: srv.Index})
}

func (k *keeper) target(srv *intent.Server) sight.Target {
	return sight.Target{World: k.b.World, Context: k.c, Sight: k.listen.Sight, Client: k.client.Subject, Port: srv.Port}
}

func (k *keeper) compiler(srv *intent.Server) *route.Compiler {
	return &route.Compiler{
		Port: srv.Port, Gateways: []intent.GatewayName{srv.Gateway},
		Namespace: k.client.Namespace(), Labels: k.client.Subject.Labels(),
	}
}

// tcpRoute is the first that takes any connection.
func (k *keeper) tcpRoute(srv *intent.Server) (found *intent.L4Route) {
	l4Routes(k.routes(srv).TCP, k.compiler(srv), func(w *intent.L4Route, _ *intent.L4Match) {
		if found == nil {
			found = w
		}
	})
	return found
}

// bytes adds the chain of a plain TCP server. Without a route there is none, and the port is not opened.
func (k *keeper) bytes(set *filter.Chains, srv *intent.Server) {
	if w := k.tcpRoute(srv); w != nil {
		set.Add(filter.Want{}, emit.From(w.Origin, srv.Origin), func() []*listenerv3.Filter {
			return k.listen.bytes(k.target(srv), w.Forward, k.network...)
		})
	}
}

// names adds the chains of a server that passes TLS on by the name that the client asks for.
func (k *keeper) names(set *filter.Chains, srv *intent.Server) {
	l4Routes(k.routes(srv).TLS, k.compiler(srv), func(w *intent.L4Route, m *intent.L4Match) {
		if m != nil {
			set.Add(filter.Want{Transport: "tls", Names: m.SNI, At: m.Subnets}, emit.From(m.Origin, srv.Origin), func() []*listenerv3.Filter {
				return k.listen.bytes(k.target(srv), w.Forward, k.network...)
			})
		}
	})
	if w := k.tcpRoute(srv); w != nil { // whatever no name decides
		set.Add(filter.Want{Transport: "tls", Names: serverNames(srv)}, emit.From(w.Origin, srv.Origin), func() []*listenerv3.Filter {
			return k.listen.bytes(k.target(srv), w.Forward, k.network...)
		})
	}
}
