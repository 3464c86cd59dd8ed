// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strings"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// An Explanation is a decision with all that was considered for it.
type Explanation struct {
	Decision
	Table, Source string
	Authority     string // as compared: lower case, without the port if that is ignored
	// Domains are those that fit, the one that won first.
	Domains []Domain
	// Routes of the virtual host up to the one taken, in order.
	Routes []Considered
	// Clusters are the choices of the route taken, in order.
	Clusters []Share
}

// Domain is a domain that fits the authority.
type Domain struct{ Domain, VirtualHost, Source string }

// Considered is a route and why it lost; Why is "" for the one taken.
type Considered struct{ Route, Source, Why string }

// Share is a cluster and its part of the traffic.
type Share struct {
	Cluster string
	Weight  uint64
	Chosen  bool
}

// Explain decides as Match does and says why.
func (t *Table) Explain(r *message.Request, f *Facts) Explanation {
	e := Explanation{Decision: t.Match(r, f), Table: t.cfg.Name, Source: t.cfg.Source}
	e.Authority = strings.ToLower(r.Authority)
	if t.cfg.IgnorePort {
		e.Authority = WithoutPort(e.Authority)
	}
	e.Domains = t.fitting(e.Authority)
	if e.Host == nil || e.Host.needsTLS(r, f) {
		return e
	}
	path, query := match.PathOf(r.Path)
	for i := range e.Host.entries {
		entry := &e.Host.entries[i]
		why, which := entry.lose(r, path, query, f)
		e.Routes = append(e.Routes, Considered{entry.Name, entry.Source, entry.describe(why, which)})
		if why == won {
			break
		}
	}
	if e.Kind == ToCluster {
		for i := range e.Route.choices {
			c := &e.Route.choices[i]
			e.Clusters = append(e.Clusters, Share{t.clusters[c.cluster], c.weight, i == e.Choice})
		}
	}
	return e
}

// fitting returns the domains that host could belong to, the most specific first.
func (t *Table) fitting(host string) []Domain {
	var out []Domain
	add := func(domain string, h int32) {
		out = append(out, Domain{domain, t.hosts[h].Name, t.hosts[h].Source})
	}
	if h, ok := t.domains.exact[host]; ok {
		add(host, h)
	}
	for _, l := range t.domains.suffixes {
		if l.length < len(host) {
			if h, ok := l.hosts[host[len(host)-l.length:]]; ok {
				add("*"+host[len(host)-l.length:], h)
			}
		}
	}
	for _, l := range t.domains.prefixes {
		if l.length < len(host) {
			if h, ok := l.hosts[host[:l.length]]; ok {
				add(host[:l.length]+"*", h)
			}
		}
	}
	if t.domains.any != 0 {
		add("*", t.domains.any-1)
	}
	return out
}

// describe says which condition failed.
func (e *Entry) describe(why loss, which int) string {
	switch why {
	case lostPath:
		return e.Match.Path.String()
	case lostHeader:
		return e.Match.Headers[which].String()
	case lostQuery:
		return e.Match.Query[which].String()
	case lostMetadata:
		return e.Match.Metadata[which].String()
	case lostGRPC:
		return "only gRPC requests"
	case lostCertificate:
		return "client certificate"
	case lostFraction:
		return fmt.Sprintf("only %d of %d requests", e.Match.Fraction.Of, e.Match.Fraction.Per)
	}
	return ""
}

var pathNames = [...]string{"prefix", "exact", "segments", "regex", "connect", "template"}

// String describes the condition: path prefix "/a".
func (p *PathMatch) String() string {
	s := "path " + pathNames[p.Kind]
	if p.Kind != PathConnect {
		s += fmt.Sprintf(" %q", p.Value)
	}
	if p.IgnoreCase {
		s += " (ignore case)"
	}
	return s
}

// String tells the decision in a few lines.
func (e *Explanation) String() string {
	var b strings.Builder
	line := func(source, format string, args ...any) {
		fmt.Fprintf(&b, format, args...)
		if source != "" {
			b.WriteString(" [" + source + "]")
		}
		b.WriteByte('\n')
	}
	line(e.Source, "table %s: %s", e.Table, e.Kind)
	for i, d := range e.Domains {
		verb := "passed over, less specific"
		if i == 0 {
			verb = "chosen"
		}
		line(d.Source, "  virtual host %s (domain %s): %s", d.VirtualHost, d.Domain, verb)
	}
	if e.Host == nil {
		line("", "  no virtual host has a domain for %q", e.Authority)
	} else if e.Kind == ToLocation && e.Route == nil {
		line("", "  the virtual host requires TLS")
	}
	for _, r := range e.Routes {
		if r.Why == "" {
			line(r.Source, "    route %q: taken", r.Route)
		} else {
			line(r.Source, "    route %q: not matched: %s", r.Route, r.Why)
		}
	}
	for _, c := range e.Clusters {
		mark := ""
		if c.Chosen {
			mark = " (chosen)"
		}
		if e.Route.total == 0 {
			line("", "      cluster %s%s", c.Cluster, mark)
		} else {
			line("", "      cluster %s: %d of %d%s", c.Cluster, c.Weight, e.Route.total, mark)
		}
	}
	return b.String()
}
