// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A Mesh answers what routes need to know of it.
type Mesh interface {
	// Cluster is the name of the cluster for a destination; port 0 means the service's only one, or else
	// the one that the request was sent to.
	Cluster(host mesh.Hostname, port int, subset string) string
	// Hash is what keeps a client of that destination at its endpoint; nil if nothing does.
	Hash(host mesh.Hostname, port int, subset string) *intent.Hash
}

// A Compiler compiles the routes of hosts as one client sees them on one port.
type Compiler struct {
	Mesh    Mesh
	Retries *intent.Retries // of routes that do not say
	Port    int
	TLS     bool // the port's requests come out of TLS
	// Gateways whose routes these are; for sidecars empty, and these are told by namespace and labels.
	Gateways  []intent.GatewayName
	Namespace mesh.Namespace
	Labels    mesh.Labels
}

// Routes are Envoy's, one for each match. Those behind one that takes every request can never be reached
// and are left out, as are those that no request to this port or of this client meets.
func (c *Compiler) Routes(routes []intent.HTTPRoute) []*routev3.Route {
	var out []*routev3.Route
	for i := range routes {
		w := &routes[i]
		if len(w.Matches) == 0 {
			return append(out, c.route(w, nil))
		}
		for j := range w.Matches {
			m := &w.Matches[j]
			if !c.Holds(m.Port, m.SourceNS, m.SourceLabels, m.Gateways) {
				continue
			}
			out = append(out, c.route(w, m))
			if takesAll(m) {
				return out
			}
		}
	}
	return out
}

// Holds says whether the part of a match that is not about a request can be true here.
func (c *Compiler) Holds(port int, ns mesh.Namespace, labels mesh.Labels, gateways []intent.GatewayName) bool {
	if port != 0 && port != c.Port || ns != "" && ns != c.Namespace || !labels.Match(c.Labels) {
		return false
	}
	if len(c.Gateways) > 0 {
		return slices.ContainsFunc(gateways, func(g intent.GatewayName) bool { return slices.Contains(c.Gateways, g) })
	}
	return slices.Contains(gateways, intent.GatewayMesh)
}

// takesAll says whether m, which holds here, holds for every request.
func takesAll(m *intent.HTTPMatch) bool {
	rest := *m
	rest.Port, rest.SourceNS, rest.SourceLabels = 0, "", nil
	return rest.TakesAll()
}

func (c *Compiler) route(w *intent.HTTPRoute, m *intent.HTTPMatch) *routev3.Route {
	out := &routev3.Route{Match: match(m)}
	name := w.Name
	origins := []source.Origin{w.Origin}
	if m != nil {
		if m.Name != "" {
			name += "." + m.Name
		}
		out.StatPrefix = m.StatPrefix
		origins = []source.Origin{m.Origin, w.Origin}
	}
	out.Name = strings.TrimPrefix(name, ".")
	out.Metadata = emit.From(append(origins, w.Origins...)...)
	headers, responses := headerOps(w.Headers.Request), headerOps(w.Headers.Response)
	out.RequestHeadersToRemove, out.RequestHeadersToAdd = headers.remove, headers.add
	out.ResponseHeadersToRemove, out.ResponseHeadersToAdd = responses.remove, responses.add
	switch {
	case w.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(w.Redirect, c.TLS)}
	case w.Direct != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: direct(w.Direct)}
	case len(w.Forward) == 0: // a broken wish; what it would have matched goes nowhere
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 500}}
	default:
		out.Action = &routev3.Route_Route{Route: c.action(w, headers.host)}
		out.Decorator = &routev3.Decorator{Operation: c.operation(w, m)}
	}
	out.TypedPerFilterConfig = perFilter(w)
	return out
}

// operation names spans of the route: host:port/uri of the first destination.
func (c *Compiler) operation(w *intent.HTTPRoute, m *intent.HTTPMatch) string {
	uri := "/*"
	if m != nil && m.URI != nil {
		uri = m.URI.Value
		if m.URI.Kind == intent.Prefix {
			uri += "*"
		}
	}
	port := w.Forward[0].Port
	if port == 0 {
		port = c.Port
	}
	return string(w.Forward[0].Host) + ":" + strconv.Itoa(port) + uri
}

// Default is the route of a service that nobody routes.
func (c *Compiler) Default(s *registry.Service) *routev3.Route {
	w := intent.HTTPRoute{Name: "default", Origin: source.Origin{Object: s.Object}, Forward: []intent.Destination{{Host: s.Host, Port: c.Port}}}
	return c.route(&w, nil)
}
