// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"fmt"
	"strings"
)

// Routes shows a proxy's route tables, route by route.
func (m *Mesh) Routes(ctx context.Context, workload string) error {
	p, err := m.find(workload)
	if err != nil {
		return err
	}
	d, b, err := m.dump(ctx, p)
	if err != nil {
		return err
	}
	if m.JSON {
		return m.raw(b, "RoutesConfigDump")
	}
	where := m.places()
	t := table{head: []string{"NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION", "FROM"}}
	for i := range d.routes {
		r := &d.routes[i]
		for j := range r.Hosts {
			h := &r.Hosts[j]
			for k := range h.Routes {
				from := h.Routes[k].Metadata.origins()
				if from == nil {
					from = h.Metadata.origins()
				}
				t.add(or(r.Name), or(h.Name), domains(h.Domains), h.Routes[k].Match.String(), h.Routes[k].destination(), or(where.short(ctx, from)))
			}
		}
		if len(r.Hosts) == 0 {
			t.add(or(r.Name), "-", "-", "-", "-", "-")
		}
	}
	return t.print(m.Out)
}

// domains shows the first two and counts the others.
func domains(list []string) string {
	if len(list) <= 2 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s, %s + %d more...", list[0], list[1], len(list)-2)
}

// String is the path condition, with a star for further conditions.
func (m *routeMatch) String() string {
	s := "*"
	switch {
	case m.Prefix != nil:
		s = *m.Prefix + "*"
	case m.Path != nil:
		s = *m.Path
	case m.Separated != nil:
		s = *m.Separated + "/*"
	case m.Regex != nil:
		s = "regex " + m.Regex.Regex
	case m.Connect != nil:
		s = "CONNECT"
	}
	if n := len(m.Headers); n > 0 {
		s += " + " + count(n, "header", "headers")
	}
	if n := len(m.Query); n > 0 {
		s += " + " + count(n, "parameter", "parameters")
	}
	return s
}

func (r *routeRule) destination() string {
	switch {
	case r.Route != nil && r.Route.Weighted != nil:
		return split(r.Route.Weighted.Clusters)
	case r.Route != nil:
		return or(r.Route.Cluster)
	case r.Direct != nil:
		return fmt.Sprintf("answers %d", r.Direct.Status)
	case r.Redirect != nil:
		return "redirects"
	}
	return "-"
}
