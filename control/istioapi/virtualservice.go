// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi/check"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

type virtualServiceObject = *source.Object[*source.VirtualService]

// compiler turns objects that passed their check into facts and wishes.
type compiler struct {
	domain        string // DNS suffix of Kubernetes services
	routeExportTo intent.Exports
	ruleExportTo  intent.Exports
	entryExportTo intent.Exports
}

func (p compiler) hosts(ns mesh.Namespace, hosts []string) []mesh.Hostname {
	var all []mesh.Hostname
	for _, h := range hosts {
		all = append(all, mesh.ExpandHost(h, ns, p.domain))
	}
	return all
}

// gatewayNames are the gateways that a list in an object of namespace ns names; none means the mesh.
func gatewayNames(ns mesh.Namespace, list []string) []intent.GatewayName {
	if len(list) == 0 {
		return []intent.GatewayName{intent.GatewayMesh}
	}
	var all []intent.GatewayName
	for _, g := range list {
		if g != string(intent.GatewayMesh) && !strings.Contains(g, "/") {
			g = string(ns) + "/" + g
		}
		all = append(all, intent.GatewayName(g))
	}
	return all
}

// routeHead is what a VirtualService is found by.
func (p compiler) routeHead(k source.Key, o virtualServiceObject) *intent.RouteHead {
	h := &intent.RouteHead{
		Hosts:    p.hosts(k.Namespace, o.Spec.Hosts),
		ExportTo: exportTo(o.Spec.ExportTo, p.routeExportTo, k.Namespace),
	}
	if len(h.Hosts) == 0 {
		return h // a delegate
	}
	h.Gateways = gatewayNames(k.Namespace, o.Spec.Gateways)
	add := func(list []string) {
		for _, g := range gatewayNames(k.Namespace, list) {
			if len(list) > 0 && !slices.Contains(h.Gateways, g) {
				h.Gateways = append(h.Gateways, g)
			}
		}
	}
	for _, r := range o.Spec.Http {
		for _, m := range r.Match {
			add(m.Gateways)
		}
	}
	for _, r := range o.Spec.Tls {
		for _, m := range r.Match {
			add(m.Gateways)
		}
	}
	for _, r := range o.Spec.Tcp {
		for _, m := range r.Match {
			add(m.Gateways)
		}
	}
	return h
}

// routeSet compiles a VirtualService.
func (p compiler) routeSet(k source.Key, o virtualServiceObject) *intent.RouteSet {
	origin := source.Origin{Object: k, Field: "spec"}
	set := &intent.RouteSet{
		Object: k, Hosts: p.hosts(k.Namespace, o.Spec.Hosts),
		ExportTo: exportTo(o.Spec.ExportTo, p.routeExportTo, k.Namespace),
	}
	if len(set.Hosts) > 0 {
		set.Gateways = gatewayNames(k.Namespace, o.Spec.Gateways)
	}
	r := router{compiler: p, ns: k.Namespace, gateways: set.Gateways}
	for i, h := range o.Spec.Http {
		set.HTTP = append(set.HTTP, r.http(origin.At("http", i), h))
	}
	for i, t := range o.Spec.Tls {
		set.TLS = append(set.TLS, r.tls(origin.At("tls", i), t))
	}
	for i, t := range o.Spec.Tcp {
		set.TCP = append(set.TCP, r.tcp(origin.At("tcp", i), t))
	}
	return set
}

// router compiles the routes of one object.
type router struct {
	compiler
	ns       mesh.Namespace
	gateways []intent.GatewayName // of the whole object; none for a delegate
}

// boundTo are the gateways of a match: its own, or else the object's.
func (r router) boundTo(own []string) []intent.GatewayName {
	if len(own) == 0 {
		return r.gateways
	}
	return gatewayNames(r.ns, own)
}

func (r router) tls(origin source.Origin, t *networking.TLSRoute) intent.L4Route {
	out := intent.L4Route{Origin: origin, Forward: r.l4Destinations(origin, t.Route)}
	for i, m := range t.Match {
		out.Matches = append(out.Matches, intent.L4Match{
			Origin: origin.At("match", i), SNI: r.names(m.SniHosts), Subnets: subnets(m.DestinationSubnets),
			Port: int(m.Port), SourceLabels: m.SourceLabels, SourceNS: mesh.Namespace(m.SourceNamespace),
			Gateways: r.boundTo(m.Gateways),
		})
	}
	return out
}

func (r router) tcp(origin source.Origin, t *networking.TCPRoute) intent.L4Route {
	out := intent.L4Route{Origin: origin, Forward: r.l4Destinations(origin, t.Route)}
	for i, m := range t.Match {
		out.Matches = append(out.Matches, intent.L4Match{
			Origin: origin.At("match", i), Subnets: subnets(m.DestinationSubnets), Port: int(m.Port),
			SourceLabels: m.SourceLabels, SourceNS: mesh.Namespace(m.SourceNamespace), Gateways: r.boundTo(m.Gateways),
		})
	}
	return out
}

// names are SNI names, which are never short.
func (r router) names(hosts []string) []mesh.Hostname {
	var all []mesh.Hostname
	for _, h := range hosts {
		all = append(all, mesh.NormalHost(h))
	}
	return all
}

func subnets(list []string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		if p, err := check.ParsePrefix(s); err == nil {
			all = append(all, p)
		}
	}
	return all
}

func (r router) l4Destinations(origin source.Origin, list []*networking.RouteDestination) []intent.Destination {
	var all []intent.Destination
	for i, d := range list {
		all = append(all, r.destination(origin.At("route", i), d.Destination, d.Weight, len(list)))
	}
	return all
}

// destination is one of n. The only destination of a route takes everything, whatever its weight.
func (r router) destination(origin source.Origin, d *networking.Destination, weight int32, n int) intent.Destination {
	if n == 1 && weight == 0 {
		weight = 1
	}
	return intent.Destination{
		Origin: origin, Host: mesh.ExpandHost(d.Host, r.ns, r.domain), Subset: d.Subset,
		Port: int(d.GetPort().GetNumber()), Weight: uint32(weight),
	}
}
