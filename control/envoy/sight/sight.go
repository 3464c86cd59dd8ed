// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sight

import (
	"slices"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A Sight decides which services a proxy sees, and by which names: all proxies of a namespace under one Sidecar
// share it.
type Sight struct {
	// Who is a workload that has nothing but the labels that the Sidecar in force selects, so that
	// it has the same one.
	Who    intent.Subject
	Router bool // gateways are not narrowed by Sidecars
}

// Of is the sight of a proxy.
func (w *World) Of(c *derive.Context, v View) Sight {
	if v.Traits.Router {
		return Sight{Who: Nobody(v.Namespace()), Router: true}
	}
	return Sight{Who: intent.NewSubject(v.Namespace(), w.Wishes.Sidecar.Get(c, v.Subject).Selector)}
}

// Nobody is a workload without labels: what is for it is for all of its namespace.
func Nobody(ns mesh.Namespace) intent.Subject { return intent.NewSubject(ns, nil) }

// Namespace of the clients.
func (s Sight) Namespace() mesh.Namespace { return s.Who.Namespace }

// Sidecar is the one in force.
func (w *World) Sidecar(c *derive.Context, s Sight) *intent.Sidecar {
	return w.Wishes.Sidecar.Get(c, s.Who)
}

// ScopeOf is what lies behind one egress listener.
func ScopeOf(s Sight, sc *intent.Sidecar, egress int) intent.Scope {
	return intent.Scope{Namespace: s.Namespace(), Sidecar: sc.Object, Egress: egress}
}

// EgressFor is the listener that takes connections to a port: the one written for it, else the one for all. With
// neither, nothing is seen on that port.
func EgressFor(sc *intent.Sidecar, port int) (index int, ok bool) {
	index = -1
	for i := range sc.Egress {
		switch sc.Egress[i].Port {
		case port:
			return i, true
		case 0:
			index = i
		}
	}
	return index, index >= 0
}

// visible lists the services behind the listener that takes a port.
func (w *World) visible(c *derive.Context, s Sight, port int) []registry.ServiceKey {
	if s.Router {
		return w.Facts.Visible.Get(c, s.Namespace())
	}
	sc := w.Sidecar(c, s)
	i, ok := EgressFor(sc, port)
	if !ok {
		return nil
	}
	return w.Wishes.Visible.Get(c, ScopeOf(s, sc, i))
}

// Sees is the service that a host means behind the listener that takes a port; zero if it is not admitted there.
func (w *World) Sees(c *derive.Context, s Sight, host mesh.Hostname, port int) registry.ServiceKey {
	if s.Router {
		return w.Facts.Resolve.Get(c, registry.HostFrom{Namespace: s.Namespace(), Host: host})
	}
	sc := w.Sidecar(c, s)
	i, ok := EgressFor(sc, port)
	if !ok {
		return registry.ServiceKey{}
	}
	return w.Wishes.Sees.Get(c, intent.HostIn{Scope: ScopeOf(s, sc, i), Host: host})
}

// Admits is the service that a host means behind any listener; zero if none admits it.
func (w *World) Admits(c *derive.Context, s Sight, host mesh.Hostname) registry.ServiceKey {
	if s.Router {
		return w.Sees(c, s, host, 0)
	}
	sc := w.Sidecar(c, s)
	for i := range sc.Egress {
		if k := w.Wishes.Sees.Get(c, intent.HostIn{Scope: ScopeOf(s, sc, i), Host: host}); !k.IsZero() {
			return k
		}
	}
	return registry.ServiceKey{}
}

// Knows is the service that a destination names. A Sidecar narrows what a workload may call by name; where a
// route leads from there is up to who wrote the route.
func (w *World) Knows(c *derive.Context, s Sight, host mesh.Hostname) registry.ServiceKey {
	if k := w.Admits(c, s, host); !k.IsZero() || s.Router {
		return k
	}
	return w.Facts.Resolve.Get(c, registry.HostFrom{Namespace: s.Namespace(), Host: host})
}

// Routes are those of a host behind the listener that takes a port; nil if nobody routes it.
func (w *World) Routes(c *derive.Context, s Sight, host mesh.Hostname, port int) *intent.HostRoutes {
	sc := w.Sidecar(c, s)
	i, ok := EgressFor(sc, port)
	if !ok {
		return nil
	}
	return w.Wishes.Routes.Get(c, intent.HostIn{Scope: ScopeOf(s, sc, i), Host: host})
}

// services lists the services that a proxy sees behind any listener, and those that routes lead it to.
func (w *World) services(c *derive.Context, s Sight) []registry.ServiceKey {
	if s.Router {
		return w.Facts.Visible.Get(c, s.Namespace())
	}
	sc := w.Sidecar(c, s)
	if len(sc.Egress) == 1 && sc.Object.IsZero() { // everything: no route leads anywhere else
		return w.Wishes.Visible.Get(c, ScopeOf(s, sc, 0))
	}
	var all []registry.ServiceKey
	for i := range sc.Egress {
		scope := ScopeOf(s, sc, i)
		all = append(all, w.Wishes.Visible.Get(c, scope)...)
		for _, h := range w.Wishes.RouteHosts.Get(c, scope) {
			all = append(all, w.ledTo(c, s, w.Wishes.Routes.Get(c, intent.HostIn{Scope: scope, Host: h}))...)
		}
	}
	slices.SortFunc(all, registry.ServiceKey.Compare)
	return slices.Compact(all)
}

// ledTo lists the services that routes forward to.
func (w *World) ledTo(c *derive.Context, s Sight, routes *intent.HostRoutes) []registry.ServiceKey {
	if routes == nil {
		return nil
	}
	var all []registry.ServiceKey
	add := func(host mesh.Hostname) {
		if k := w.Knows(c, s, host); !k.IsZero() {
			all = append(all, k)
		}
	}
	for i := range routes.HTTP {
		for j := range routes.HTTP[i].Forward {
			add(routes.HTTP[i].Forward[j].Host)
		}
		for j := range routes.HTTP[i].Mirrors {
			add(routes.HTTP[i].Mirrors[j].Host)
		}
	}
	for _, l := range slices.Concat(routes.TLS, routes.TCP) {
		for j := range l.Forward {
			add(l.Forward[j].Host)
		}
	}
	return all
}

// An OnPort asks for the services on a port.
type OnPort struct {
	Sight Sight
	Port  int
}

func (w *World) servicesOn(c *derive.Context, k OnPort) []registry.ServiceKey {
	var out []registry.ServiceKey
	for _, key := range w.visible(c, k.Sight, k.Port) {
		if s := w.Facts.Service.Get(c, key); s != nil {
			if _, ok := s.Port(k.Port); ok {
				out = append(out, key)
			}
		}
	}
	return out
}

// Service is what a host means as a destination, and behind a name that is an alias, what that stands for. Two aliases of each
// other stand for nothing.
func (w *World) Service(c *derive.Context, s Sight, host mesh.Hostname) *registry.Service {
	svc := w.Facts.Service.Get(c, w.Knows(c, s, host))
	if svc != nil && svc.Resolution == registry.Alias {
		svc = w.Facts.Service.Get(c, w.Knows(c, s, svc.Alias))
		if svc != nil && svc.Resolution == registry.Alias {
			return nil
		}
	}
	return svc
}

// OutboundPolicy says where traffic to unknown hosts goes, and whether it may.
func (w *World) OutboundPolicy(c *derive.Context, s Sight) (cluster string, allow bool) {
	allow = w.Settings(c).AllowAny
	if o := w.Sidecar(c, s).Outbound; o != nil {
		allow = o.AllowAny
		if allow && o.Proxy != nil {
			return Target{World: w, Context: c, Sight: s}.Cluster(o.Proxy.Host, o.Proxy.Port, o.Proxy.Subset), true
		}
	}
	if !allow {
		return mesh.ClusterBlackHole, false
	}
	return mesh.ClusterPassthrough, true
}

// A Target answers what routes ask about destinations: it implements route.Mesh.
type Target struct {
	World   *World
	Context *derive.Context
	Sight   Sight
	Client  intent.Subject // with labels only where rules ask for them
	Port    int            // that the request was sent to
}

// Cluster is the name of the cluster for a destination. A host that is not there still names a cluster, which nobody
// defines: 503 with NC says so.
func (t Target) Cluster(host mesh.Hostname, port int, subset string) string {
	s := t.World.Service(t.Context, t.Sight, host)
	if s != nil && s.Host != host && !s.Host.IsWildcard() {
		host = s.Host // an alias
	}
	return mesh.ClusterName{Direction: mesh.Outbound, Port: t.at(s, port), Subset: subset, Host: host}.String()
}

// at is the port that a destination means.
func (t Target) at(s *registry.Service, port int) int {
	switch {
	case port != 0:
		return port
	case s != nil && len(s.Ports) == 1:
		return s.Ports[0].Number
	}
	return t.Port
}

// Hash is what keeps a client of a destination at its endpoint.
func (t Target) Hash(host mesh.Hostname, port int, subset string) *intent.Hash {
	if lb := t.Policy(host, port, subset).LoadBalancer; lb != nil {
		return lb.Hash
	}
	return nil
}

// Policy is what rules say of a destination; never nil.
func (t Target) Policy(host mesh.Hostname, port int, subset string) *Policy {
	s := t.World.Service(t.Context, t.Sight, host)
	if s == nil {
		return &Policy{}
	}
	return t.World.Policies.Get(t.Context, PolicyKey{t.Client, s.ServiceKey, t.at(s, port), subset})
}
