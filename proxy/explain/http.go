// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/sanitize"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// http explains what a connection manager does with a request, in the order in
// which l7 does it: make it fit, match, run the filters, forward.
func (a *Answer) http(r *request, cfg *config.HTTP, routes *config.RouteRef, conn *filter.Conn) {
	m := &r.message
	asked := m.Path
	facts, f := sanitize.Request(m, cfg, conn, sanitize.CertElement(conn, cfg))
	step := Step{Stage: StageRequest, Name: m.Method + " " + m.Authority + m.Path}
	if m.Path != asked {
		step.Notes = append(step.Notes, fmt.Sprintf("the path was %q before it was made fit", asked))
	}
	switch {
	case f != nil:
		step.Says = f.Hint
		a.fail(f.Status, step)
		return
	case facts.Location != "":
		step.Says = "redirected to " + facts.Location
		a.end(Redirect, 307, step)
		return
	}
	a.add(step)
	x := exchange(m, r, conn, &facts)
	table := routes.Load()
	if table == nil {
		missing := Step{Stage: StageRoute, Name: routes.Name(), Says: "the route table has not arrived (NR)"}
		if a.filters(cfg.Chain, nil, x) {
			a.fail(404, missing)
		}
		return
	}
	d, matched := a.match(table, m, r, conn, &facts)
	if d.Kind == route.ToCluster {
		x.Target.Cluster = table.Clusters()[d.Cluster]
	}
	if !a.filters(cfg.Chain, settings(table, d), x) {
		return
	}
	if matched {
		a.act(table, d, m, r, conn, &facts)
		return
	}
	a.fail(404, Step{Stage: StageRoute, Name: table.Table.Config().Name, Says: "no route (NR)"})
}

// settings is what the route says to filters.
func settings(table *config.RouteTable, d route.Decision) []filter.Setting {
	if d.Route == nil || d.Slot >= len(table.Settings) {
		return nil
	}
	return table.Settings[d.Slot]
}

// exchange is what filters are asked about.
func exchange(m *message.Request, r *request, conn *filter.Conn, facts *sanitize.Facts) *filter.Exchange {
	x := &filter.Exchange{
		Conn: conn, Request: m, Remote: facts.Remote, Internal: facts.Internal, GRPC: facts.GRPC, Random: r.random, GRPCStatus: -1,
	}
	x.Facts = authz.Facts{
		Verified: conn.Mutual, URISANs: conn.Peer.URISANs, DNSSANs: conn.Peer.DNSSANs, Subject: conn.Peer.Subject,
		DirectRemote: conn.DirectRemote.Addr().Unmap(), Remote: facts.Remote.Addr().Unmap(), Local: conn.Local, SNI: conn.SNI, Request: m,
	}
	return x
}

// match explains which route the request takes. It reports false if none does.
func (a *Answer) match(table *config.RouteTable, m *message.Request, r *request, conn *filter.Conn, facts *sanitize.Facts) (route.Decision, bool) {
	e := table.Explain(m, &route.Facts{
		Random: r.random, Internal: facts.Internal, GRPC: facts.GRPC, Presented: len(conn.Peer.URISANs) > 0, Validated: conn.Mutual,
	})
	step := Step{Stage: StageRoute, From: origins(e.Source), Notes: []string{"route table " + e.Table}}
	for i, d := range e.Domains {
		c := Considered{Name: "virtual host " + d.VirtualHost, Chosen: i == 0, Why: "domain " + d.Domain, From: origins(d.Source)}
		if i > 0 {
			c.Why += " is less specific"
		}
		step.Considered = append(step.Considered, c)
	}
	if e.Host == nil {
		step.Says = fmt.Sprintf("no virtual host has a domain for %q", e.Authority)
		a.add(step)
		return e.Decision, false
	}
	step.Name, step.From = e.Host.Name, origins(e.Host.Source)
	for _, c := range e.Routes {
		why := c.Why
		if why != "" {
			why = "does not fit: " + why
		}
		step.Considered = append(step.Considered, Considered{Name: "route " + unnamed(c.Route, c.Source), Chosen: c.Why == "", Why: why, From: origins(c.Source)})
	}
	if e.Kind == route.NoRoute {
		step.Says = "no route of the virtual host fits"
		a.add(step)
		return e.Decision, false
	}
	if e.Route == nil {
		step.Says = "the virtual host asks for TLS"
		a.add(step)
		return e.Decision, true
	}
	step.Name, step.From, step.Says = unnamed(e.Route.Name, e.Route.Source), origins(e.Route.Source), e.Kind.String()
	for _, c := range e.Clusters {
		why := ""
		if len(e.Clusters) > 1 {
			why = fmt.Sprintf("weight %d", c.Weight)
		}
		step.Considered = append(step.Considered, Considered{Name: "cluster " + c.Cluster, Chosen: c.Chosen, Why: why})
	}
	if e.Route.Forward != nil {
		step.Notes = append(step.Notes, forwardNotes(e.Route.Forward, facts.GRPC)...)
	}
	a.add(step)
	return e.Decision, true
}

