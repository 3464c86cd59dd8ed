// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// virtualService looks for destinations, subsets, gateways and delegates that are not there, and for other
// objects that route the same hosts.
func (r *reviewer) virtualService(c *derive.Context, out *findings, o virtualServiceObject) {
	set := r.routeSet(o.Key, o)
	for _, h := range set.HTTP {
		r.destinations(c, out, o.Namespace, h.Forward)
		for _, m := range h.Mirrors {
			r.destination(c, out, o.Namespace, m.Origin.Field, m.Host, m.Subset, m.Port, "nothing is mirrored there")
		}
		if h.Delegate != nil {
			r.delegate(c, out, h.Origin.Field+".delegate", o.Key, *h.Delegate)
		}
	}
	for _, l := range slices.Concat(set.TLS, set.TCP) {
		r.destinations(c, out, o.Namespace, l.Forward)
	}
	for i, g := range set.Gateways {
		if g == intent.GatewayMesh {
			r.rivals(c, out, o.Key, set)
			continue
		}
		ns, name, _ := strings.Cut(string(g), "/")
		if !has(c, r.objects.Gateways, source.Key{Kind: source.KindGateway, Namespace: mesh.Namespace(ns), Name: name}) {
			out.warnf(at("spec.gateways[%d]", i), "there is no Gateway %s", g)
		}
	}
}

func (r *reviewer) destinations(c *derive.Context, out *findings, ns mesh.Namespace, list []intent.Destination) {
	for _, d := range list {
		r.destination(c, out, ns, d.Origin.Field+".destination", d.Host, d.Subset, d.Port, "requests get 503")
	}
}

// destination looks for the service, the port and the subset that a route names. Where there is none, so is what
// becomes of requests.
func (r *reviewer) destination(c *derive.Context, out *findings, ns mesh.Namespace, field string, host mesh.Hostname, subset string, port int, so string) {
	key := r.facts.Resolve.Get(c, registry.HostFrom{Namespace: ns, Host: host})
	svc := r.facts.Service.Get(c, key)
	if svc == nil {
		out.warnf(field+".host", "there is no service %s that namespace %s sees; %s", host, ns, so)
		return
	}
	if _, ok := svc.Port(port); port != 0 && !ok {
		out.warnf(field+".port.number", "service %s has no port %d; %s", host, port, so)
	}
	if subset == "" {
		return
	}
	rules := r.wishes.Rules.Get(c, intent.RuleFor{Client: ns, Service: key})
	named := func(t *intent.TrafficRule) bool {
		return t != nil && slices.ContainsFunc(t.Subsets, func(s intent.Subset) bool { return s.Name == subset })
	}
	if !named(rules.General) && !slices.ContainsFunc(rules.Selective, named) {
		out.warnf(field+".subset", "no DestinationRule for %s defines subset %q; %s", host, subset, so)
	}
}

func (r *reviewer) delegate(c *derive.Context, out *findings, field string, root, to source.Key) {
	d, ok := r.objects.VirtualServices.Get(c, to)
	switch {
	case !ok:
		out.warnf(field, "there is no VirtualService %s/%s; the route is left out", to.Namespace, to.Name)
	case len(d.Spec.Hosts) > 0:
		out.warnf(field, "VirtualService %s/%s has hosts, so it is no delegate; the route is left out", to.Namespace, to.Name)
	case !exportTo(d.Spec.ExportTo, r.routeExportTo, to.Namespace).To(root.Namespace):
		out.warnf(field, "VirtualService %s/%s is not exported to namespace %s; the route is left out", to.Namespace, to.Name, root.Namespace)
	}
}

// rivals warns where another object routes the same host for the same sidecars and goes first.
func (r *reviewer) rivals(c *derive.Context, out *findings, k source.Key, set *intent.RouteSet) {
	lost := 0
	for i, h := range set.Hosts {
		owner := r.facts.Resolve.Get(c, registry.HostFrom{Namespace: k.Namespace, Host: h}).Namespace
		field := at("spec.hosts[%d]", i)
		var elsewhere source.Key
		for _, other := range r.wishes.RoutedBy.Get(c, h) {
			o, ok := r.objects.VirtualServices.Get(c, other)
			if !ok || other == k {
				continue
			}
			to := exportTo(o.Spec.ExportTo, r.routeExportTo, other.Namespace)
			if to.To(k.Namespace) && intent.Precedence(k.Namespace, owner)(other, k) < 0 {
				if covers(to, set.ExportTo) && intent.Precedence("", owner)(other, k) < 0 {
					out.warnf(field, "%s is routed by %s, too, which goes first; for sidecars this object has no effect on it", h, other)
					lost++
				} else {
					out.warnf(field, "%s is routed by %s, too, which goes first for sidecars of namespace %s", h, other, k.Namespace)
				}
				elsewhere = source.Key{}
				break
			}
			if elsewhere.IsZero() && intent.Precedence("", owner)(other, k) < 0 && shared(set.ExportTo, to, k.Namespace, other.Namespace) {
				elsewhere = other
			}
		}
		if !elsewhere.IsZero() {
			out.warnf(field, "%s is routed by %s, too, which goes first except for sidecars of namespace %s", h, elsewhere, k.Namespace)
		}
	}
	if lost > 0 && lost == len(set.Hosts) && len(set.Gateways) == 1 {
		out.list[len(out.list)-1].Idle = true // it is for sidecars alone
	}
}

