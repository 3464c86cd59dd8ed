// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// Names of listeners.
const (
	listenerOutbound = "virtualOutbound"
	listenerInbound  = "virtualInbound"
)

// A logKey is an access log's settings.
type logKey struct {
	File, Format string
	JSON         bool
}

func (b *Backend) logOf(c *derive.Context, s intent.Subject) logKey {
	l := b.Wishes.AccessLog.Get(c, s)
	if l.Disabled {
		return logKey{}
	}
	return logKey{File: l.File, Format: l.Format, JSON: l.JSON}
}

func (k logKey) log() *intent.AccessLog {
	return &intent.AccessLog{File: k.File, Format: k.Format, JSON: k.JSON}
}

// A listenKey is all that an outbound listener depends on. Without a name it asks which there are.
type listenKey struct {
	Sight  sight.Sight
	Client intent.Subject // with labels only where routes of connections ask for them
	Traits sight.Traits
	Log    logKey
	Name   string
}

// listenerNames lists the listeners of a client.
func (b *Backend) listenerNames(c *derive.Context, cl sight.Client) []string {
	if cl.Traits.Router {
		return b.edgeListenerNames(c, cl)
	}
	names := slices.Clone(b.outNames.Get(c, listenKey{Sight: b.Of(c, cl.View), Traits: cl.Traits}))
	names = append(names, b.inboundNames(c, cl)...)
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *Backend) listenerNamed(c *derive.Context, n Named) *xds.Resource {
	if n.Client.Traits.Router {
		return b.edgeListener(c, n.Client, n.Name)
	}
	if r := b.inboundListener(c, n.Client, n.Name); r != nil {
		return r
	}
	s := b.Of(c, n.Client.View)
	k := listenKey{Sight: s, Client: sight.Nobody(s.Namespace()), Traits: n.Client.Traits, Log: b.logOf(c, n.Client.Subject), Name: n.Name}
	if _, port, ok := splitListenerName(n.Name); ok && b.portPersonal.Get(c, sight.OnPort{Sight: s, Port: port}) {
		k.Client = n.Client.Subject
	}
	return b.outListen.Get(c, k)
}

