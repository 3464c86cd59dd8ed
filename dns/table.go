// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"slices"
	"strings"
)

// An Entry is a name and its addresses, as in Istio's NameTable.
type Entry struct {
	Host  string // "reviews.default.svc.cluster.local", "api.example.com", "*.example.com"
	Addrs []netip.Addr
	// Kubernetes says that Host is a cluster service's name, which may be shortened.
	Kubernetes bool
}

// Scope is where a workload asks from.
type Scope struct {
	Namespace string // what a name without a namespace belongs to
	Domain    string // "cluster.local" unless set
	// Search is the first search domain of the workload's resolver. Resolvers append it before they ask
	// for the name itself; a known name with it appended is answered at once, as an alias.
	Search string
}

func (s Scope) domain() string {
	if s.Domain == "" {
		return "cluster.local"
	}
	return s.Domain
}

// Candidates returns the full names that name may mean, most literal first. No trailing dots.
func (s Scope) Candidates(name string) []string {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return append([]string{name}, s.services(name)...)
}

// services returns the cluster services that name may be short for.
func (s Scope) services(name string) []string {
	d := s.domain()
	switch {
	case name == "" || strings.HasSuffix(name, "."+d):
		return nil
	case strings.HasSuffix(name, ".svc"):
		return []string{name + "." + d}
	case strings.Contains(name, "."):
		return []string{name + ".svc." + d}
	case s.Namespace != "":
		return []string{name + "." + s.Namespace + ".svc." + d}
	}
	return nil
}

// A Table holds the names of the mesh. It never changes.
type Table struct {
	exact map[string]*record // lower case, no trailing dot
	wild  map[string]*record // by what follows "*."
}

// record is what is known about a name.
type record struct {
	v4, v6     []netip.Addr
	kubernetes bool
}

// NewTable builds a table. Of two entries with one host the first counts.
func NewTable(entries []Entry) *Table {
	t := &Table{exact: make(map[string]*record, len(entries)), wild: map[string]*record{}}
	for _, e := range entries {
		host := strings.TrimSuffix(strings.ToLower(e.Host), ".")
		names := t.exact
		if suffix, ok := strings.CutPrefix(host, "*."); ok {
			host, names = suffix, t.wild
		}
		if _, taken := names[host]; taken || host == "" {
			continue
		}
		names[host] = newRecord(e.Addrs, e.Kubernetes)
	}
	return t
}

func newRecord(addrs []netip.Addr, kubernetes bool) *record {
	r := &record{kubernetes: kubernetes}
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); a.Is4() {
			r.v4 = append(r.v4, a)
		} else if a.Is6() {
			r.v6 = append(r.v6, a)
		}
	}
	return r
}

// Len returns the number of names.
func (t *Table) Len() int { return len(t.exact) + len(t.wild) }

// Lookup returns the addresses of name as seen from s, and whether the mesh knows it. alias is what name stands
// for if the search domain had been appended to it.
func (t *Table) Lookup(s Scope, name string) (addrs []netip.Addr, alias string, ok bool) {
	r, alias := t.find(s, strings.TrimSuffix(strings.ToLower(name), "."))
	if r == nil {
		return nil, "", false
	}
	return slices.Concat(r.v4, r.v6), alias, true
}

// find looks name up: as it is, without the search domain, then the same under wildcards, longest first.
func (t *Table) find(s Scope, name string) (r *record, alias string) {
	if r := t.literal(s, name); r != nil {
		return r, ""
	}
	short, searched := "", false
	if s.Search != "" {
		short, searched = strings.CutSuffix(name, "."+strings.TrimSuffix(strings.ToLower(s.Search), "."))
	}
	if searched {
		if r := t.literal(s, short); r != nil {
			return r, short
		}
		if r := t.wildcard(short); r != nil {
			return r, short
		}
	}
	return t.wildcard(name), ""
}

func (t *Table) literal(s Scope, name string) *record {
	if r := t.exact[name]; r != nil {
		return r
	}
	for _, full := range s.services(name) {
		if r := t.exact[full]; r != nil && r.kubernetes {
			return r
		}
	}
	return nil
}

func (t *Table) wildcard(name string) *record {
	for len(t.wild) > 0 {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return nil
		}
		if r := t.wild[rest]; r != nil {
			return r
		}
		name = rest
	}
	return nil
}
