// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// meshGateway in a list of gateways stands for all sidecars.
const meshGateway = "mesh"

// virtualService checks a VirtualService.
func (c *checker) virtualService(o *source.Object[*source.VirtualService]) {
	s := o.Spec
	delegate := len(s.Hosts) == 0
	c.routeHosts(o)
	for i, g := range s.Gateways {
		c.gatewayName(at("spec.gateways[%d]", i), g)
		if slices.Contains(s.Gateways[:i], g) {
			c.errorf(at("spec.gateways[%d]", i), "%q is there twice", g)
		}
	}
	if delegate {
		if len(s.Gateways) > 0 {
			c.errorf("spec.gateways", "an object without hosts is a delegate, and a delegate has no gateways of its own")
		}
		if len(s.Tcp)+len(s.Tls) > 0 {
			c.errorf("spec", "an object without hosts is a delegate, and a delegate has http routes only")
		}
	}
	if len(s.Http)+len(s.Tcp)+len(s.Tls) == 0 {
		c.errorf("spec", "there is no route: http, tls or tcp is wanted")
	}
	c.exportTo(s.ExportTo)
	for i, h := range s.Http {
		c.httpRoute(at("spec.http[%d]", i), h, delegate)
	}
	c.unreachable(s.Http)
	for i, t := range s.Tls {
		c.tlsRoute(at("spec.tls[%d]", i), t, o)
	}
	for i, t := range s.Tcp {
		c.tcpRoute(at("spec.tcp[%d]", i), t)
	}
}

func (c *checker) routeHosts(o *source.Object[*source.VirtualService]) {
	inMesh := len(o.Spec.Gateways) == 0 || slices.Contains(o.Spec.Gateways, meshGateway)
	seen := map[mesh.Hostname]bool{}
	for i, h := range o.Spec.Hosts {
		field := at("spec.hosts[%d]", i)
		if h == "*" && inMesh {
			c.errorf(field, "* is allowed at gateways only; without gateways, or with mesh among them, hosts must be named")
			continue
		}
		if !c.host(field, h, true, !inMesh) {
			continue
		}
		full := mesh.ExpandHost(h, o.Namespace, "")
		if seen[full] {
			c.errorf(field, "%q is there twice", h)
		}
		seen[full] = true
	}
}

// gatewayName checks mesh, name or namespace/name.
func (c *checker) gatewayName(field, g string) {
	if g == meshGateway {
		return
	}
	ns, name, ok := strings.Cut(g, "/")
	if !ok {
		ns, name = "default", g
	}
	if !nameForm.MatchString(name) || !nameForm.MatchString(ns) {
		c.errorf(field, "%q is no gateway: name, namespace/name or mesh", g)
	}
}

// unreachable warns about routes behind one that takes every request.
func (c *checker) unreachable(routes []*networking.HTTPRoute) {
	for i, h := range routes {
		all := len(h.GetMatch()) == 0 || slices.ContainsFunc(h.GetMatch(), takesAll)
		if all && i+1 < len(routes) {
			c.warnf(at("spec.http[%d]", i+1), "is never reached, because http[%d] takes every request", i)
			return
		}
	}
}

// takesAll reports whether a match holds for every request to every sidecar and gateway.
func takesAll(m *networking.HTTPMatchRequest) bool {
	if m == nil {
		return false
	}
	rest := proto.CloneOf(m)
	rest.Name, rest.StatPrefix, rest.IgnoreUriCase = "", "", false
	switch u := m.GetUri().GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		if u.Prefix == "/" {
			rest.Uri = nil
		}
	case *networking.StringMatch_Regex:
		if u.Regex == ".*" || u.Regex == "/.*" {
			rest.Uri = nil
		}
	}
	return proto.Size(rest) == 0
}

func (c *checker) tlsRoute(path string, t *networking.TLSRoute, o *source.Object[*source.VirtualService]) {
	if t == nil {
		c.errorf(path, "the route is empty")
		return
	}
	if len(t.Match) == 0 {
		c.errorf(path+".match", "a TLS route needs a match with sniHosts")
	}
	for i, m := range t.Match {
		field := at("%s.match[%d]", path, i)
		if m == nil {
			c.errorf(field, "the match is empty")
			continue
		}
		if len(m.SniHosts) == 0 {
			c.errorf(field+".sniHosts", "at least one name is wanted")
		}
		for j, h := range m.SniHosts {
			f := at("%s.sniHosts[%d]", field, j)
			if c.host(f, h, true, false) && !slices.ContainsFunc(o.Spec.Hosts, func(of string) bool {
				return mesh.NormalHost(h).SubsetOf(mesh.NormalHost(of)) ||
					mesh.NormalHost(h).SubsetOf(mesh.ExpandHost(of, o.Namespace, ""))
			}) {
				c.errorf(f, "%q is none of the names in spec.hosts", h)
			}
		}
		c.l4Match(field, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways, m.SourceNamespace)
	}
	c.l4Destinations(path, t.Route)
}

func (c *checker) tcpRoute(path string, t *networking.TCPRoute) {
	if t == nil {
		c.errorf(path, "the route is empty")
		return
	}
	for i, m := range t.Match {
		field := at("%s.match[%d]", path, i)
		if m == nil {
			c.errorf(field, "the match is empty")
			continue
		}
		if m.SourceSubnet != "" {
			c.unsupported(field + ".sourceSubnet")
		}
		c.l4Match(field, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways, m.SourceNamespace)
	}
	c.l4Destinations(path, t.Route)
}

func (c *checker) l4Match(path string, subnets []string, port uint32, labels map[string]string, gateways []string, ns string) {
	for i, s := range subnets {
		c.cidr(at("%s.destinationSubnets[%d]", path, i), s)
	}
	c.port(path+".port", port, true)
	c.labels(path+".sourceLabels", labels)
	for i, g := range gateways {
		c.gatewayName(at("%s.gateways[%d]", path, i), g)
	}
	if ns != "" && !nameForm.MatchString(ns) {
		c.errorf(path+".sourceNamespace", "%q is no namespace", ns)
	}
}

func (c *checker) l4Destinations(path string, list []*networking.RouteDestination) {
	if len(list) == 0 {
		c.errorf(path+".route", "a destination is wanted")
		return
	}
	weights := make([]int32, len(list))
	for i, d := range list {
		field := at("%s.route[%d]", path, i)
		if d == nil {
			c.errorf(field, "the destination is empty")
			continue
		}
		c.destination(field+".destination", d.Destination)
		weights[i] = d.Weight
	}
	c.weights(path, weights)
}

func (c *checker) weights(path string, weights []int32) {
	sum := int64(0)
	for i, w := range weights {
		if w < 0 {
			c.errorf(at("%s.route[%d].weight", path, i), "a weight cannot be negative")
		}
		sum += int64(w)
	}
	switch {
	case len(weights) > 1 && sum == 0:
		c.errorf(path+".route", "the weights add up to nothing")
	case sum > 1<<32-1:
		c.errorf(path+".route", "the weights add up to more than 4294967295")
	}
}

func (c *checker) destination(path string, d *networking.Destination) {
	if d == nil {
		c.errorf(path, "the destination is missing")
		return
	}
	c.host(path+".host", d.Host, false, true)
	if d.Subset != "" && !labelForm.MatchString(strings.ToLower(d.Subset)) {
		c.errorf(path+".subset", "%q is no subset name", d.Subset)
	}
	if d.Port != nil {
		c.port(path+".port.number", d.Port.Number, false)
	}
}