// outboundNames lists the listeners for what workloads call: the virtual one that
// takes captured connections, one for each port that carries HTTP, one for each
// address and port that carries anything else, a forward proxy, and those that a Sidecar asks for.
func (b *Backend) outboundNames(c *derive.Context, k listenKey) []string {
	var names []string
	if p := k.Traits.HTTPProxyPort; p != 0 {
		names = append(names, listenerName(k.Traits.Loopback(), int(p)))
	}
	sc := b.Sidecar(c, k.Sight)
	for i := range sc.Egress {
		if e, ok := ownEgress(&sc.Egress[i], k.Traits); ok {
			names = append(names, e.name)
		}
	}
	// Where nothing is captured, an application reaches the mesh through the listeners that somebody asked for: to open
	// one for each port of the mesh would take these from everybody else on the machine.
	if !k.Traits.NoCapture {
		names = append(names, listenerOutbound)
	}
	if !k.Traits.NoCapture && !k.Traits.OnDemand {
		for i := range sc.Egress {
			names = append(names, b.egressNames(c, k, sc, i)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// egressNames are the listeners through which the services behind one egress listener are reached.
func (b *Backend) egressNames(c *derive.Context, k listenKey, sc *intent.Sidecar, egress int) []string {
	if _, own := ownEgress(&sc.Egress[egress], k.Traits); own {
		return nil
	}
	var names []string
	for _, key := range b.Wishes.Visible.Get(c, sight.ScopeOf(k.Sight, sc, egress)) {
		s := b.Facts.Service.Get(c, key)
		if s == nil || s.Resolution == registry.Alias {
			continue
		}
		for _, p := range s.Ports {
			if i, ok := sight.EgressFor(sc, p.Number); ok && i == egress {
				names = append(names, b.addresses(c, k.Traits, s, p)...)
			}
		}
	}
	return names
}

// addresses lists the listeners through which one service port is reached.
func (b *Backend) addresses(c *derive.Context, t sight.Traits, s *registry.Service, p registry.Port) []string {
	switch {
	case p.Protocol == mesh.UDP:
		return nil
	case p.Protocol.IsHTTP():
		return []string{listenerName(t.Wildcard(), p.Number)}
	}
	var names []string
	for _, a := range b.dialled(c, s, p) {
		if a.Is6() == t.IPv6 {
			names = append(names, listenerName(a.String(), p.Number))
		}
	}
	if len(names) == 0 {
		names = append(names, listenerName(t.Wildcard(), p.Number))
	}
	return names
}

// dialled are where clients dial a service port: its addresses, or for a
// headless service those of its workloads.
func (b *Backend) dialled(c *derive.Context, s *registry.Service, p registry.Port) []netip.Addr {
	if !s.Headless {
		return s.VIPs()
	}
	var out []netip.Addr
	for _, e := range b.Facts.Endpoints.Get(c, registry.PortKey{Service: s.ServiceKey, Port: p.Number}).List {
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

// An opened is a listener that a Sidecar asks for.
type opened struct {
	egress *intent.Egress
	name   string
	addr   string // or unix:///path
	bound  bool   // the application dials it; else connections captured on their way there are handed over
}

// ownEgress says whether an egress listener is one of its own.
func ownEgress(e *intent.Egress, t sight.Traits) (opened, bool) {
	dialled := t.NoCapture || e.Capture == intent.CaptureNone
	switch {
	case isSocket(e.Bind):
		return opened{e, socketPath(e.Bind), e.Bind, true}, true
	case e.Port == 0:
		return opened{}, false
	case e.Bind != "":
		return opened{e, listenerName(e.Bind, e.Port), e.Bind, dialled}, true
	case dialled:
		return opened{e, listenerName(t.Loopback(), e.Port), t.Loopback(), true}, true
	}
	return opened{}, false
}

func isSocket(bind string) bool { return strings.HasPrefix(bind, "unix://") }

func socketPath(bind string) string { return strings.TrimPrefix(bind, "unix://") }

func (b *Backend) outboundFor(c *derive.Context, k listenKey) *xds.Resource {
	if k.Name == listenerOutbound {
		return b.resource(k.Name, b.virtualOutbound(c, k))
	}
	sc := b.Sidecar(c, k.Sight)
	for i := range sc.Egress {
		if e, ok := ownEgress(&sc.Egress[i], k.Traits); ok && e.name == k.Name {
			return b.resource(k.Name, b.egressListener(c, k, e))
		}
	}
	addr, port, ok := splitListenerName(k.Name)
	if !ok {
		return nil
	}
	t := k.Traits
	if port == int(t.HTTPProxyPort) && addr == t.Loopback() {
		return b.resource(k.Name, b.forwardProxy(k, addr, port))
	}
	var keys []registry.ServiceKey
	for _, key := range b.OnPort.Get(c, sight.OnPort{Sight: k.Sight, Port: port}) {
		s := b.Facts.Service.Get(c, key)
		if p, _ := s.Port(port); s.Resolution != registry.Alias && slices.Contains(b.addresses(c, t, s, p), k.Name) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	l := b.newListener(k, addr, port)
	l.BindToPort = wrapperspb.Bool(false)
	if addr != t.Wildcard() {
		l.Metadata = emit.From(source.Origin{Object: b.Facts.Service.Get(c, keys[0]).Object})
	}
	b.outboundChains(c, l, k, addr, port, keys)
	return b.resource(k.Name, l)
}

func (b *Backend) newListener(k listenKey, addr string, port int) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: k.Name, Address: emit.Address(addr, port), TrafficDirection: filter.Outbound, AccessLog: filter.ListenerLog(k.Log.log()),
	}
}

// outboundChains fills a listener: HTTP first where any service carries it, then
// chains by what TLS and TCP routes ask for, then one for all other bytes.
func (b *Backend) outboundChains(c *derive.Context, l *listenerv3.Listener, k listenKey, addr string, port int, keys []registry.ServiceKey) {
	wildcard := addr == k.Traits.Wildcard()
	set := filter.NewChains()
	alone := ""
	http, patient := false, true
	for _, key := range keys {
		s := b.Facts.Service.Get(c, key)
		p, _ := s.Port(port)
		http = http || cluster.CarriesHTTP(p.Protocol)
		if p.Protocol.IsHTTP() {
			continue
		}
		patient = false
		if p.Protocol == mesh.Unset && alone == "" {
			alone = string(key.Host)
		}
		b.l4Chains(c, set, k, s, p, wildcard)
	}
	if http {
		name := strconv.Itoa(port)
		if !wildcard {
			name = net.JoinHostPort(alone, name)
		}
		l.FilterChains = []*listenerv3.FilterChain{{
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: "raw_buffer", ApplicationProtocols: httpProtocols(k.Traits)},
			Filters:          []*listenerv3.Filter{b.outboundManager(k, "outbound_"+listenerName(addr, port), name)},
		}}
	}
	l.FilterChains = append(l.FilterChains, set.List...)
	rest := set.Rest
	if rest == nil && wildcard {
		to, _ := b.OutboundPolicy(c, k.Sight)
		rest = &listenerv3.FilterChain{Name: "PassthroughFilterChain", Filters: b.passBytes(k, to)}
	}
	switch {
	case rest == nil:
	case len(l.FilterChains) > 0:
		l.DefaultFilterChain = rest
	default:
		l.FilterChains = []*listenerv3.FilterChain{rest}
	}
	b.inspect(c, l, k.Traits, set.TLS, http)
	if http && patient {
		// All here is known to be HTTP, in which the client speaks first. Clients open connections in advance, which stay
		// silent until they are used: to take these for something else would break the first request on them.
		l.ListenerFiltersTimeout = durationpb.New(b.Settings(c).DetectionTimeout)
	}
}

// passBytes hands bytes to a cluster.
func (b *Backend) passBytes(k listenKey, to string) []*listenerv3.Filter {
	return filter.TCP{Targets: filter.To(to), AccessLog: filter.Log(k.Log.log())}.Filters(k.Traits.Features)
}

func (b *Backend) outboundManager(k listenKey, prefix, table string) *listenerv3.Filter {
	return filter.Manager(k.Traits.Features, filter.HTTP{
		Side: filter.FromWorkload, StatPrefix: prefix, RDS: table, HTTP10: k.Traits.HTTP10, AccessLog: filter.Log(k.Log.log()),
	})
}

func httpProtocols(t sight.Traits) []string {
	if t.HTTP10 {
		return []string{"http/1.0", "http/1.1", "h2c"}
	}
	return []string{"http/1.1", "h2c"}
}

// ownDetection is how long our proxies wait for a client to speak before they let the server begin.
var ownDetection = &durationpb.Duration{Nanos: 100e6}

// inspect adds what must look at a connection's first bytes, and how long. An Envoy waits as long as the mesh says,
// by default without limit.
func (b *Backend) inspect(c *derive.Context, l *listenerv3.Listener, t sight.Traits, forTLS, forHTTP bool) {
	if forTLS {
		l.ListenerFilters = append(l.ListenerFilters, filter.TLSInspector(nil))
	}
	if forHTTP {
		l.ListenerFilters = append(l.ListenerFilters, filter.HTTPInspector(nil))
	}
	if forTLS || forHTTP {
		b.setDetection(c, l, t)
	}
}

func (b *Backend) setDetection(c *derive.Context, l *listenerv3.Listener, t sight.Traits) {
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = durationpb.New(b.Settings(c).DetectionTimeout), true
	if t.Own && b.Settings(c).DetectionTimeout == 0 {
		l.ListenerFiltersTimeout = ownDetection
	}
}

// virtualOutbound takes every captured connection. Envoys hand it to the
// listener of its destination; our proxies ask what the destination is.
func (b *Backend) virtualOutbound(c *derive.Context, k listenKey) *listenerv3.Listener {
	to, _ := b.OutboundPolicy(c, k.Sight)
	l := b.newListener(k, k.Traits.Wildcard(), mesh.PortOutbound)
	l.UseOriginalDst = wrapperspb.Bool(true)
	if k.Traits.Transparent {
		l.Transparent = wrapperspb.Bool(true)
	}
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name:             "virtualOutbound-blackhole",
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(mesh.PortOutbound)},
		Filters:          b.passBytes(k, mesh.ClusterBlackHole),
	})
	rest := &listenerv3.FilterChain{Name: "virtualOutbound-catchall-tcp", Filters: b.passBytes(k, to)}
	if k.Traits.OnDemand {
		rest.Name = "virtualOutbound-on-demand"
		rest.Filters = append([]*listenerv3.Filter{filter.OnDemand(), b.outboundManager(k, "outbound", "on-demand")}, rest.Filters...)
		l.ListenerFilters = []*listenerv3.ListenerFilter{filter.OriginalDst()}
		b.inspect(c, l, k.Traits, true, true)
	}
	l.FilterChains = append(l.FilterChains, rest)
	return l
}

// forwardProxy is the listener that an application reaches by its HTTP_PROXY
// setting (Istio's http_proxy).
func (b *Backend) forwardProxy(k listenKey, addr string, port int) *listenerv3.Listener {
	l := b.newListener(k, addr, port)
	l.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{filter.Manager(k.Traits.Features, filter.HTTP{
		Side: filter.FromWorkload, StatPrefix: "outbound_" + k.Name, RDS: routeHTTPProxy, Forward: true, HTTP10: k.Traits.HTTP10,
		AccessLog: filter.Log(k.Log.log()),
	})}}}
	return l
}

