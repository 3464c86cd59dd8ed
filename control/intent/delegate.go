// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"maps"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// resolve replaces routes that delegate by those of the object they name. A route whose delegate
// is not there, or not visible to it, is left out, as are combinations of conditions that nothing can meet.
func (m *merger) resolve(c *derive.Context, k source.Key) *RouteSet {
	rows := m.rowsOf(k)
	if rows == nil {
		return nil
	}
	set := rows.compile.Get(c, k)
	if set == nil || !slices.ContainsFunc(set.HTTP, func(r HTTPRoute) bool { return r.Delegate != nil }) {
		return set
	}
	out := *set
	out.HTTP = nil
	for _, r := range set.HTTP {
		if r.Delegate == nil {
			out.HTTP = append(out.HTTP, r)
			continue
		}
		d := rows.compile.Get(c, *r.Delegate)
		if d == nil || len(d.Hosts) > 0 || !d.ExportTo.To(k.Namespace) {
			continue
		}
		for _, detail := range d.HTTP {
			if detail.Delegate != nil {
				continue // one level only
			}
			if merged, ok := delegated(r, detail); ok {
				out.HTTP = append(out.HTTP, merged)
			}
		}
	}
	return &out
}

// delegated is a route of a delegate under the root's conditions. What the delegate does not say the root does.
func delegated(root, d HTTPRoute) (HTTPRoute, bool) {
	out := d
	out.Origins = append(slices.Clone(d.Origins), root.Origin)
	out.Name = joinNames(root.Name, d.Name)
	switch {
	case len(d.Matches) == 0:
		out.Matches = root.Matches
	case len(root.Matches) == 0:
		out.Matches = d.Matches
	default:
		out.Matches = nil
		for i := range root.Matches {
			for j := range d.Matches {
				if m, ok := both(&root.Matches[i], &d.Matches[j]); ok {
					out.Matches = append(out.Matches, m)
				}
			}
		}
		if len(out.Matches) == 0 {
			return out, false
		}
	}
	if out.Rewrite == nil {
		out.Rewrite = root.Rewrite
	}
	if out.Timeout == 0 {
		out.Timeout = root.Timeout
	}
	if out.Retries == nil {
		out.Retries = root.Retries
	}
	if out.Fault == nil {
		out.Fault = root.Fault
	}
	if out.Mirrors == nil {
		out.Mirrors = root.Mirrors
	}
	if out.CORS == nil {
		out.CORS = root.CORS
	}
	if out.Headers.empty() {
		out.Headers = root.Headers
	}
	return out, true
}

func (h *Headers) empty() bool { return h.Request.empty() && h.Response.empty() }

func (o *HeaderOps) empty() bool { return len(o.Remove)+len(o.Set)+len(o.Add) == 0 }

func joinNames(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "-" + b
}

// both is a match that holds if root and d do; d must be narrower wherever both say something.
func both(root, d *HTTPMatch) (HTTPMatch, bool) {
	out := *d
	ok := true
	narrow := func(r, n *StringMatch, fold bool) *StringMatch {
		switch {
		case n == nil:
			return r
		case r != nil && !within(*r, *n, fold):
			ok = false
		}
		return n
	}
	if d.URI == nil {
		out.IgnoreCase = root.IgnoreCase
	}
	out.URI = narrow(root.URI, d.URI, root.IgnoreCase)
	out.Scheme = narrow(root.Scheme, d.Scheme, false)
	out.Method = narrow(root.Method, d.Method, false)
	out.Authority = narrow(root.Authority, d.Authority, false)
	out.Name = joinNames(root.Name, d.Name)
	if out.StatPrefix == "" {
		out.StatPrefix = root.StatPrefix
	}
	named := func(r, n []NamedMatch) []NamedMatch {
		all, fine := unite(r, n)
		ok = ok && fine
		return all
	}
	out.Headers = named(root.Headers, d.Headers)
	out.Query = named(root.Query, d.Query)
	out.NotHeaders = slices.Concat(root.NotHeaders, d.NotHeaders)
	out.Claims = slices.Concat(root.Claims, d.Claims)
	if root.Port != 0 {
		ok = ok && (d.Port == 0 || d.Port == root.Port)
		out.Port = root.Port
	}
	if root.SourceNS != "" {
		ok = ok && (d.SourceNS == "" || d.SourceNS == root.SourceNS)
		out.SourceNS = root.SourceNS
	}
	if len(root.SourceLabels) > 0 {
		out.SourceLabels = mesh.Labels{}
		maps.Copy(out.SourceLabels, d.SourceLabels)
		for k, v := range root.SourceLabels {
			if have, set := out.SourceLabels[k]; set && have != v {
				ok = false
			}
			out.SourceLabels[k] = v
		}
	}
	out.Gateways = root.Gateways
	if len(d.Gateways) > 0 {
		out.Gateways = nil
		for _, g := range root.Gateways {
			if slices.Contains(d.Gateways, g) {
				out.Gateways = append(out.Gateways, g)
			}
		}
		ok = ok && len(out.Gateways) > 0
	}
	return out, ok
}

// unite joins conditions on names; where both have one on a name, the second must be narrower and is kept.
func unite(root, d []NamedMatch) (all []NamedMatch, ok bool) {
	all = slices.Clone(d)
	for _, r := range root {
		i := slices.IndexFunc(d, func(n NamedMatch) bool { return n.Name == r.Name })
		if i < 0 {
			all = append(all, r)
		} else if !within(r.StringMatch, d[i].StringMatch, false) {
			return nil, false
		}
	}
	slices.SortFunc(all, func(a, b NamedMatch) int { return strings.Compare(a.Name, b.Name) })
	return all, true
}

// within reports whether every string that narrow takes is taken by wide, as far as that is easily told.
func within(wide, narrow StringMatch, fold bool) bool {
	if fold {
		wide.Value, narrow.Value = strings.ToLower(wide.Value), strings.ToLower(narrow.Value)
	}
	switch wide.Kind {
	case Present:
		return true
	case Prefix:
		return (narrow.Kind == Prefix || narrow.Kind == Exact) && strings.HasPrefix(narrow.Value, wide.Value)
	}
	return wide == narrow
}
