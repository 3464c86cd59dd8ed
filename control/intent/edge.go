// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"cmp"
	"maps"
	"slices"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// listeners merges the servers of all gateways that select a proxy into its ports.
func (m *merger) listeners(c *derive.Context, s Subject) []Listener {
	var all []Listener
	for _, gw := range m.gatewaysOf(c, s) {
		for _, srv := range gw.Servers {
			i := slices.IndexFunc(all, func(l Listener) bool { return l.Port == srv.Port && l.Bind == srv.Bind })
			if i < 0 {
				all = append(all, Listener{Port: srv.Port, Bind: srv.Bind})
				i = len(all) - 1
			}
			all[i].add(srv)
		}
	}
	slices.SortFunc(all, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Bind, b.Bind))
	})
	return all
}

// gatewaysOf lists the gateways that select a proxy, by key.
func (m *merger) gatewaysOf(c *derive.Context, s Subject) []*Gateway {
	labels := s.Labels()
	entries := []registry.Label{{}}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		entries = append(entries, registry.Label{Key: k, Value: labels[k]})
	}
	var all []*Gateway
	for _, f := range m.fronts {
		if f.Gateways.byLabel == nil {
			continue
		}
		for _, e := range entries {
			for _, k := range f.Gateways.byLabel.Get(c, e) {
				if gw := f.Gateways.compile.Get(c, k); gw != nil && gw.Selector.Match(labels) {
					all = append(all, gw)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b *Gateway) int { return a.Object.Compare(b.Object) })
	return all
}

// sort of a server: those of different sorts cannot share a port.
type serverSort uint8

const (
	plainHTTP serverSort = iota
	plainTCP
	withTLS
)

func (s *Server) sort() serverSort {
	switch {
	case s.TLS != nil && !s.TLS.Redirect:
		return withTLS
	case s.Protocol.IsHTTP():
		return plainHTTP
	}
	return plainTCP
}

// add puts a server on the listener's port. Servers that were there first keep what they have: the
// port, if the newcomer is of another sort, and their hosts, if both look at TLS.
func (l *Listener) add(srv *Server) {
	if len(l.Servers) > 0 && (l.Servers[0].sort() != srv.sort() || srv.sort() == plainTCP) {
		l.Dropped = append(l.Dropped, Dropped{Server: srv, Winner: l.Servers[0]})
		return
	}
	if srv.sort() != withTLS {
		l.Servers = append(l.Servers, srv)
		return
	}
	var kept []ServerHost
	lost := map[*Server][]mesh.Hostname{}
	for _, h := range srv.Hosts {
		if w := l.owner(h.Host); w != nil {
			lost[w] = append(lost[w], h.Host)
			continue
		}
		kept = append(kept, h)
	}
	for _, w := range l.Servers {
		if hosts := lost[w]; hosts != nil {
			l.Dropped = append(l.Dropped, Dropped{Server: srv, Hosts: hosts, Winner: w})
		}
	}
	if len(kept) == len(srv.Hosts) {
		l.Servers = append(l.Servers, srv)
	} else if len(kept) > 0 {
		narrowed := *srv
		narrowed.Hosts = kept
		l.Servers = append(l.Servers, &narrowed)
	}
}

// owner is the server that has the host already.
func (l *Listener) owner(h mesh.Hostname) *Server {
	for _, s := range l.Servers {
		if slices.ContainsFunc(s.Hosts, func(o ServerHost) bool { return o.Host == h }) {
			return s
		}
	}
	return nil
}

// boundTo is a gateway as proxies of a namespace see what is bound to it.
type boundTo struct {
	Namespace mesh.Namespace
	Gateway   GatewayName
}

// binding is a route set bound to a gateway.
type binding struct {
	Object source.Key
	Hosts  []mesh.Hostname
}

// boundTo lists the route sets bound to a gateway, by key.
func (m *merger) boundTo(c *derive.Context, k boundTo) []binding {
	var all []binding
	for _, f := range m.fronts {
		if f.Routes.byGateway == nil {
			continue
		}
		for _, o := range f.Routes.byGateway.Get(c, k.Gateway) {
			if h := f.Routes.head.Get(c, o); h != nil && h.ExportTo.To(k.Namespace) {
				all = append(all, binding{o, h.Hosts})
			}
		}
	}
	slices.SortFunc(all, func(a, b binding) int { return a.Object.Compare(b.Object) })
	return all
}

// hostPlan says what the routes of one host of a route table are made of.
type hostPlan struct {
	Sets     []source.Key // in order
	Gateways []GatewayName
	Redirect bool
}

// servers are those of a route table.
func (m *merger) servers(c *derive.Context, t Table) []*Server {
	for _, l := range m.wishes.Listeners.Get(c, t.Subject) {
		if l.Port != t.Port || l.Bind != t.Bind {
			continue
		}
		if t.Server < 0 {
			return slices.DeleteFunc(slices.Clone(l.Servers), func(s *Server) bool { return s.sort() != plainHTTP })
		}
		if t.Server < len(l.Servers) {
			return l.Servers[t.Server : t.Server+1]
		}
	}
	return nil
}

// plan finds the hosts of a route table and the route sets of each.
func (m *merger) plan(c *derive.Context, t Table) map[mesh.Hostname]hostPlan {
	plans := map[mesh.Hostname]hostPlan{}
	for _, srv := range m.servers(c, t) {
		redirect := srv.TLS != nil && srv.TLS.Redirect
		put := func(h mesh.Hostname, set source.Key) {
			p := plans[h]
			p.Redirect = p.Redirect || redirect
			if !set.IsZero() && !slices.Contains(p.Sets, set) {
				p.Sets = append(p.Sets, set)
			}
			if !slices.Contains(p.Gateways, srv.Gateway) {
				p.Gateways = append(p.Gateways, srv.Gateway)
			}
			plans[h] = p
		}
		for _, b := range m.bindings.Get(c, boundTo{t.Subject.Namespace, srv.Gateway}) {
			for _, h := range b.Hosts {
				for _, common := range srv.meets(b.Object.Namespace, h) {
					put(common, b.Object)
				}
			}
		}
		if redirect {
			for _, h := range srv.Hosts {
				put(h.Host, source.Key{})
			}
		}
	}
	for h, p := range plans {
		slices.SortFunc(p.Sets, source.Key.Compare)
		plans[h] = p
	}
	return plans
}

// meets lists the hosts that are the server's and an object's of namespace ns: of each pair that overlaps, the narrower.
func (s *Server) meets(ns mesh.Namespace, host mesh.Hostname) []mesh.Hostname {
	var all []mesh.Hostname
	for _, h := range s.Hosts {
		switch {
		case h.Namespace != "" && h.Namespace != ns:
		case host.SubsetOf(h.Host):
			all = append(all, host)
		case h.Host.SubsetOf(host):
			all = append(all, h.Host)
		}
	}
	return all
}

// virtualHosts lists the hosts of a route table.
func (m *merger) virtualHosts(c *derive.Context, t Table) []*VirtualHost {
	plans := m.plans.Get(c, t)
	all := make([]*VirtualHost, 0, len(plans))
	for _, h := range slices.Sorted(maps.Keys(plans)) {
		all = append(all, m.atGateway.Get(c, hostAt{t, h}))
	}
	return all
}

// hostAt is one host of a route table.
type hostAt struct {
	Table Table
	Host  mesh.Hostname
}

// virtualHost merges the routes of one host over all route sets. Of each set, what follows a route that takes everything
// is unreachable and left out; routes that take everything go behind those of all other sets. What a match says of the
// caller is asked of the gateway: to those behind it, it is the caller.
func (m *merger) virtualHost(c *derive.Context, k hostAt) *VirtualHost {
	p := m.plans.Get(c, k.Table)[k.Host]
	out := &VirtualHost{Host: k.Host, Redirect: p.Redirect}
	labels := k.Table.Subject.Labels()
	here := func(gateways []GatewayName) bool {
		return slices.ContainsFunc(gateways, func(g GatewayName) bool { return slices.Contains(p.Gateways, g) })
	}
	var last []HTTPRoute
	for _, o := range p.Sets {
		set := m.resolved.Get(c, o)
		if set == nil {
			continue
		}
		routes := keepHTTP(set.HTTP, here(set.Gateways), func(h *HTTPMatch) bool {
			return here(h.Gateways) && (h.Port == 0 || h.Port == k.Table.Port) &&
				(h.SourceNS == "" || h.SourceNS == k.Table.Subject.Namespace) && h.SourceLabels.Match(labels)
		})
		for _, r := range routes {
			for i := range r.Matches { // what was asked of the gateway holds
				r.Matches[i].SourceLabels, r.Matches[i].SourceNS = nil, ""
			}
			i := slices.IndexFunc(r.Matches, func(h HTTPMatch) bool { return h.TakesAll() })
			if i < 0 && len(r.Matches) > 0 {
				out.Routes = append(out.Routes, r)
				continue
			}
			if i > 0 {
				some := r
				some.Matches = r.Matches[:i]
				out.Routes = append(out.Routes, some)
			}
			if i >= 0 {
				r.Matches = r.Matches[i : i+1]
			}
			last = append(last, r)
			break
		}
	}
	if len(last) > 0 {
		out.Routes = append(out.Routes, last[0]) // the others are unreachable
	}
	return out
}

// TakesAll reports whether the match holds for every request that reaches its gateway or sidecar.
func (m *HTTPMatch) TakesAll() bool {
	if u := m.URI; u != nil && *u != (StringMatch{Prefix, "/"}) && *u != (StringMatch{Regex, ".*"}) && *u != (StringMatch{Regex, "/.*"}) {
		return false
	}
	return m.Scheme == nil && m.Method == nil && m.Authority == nil && m.Port == 0 && m.SourceNS == "" &&
		len(m.Headers)+len(m.NotHeaders)+len(m.Query)+len(m.Claims)+len(m.SourceLabels) == 0
}

// l4Routes lists the TLS and TCP routes bound to a server, by object.
func (m *merger) l4Routes(c *derive.Context, k ServerKey) *L4Routes {
	out := &L4Routes{}
	gw := m.gateway(c, k.Gateway)
	if gw == nil || k.Server < 0 || k.Server >= len(gw.Servers) {
		return out
	}
	srv := gw.Servers[k.Server]
	here := func(h *L4Match) bool {
		return slices.Contains(h.Gateways, srv.Gateway) && (h.Port == 0 || h.Port == srv.Port)
	}
	for _, b := range m.bindings.Get(c, boundTo{k.Namespace, srv.Gateway}) {
		set := m.resolved.Get(c, b.Object)
		if set == nil {
			continue
		}
		for _, r := range keepL4(set.TLS, false, here) {
			if r.Matches = srv.narrow(b.Object.Namespace, r.Matches); len(r.Matches) > 0 {
				out.TLS = append(out.TLS, r)
			}
		}
		if slices.ContainsFunc(b.Hosts, func(h mesh.Hostname) bool { return len(srv.meets(b.Object.Namespace, h)) > 0 }) {
			out.TCP = append(out.TCP, keepL4(set.TCP, slices.Contains(set.Gateways, srv.Gateway), here)...)
		}
	}
	return out
}

func (m *merger) gateway(c *derive.Context, k source.Key) *Gateway {
	for _, f := range m.fronts {
		if f.Gateways.kind == k.Kind && f.Gateways.compile != nil {
			return f.Gateways.compile.Get(c, k)
		}
	}
	return nil
}

// narrow leaves of each match the names that the server serves.
func (s *Server) narrow(ns mesh.Namespace, matches []L4Match) []L4Match {
	var all []L4Match
	for _, m := range matches {
		var sni []mesh.Hostname
		for _, h := range m.SNI {
			sni = append(sni, s.meets(ns, h)...)
		}
		if len(sni) > 0 {
			m.SNI = sni
			all = append(all, m)
		}
	}
	return all
}