// egressListener is one that a Sidecar asks for: a socket, an address of its own, or a port that the application dials.
func (b *Backend) egressListener(c *derive.Context, k listenKey, e opened) *listenerv3.Listener {
	l := b.newListener(k, e.addr, e.egress.Port)
	l.Metadata = emit.From(e.egress.Origin)
	if !e.bound {
		l.BindToPort = wrapperspb.Bool(false)
	}
	if e.egress.Protocol.IsHTTP() {
		table := strconv.Itoa(e.egress.Port)
		if isSocket(e.addr) {
			table = e.name
		}
		l.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{b.outboundManager(k, "outbound_"+e.name, table)}}}
		return l
	}
	set := filter.NewChains()
	for _, key := range b.OnPort.Get(c, sight.OnPort{Sight: k.Sight, Port: e.egress.Port}) {
		s := b.Facts.Service.Get(c, key)
		if p, _ := s.Port(e.egress.Port); p.Protocol != mesh.UDP && s.Resolution != registry.Alias {
			b.l4Chains(c, set, k, s, p, false)
		}
	}
	l.FilterChains = set.List
	if set.Rest != nil {
		l.FilterChains = append(l.FilterChains, set.Rest)
	}
	if len(l.FilterChains) == 0 {
		l.FilterChains = []*listenerv3.FilterChain{{Filters: b.passBytes(k, mesh.ClusterBlackHole)}}
	}
	b.inspect(c, l, k.Traits, set.TLS, false)
	return l
}
