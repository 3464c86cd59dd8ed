// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"strconv"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// Facts is what a decision may depend on besides the request itself. The caller
// keeps one per exchange and passes a pointer; it is not kept.
type Facts struct {
	Random    uint64 // the exchange's random number: weights and fractions
	Internal  bool   // as Envoy understands it, for RequireExternal
	GRPC      bool   // the content type is application/grpc…
	Presented bool   // the client presented a certificate
	Validated bool   // and it was verified
	Metadata  match.Metadata
}

// A Kind is what a Decision says to do.
type Kind uint8

// The kinds of Decision.
const (
	NoVirtualHost Kind = iota // 404, NR
	NoRoute                   // 404, NR
	ToCluster
	ToLocation // Decision.Location
	ToClient   // Decision.Route.Direct
)

var kindNames = [...]string{"no virtual host", "no route", "forward", "redirect", "direct response"}

func (k Kind) String() string { return kindNames[k] }

// A Decision is where a request goes. It points into its Table.
type Decision struct {
	Kind  Kind
	Host  *Host  // nil for NoVirtualHost
	Route *Entry // nil for NoVirtualHost and NoRoute, and if the host requires TLS
	// Choice is the index into Route.Forward.Clusters.
	Choice int
	// Cluster is the slot of the cluster in Table.Clusters; -1 if Kind is not ToCluster.
	Cluster int
	// Slot numbers the choice within the table, 0 ≤ Slot < Table.Slots: what
	// filters are told by the route is kept by it. -1 without a Route.
	Slot int
}

// Match decides where r goes. It is pure and does not allocate.
func (t *Table) Match(r *message.Request, f *Facts) Decision {
	d := Decision{Cluster: -1, Slot: -1}
	i := t.domains.find(r.Authority, t.cfg.IgnorePort)
	if i < 0 {
		return d
	}
	d.Host = &t.hosts[i]
	if d.Host.needsTLS(r, f) {
		d.Kind = ToLocation
		return d
	}
	d.Kind = NoRoute
	path, query := match.PathOf(r.Path)
	for j := range d.Host.entries {
		e := &d.Host.entries[j]
		if why, _ := e.lose(r, path, query, f); why != won {
			continue
		}
		e.decide(&d, r, f)
		break
	}
	return d
}

func (h *Host) needsTLS(r *message.Request, f *Facts) bool {
	if h.RequireTLS == RequireNone || h.RequireTLS == RequireExternal && f.Internal {
		return false
	}
	proto, ok := r.Header.Lookup("x-forwarded-proto")
	if !ok {
		proto = r.Scheme
	}
	return !match.EqualFold(proto, "https")
}

func (e *Entry) decide(d *Decision, r *message.Request, f *Facts) {
	d.Route, d.Slot = e, e.slot
	switch {
	case e.Redirect != nil:
		d.Kind = ToLocation
	case e.Direct != nil:
		d.Kind = ToClient
	default:
		d.Kind = ToCluster
		d.Choice = e.choose(r, f)
		d.Slot += d.Choice
		d.Cluster = e.choices[d.Choice].cluster
	}
}

// choose picks a weighted cluster.
func (e *Entry) choose(r *message.Request, f *Facts) int {
	if e.total == 0 {
		return 0
	}
	random := f.Random
	if name := e.Forward.Random; name != "" {
		if v, ok := r.Header.Lookup(name); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				random = n
			}
		}
	}
	at := random % e.total
	for i := range e.choices {
		if at < e.choices[i].weight {
			return i
		}
		at -= e.choices[i].weight
	}
	return len(e.choices) - 1 // not reached: the weights sum to total
}

// A loss is why a route was not taken.
type loss uint8

const (
	won loss = iota
	lostPath
	lostHeader
	lostQuery
	lostMetadata
	lostGRPC
	lostCertificate
	lostFraction
)

// lose says why the route does not take the request, and for conditions that
// are lists, which one fails.
func (e *Entry) lose(r *message.Request, path, query string, f *Facts) (loss, int) {
	if !e.matchPath(r, path) {
		return lostPath, 0
	}
	m := &e.Match
	for i := range m.Headers {
		if !m.Headers[i].Match(r) {
			return lostHeader, i
		}
	}
	for i := range m.Query {
		if !m.Query[i].Match(query) {
			return lostQuery, i
		}
	}
	for i := range m.Metadata {
		if !m.Metadata[i].Match(f.Metadata) {
			return lostMetadata, i
		}
	}
	if m.GRPC && !f.GRPC {
		return lostGRPC, 0
	}
	if m.Presented != nil && *m.Presented != f.Presented || m.Validated != nil && *m.Validated != f.Validated {
		return lostCertificate, 0
	}
	if m.Fraction != nil && f.Random%uint64(m.Fraction.Per) >= uint64(m.Fraction.Of) {
		return lostFraction, 0
	}
	return won, 0
}

// matchPath compares the path, which is without query and fragment. A CONNECT
// has none and is matched by PathConnect alone.
func (e *Entry) matchPath(r *message.Request, path string) bool {
	kind := e.Match.Path.Kind
	if kind == PathConnect {
		return match.Method(r) == "CONNECT"
	}
	if path == "" {
		return false
	}
	switch kind {
	case PathTemplate:
		return e.template.Match(path)
	case PathSegments:
		n := len(e.Match.Path.Value)
		return e.prefix.Match(path) && (len(path) == n || path[n] == '/')
	}
	return e.prefix.Match(path)
}