// unnamed calls a route that has no name by what it was made from.
func unnamed(name, source string) string {
	if from := origins(source); name == "" && len(from) > 0 {
		return from[0]
	}
	if name == "" {
		return "(unnamed)"
	}
	return name
}

func forwardNotes(f *route.Forward, grpc bool) []string {
	var out []string
	note := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f.Timeout > 0 {
		note("timeout %s", f.Timeout)
	}
	if grpc && f.MaxGRPCTimeout != nil {
		note("grpc-timeout is honoured")
	}
	if p := f.Retry; p != nil && p.On != 0 && p.Count > 0 {
		note("up to %d retries on %s", p.Count, p.On)
	}
	rw := &f.Rewrite
	switch {
	case rw.Prefix != "":
		note("path prefix becomes %q", rw.Prefix)
	case rw.Path != "":
		note("path becomes %q", rw.Path)
	case rw.Regex != nil:
		note("path is rewritten: %q to %q", rw.Regex.Pattern, rw.Regex.Substitution)
	}
	if rw.HostLiteral != "" {
		note("host becomes %q", rw.HostLiteral)
	}
	for _, mirror := range f.Mirrors {
		note("mirrored to %s", mirror.Cluster)
	}
	if len(f.Hash) > 0 {
		note("the endpoint is chosen by hash")
	}
	return out
}

// act explains what is done with a request that has a route and was admitted.
func (a *Answer) act(table *config.RouteTable, d route.Decision, m *message.Request, r *request, conn *filter.Conn, facts *sanitize.Facts) {
	last := a.Steps[len(a.Steps)-1]
	switch d.Kind {
	case route.ToLocation:
		status, to := d.Location(m)
		a.end(Redirect, status, Step{Stage: StageRoute, Name: last.Name, Says: "redirected to " + to})
		return
	case route.ToClient:
		a.end(Respond, d.Route.Direct.Status, Step{Stage: StageRoute, Name: last.Name, Says: "answered by the route itself"})
		return
	}
	req := &upstream.Request{Version: m.Version, OriginalDst: conn.OriginalDst, Client: conn.Remote, Random: r.random, Upgrade: m.Protocol != ""}
	if h := d.Hash(m, facts.Remote, conn.Local); h.OK {
		req.Hash, req.HasHash = h.Value, true
	}
	ref := table.Refs[d.Cluster]
	if c := ref.Load(); c != nil && c.Spec().AutoSNI {
		req.SNI = route.WithoutPort(m.Authority)
	}
	a.toCluster(ref, req)
	if a.Next == nil {
		return
	}
	sent := message.Request{
		Version: m.Version, Method: m.Method, Scheme: m.Scheme, Authority: m.Authority, Path: m.Path, Protocol: m.Protocol, Header: m.Header.Clone(),
	}
	table.Rewrite(&d, &sent, literally{table})
	a.Next.Method, a.Next.Authority, a.Next.Path = sent.Method, sent.Authority, sent.Path
	for _, h := range sent.Header.Fields() {
		a.Next.Headers = append(a.Next.Headers, Header{h.Name, h.Value})
	}
}

// literally leaves %COMMANDS% of headers and paths as they are written: what they
// stand for is known only when a request is served.
type literally struct{ table *config.RouteTable }

var _ route.Expander = literally{}

func (l literally) Expand(dst []byte, slot int) []byte {
	return append(dst, l.table.Table.Formats()[slot]...)
}