// covers reports whether whoever sees b sees a, too.
func covers(a, b registry.Visibility) bool {
	switch {
	case a.All(), b.None:
		return true
	case b.All():
		return false
	}
	return !slices.ContainsFunc(b.Namespaces, func(ns mesh.Namespace) bool { return !a.To(ns) })
}

// shared reports whether clients of some namespace other than the two owners' see both.
func shared(a, b registry.Visibility, owners ...mesh.Namespace) bool {
	switch {
	case a.None || b.None:
		return false
	case a.All() && b.All():
		return true
	case a.All():
		a, b = b, a
	}
	return slices.ContainsFunc(a.Namespaces, func(ns mesh.Namespace) bool {
		return b.To(ns) && !slices.Contains(owners, ns)
	})
}

func (r *reviewer) destinationRule(c *derive.Context, out *findings, o destinationRuleObject) {
	host := r.ruleHost(o.Key, o)
	key := r.facts.Resolve.Get(c, registry.HostFrom{Namespace: o.Namespace, Host: host})
	if key.IsZero() && !host.IsWildcard() {
		out.warnf("spec.host", "there is no service %s that namespace %s sees", host, o.Namespace)
	}
	rules := r.wishes.Rules.Get(c, intent.RuleFor{Client: o.Namespace, Service: registry.ServiceKey{Namespace: key.Namespace, Host: host}})
	for _, t := range append(slices.Clone(rules.Selective), rules.General) {
		if t == nil || !slices.ContainsFunc(t.Origins, func(or source.Origin) bool { return or.Object == o.Key }) {
			continue
		}
		for _, before := range t.Origins {
			if before.Object == o.Key || o.Spec.TrafficPolicy == nil {
				break
			}
			if other, ok := r.objects.DestinationRules.Get(c, before.Object); ok && other.Spec.TrafficPolicy != nil {
				out.warnf("spec.trafficPolicy", "%s is for the same host and goes first; this policy has no effect", before.Object)
				break
			}
		}
		for i, s := range o.Spec.Subsets {
			for _, used := range t.Subsets {
				if used.Name == s.Name && used.Origin.Object != o.Key {
					out.warnf(at("spec.subsets[%d].name", i), "subset %q is defined by %s already, and the first one counts", s.Name, used.Origin.Object)
				}
			}
		}
	}
}

// gateway looks for servers that lost their port or hosts to another gateway's, on a proxy with just the labels selected.
func (r *reviewer) gateway(c *derive.Context, out *findings, o gatewayObject) {
	for _, l := range r.wishes.Listeners.Get(c, intent.NewSubject(o.Namespace, o.Spec.Selector)) {
		for _, d := range l.Dropped {
			if d.Server.Origin.Object != o.Key {
				continue
			}
			if len(d.Hosts) == 0 {
				out.warnf(d.Server.Origin.Field+".port", "port %d is taken by a server of another protocol, %s; this server is not opened", l.Port, d.Winner.Origin)
			}
			for _, h := range d.Hosts {
				out.warnf(d.Server.Origin.Field+".hosts", "%s on port %d is served by %s already", h, l.Port, d.Winner.Origin)
			}
		}
	}
}

// serviceEntry looks for hosts that another object declares in the same namespace.
func (r *reviewer) serviceEntry(c *derive.Context, out *findings, o serviceEntryObject) {
	own := r.declaration(o.Key, o)
	for i, h := range own.Hosts {
		svc := r.facts.Service.Get(c, registry.ServiceKey{Namespace: o.Namespace, Host: h})
		if svc == nil || svc.Object == o.Key {
			continue
		}
		field := at("spec.hosts[%d]", i)
		switch {
		case svc.Kube:
			out.warnf(field, "%s is %s, which goes first; only subjectAltNames have an effect", h, svc.Object)
		case svc.Resolution != own.Resolution || svc.External != own.External:
			out.warnf(field, "%s is declared by %s, too, which goes first; its resolution and location differ, so only subjectAltNames have an effect", h, svc.Object)
		}
		for j, p := range own.Ports {
			if used, ok := svc.Port(p.Number); ok && used.Protocol != p.Protocol {
				out.warnf(at("spec.ports[%d].protocol", j), "port %d of %s is %s after %s, which goes first", p.Number, h, used.Protocol, svc.Object)
			}
		}
	}
}
