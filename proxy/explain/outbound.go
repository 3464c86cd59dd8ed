// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/listen"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// outbound: the workload, or whoever calls a gateway, opens a connection.
func (w World) outbound(ctx context.Context, a *Answer, r *request) error {
	l, dst, err := w.enter(ctx, a, r)
	if err != nil || l == nil {
		return err
	}
	facts := r.facts(dst)
	conn := &filter.Conn{Direction: l.Direction, Listener: l.Name, Local: dst, SNI: facts.SNI}
	if l.HandOff || !l.Bind { // captured; else the client dialled the proxy itself
		conn.OriginalDst = dst
	}
	chain := a.choose(l, &facts)
	if chain == nil {
		return nil
	}
	conn.Chain = chain.Name
	if chain.TLS != nil {
		a.add(Step{Stage: StageTLS, Name: "terminated", Says: "the listener terminates TLS with a certificate of its own", From: origins(l.Source)})
	}
	return w.through(ctx, a, r, chain, conn)
}

// enter finds the listener that takes the connection: the one that captures what
// the workload dials, else its forward proxy, else the one on the URL's port.
func (w World) enter(ctx context.Context, a *Answer, r *request) (*config.Listener, netip.AddrPort, error) {
	var capture, forward *config.Listener
	for _, l := range w.Snapshot.Listeners {
		switch {
		case !l.Bind || l.Direction == filter.Inbound:
		case l.HandOff:
			capture = l
		case len(l.Addrs) > 0 && l.Addrs[0].IP.Addr().IsLoopback():
			forward = l
		}
	}
	if capture != nil && w.deaf(a, capture) {
		return nil, netip.AddrPort{}, nil
	}
	if capture != nil {
		dst, err := w.resolve(ctx, a, r)
		if err != nil || !dst.IsValid() {
			return nil, dst, err
		}
		step := Step{Stage: StageListener, Name: capture.Name, From: origins(capture.Source)}
		l := listen.HandOff(w.Snapshot, dst)
		if l == nil || l == capture {
			step.Says = fmt.Sprintf("captures the connection to %s; no listener is there for this destination alone", dst)
			a.add(step)
			return capture, dst, nil
		}
		step.Name, step.From = l.Name, origins(l.Source)
		step.Says = fmt.Sprintf("%s captures the connection to %s and hands it over", capture.Name, dst)
		a.add(step)
		return l, dst, nil
	}
	if forward != nil {
		if w.deaf(a, forward) {
			return nil, netip.AddrPort{}, nil
		}
		if !r.isHTTP() && r.url.Scheme != "https" {
			a.end(Bypass, 0, Step{Stage: StageListener, Says: "nothing is captured here, and the forward proxy takes HTTP alone: the workload dials " + r.url.Host + " itself"})
			return nil, netip.AddrPort{}, nil
		}
		a.add(Step{Stage: StageListener, Name: forward.Name, Says: "the workload's forward proxy (HTTP_PROXY)", From: origins(forward.Source)})
		if r.url.Scheme == "https" {
			r.message.Method, r.message.Path = "CONNECT", ""
		}
		return forward, forward.Addrs[0].IP, nil
	}
	for _, l := range w.Snapshot.Listeners {
		if !l.Bind || l.Direction == filter.Inbound {
			continue
		}
		for _, addr := range l.Addrs {
			if addr.IP.IsValid() && addr.IP.Port() == r.port {
				if w.deaf(a, l) {
					return nil, netip.AddrPort{}, nil
				}
				a.add(Step{Stage: StageListener, Name: l.Name, Says: "listens on " + addr.String(), From: origins(l.Source)})
				return l, addr.IP, nil
			}
		}
	}
	a.fail(0, Step{Stage: StageListener, Says: fmt.Sprintf("nothing listens on port %d", r.port)})
	return nil, netip.AddrPort{}, nil
}

// deaf reports whether l does not listen; then that is the end.
func (w World) deaf(a *Answer, l *config.Listener) bool {
	why := w.Unopened[l.Name]
	if why != nil {
		a.fail(0, Step{Stage: StageListener, Name: l.Name, Says: "should listen and does not: " + why.Error(), From: origins(l.Source)})
	}
	return why != nil
}

// resolve finds out which address the workload would dial.
func (w World) resolve(ctx context.Context, a *Answer, r *request) (netip.AddrPort, error) {
	if r.dst.IsValid() {
		return r.dst, nil
	}
	host := r.url.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr, r.port), nil
	}
	if w.Lookup == nil {
		return netip.AddrPort{}, fmt.Errorf("this proxy answers no names: give the address that %q stands for", host)
	}
	addrs, err := w.Lookup(ctx, host)
	if err != nil || len(addrs) == 0 {
		says := fmt.Sprintf("%q has no address: no service of the mesh has this name, nor does DNS know it", host)
		if err != nil {
			says = fmt.Sprintf("%q cannot be looked up: %v", host, err)
		}
		a.fail(0, Step{Stage: StageName, Name: host, Says: says})
		return netip.AddrPort{}, nil
	}
	a.add(Step{Stage: StageName, Name: host, Says: "has the address " + addrs[0].String()})
	return netip.AddrPortFrom(addrs[0], r.port), nil
}

// choose explains the choice of the filter chain. It returns nil if there is none.
func (a *Answer) choose(l *config.Listener, f *config.ConnFacts) *config.FilterChain {
	tls, http := listen.Inspects(l, f.Local)
	if f.Transport == "tls" && !tls {
		f.Transport, f.SNI, f.Protocols = "raw_buffer", "", nil // nobody looks
	}
	if f.Transport != "tls" && !http {
		f.Protocols = nil
	}
	chain, steps := l.ExplainChoice(f)
	step := Step{Stage: StageChain, From: origins(l.Source), Notes: steps}
	for _, c := range l.Chains {
		step.Considered = append(step.Considered, Considered{Name: chainName(c), Chosen: c == chain, Why: wants(&c.Match), From: origins(c.Source)})
	}
	if l.Default != nil {
		step.Considered = append(step.Considered, Considered{Name: chainName(l.Default), Chosen: l.Default == chain, Why: "whatever no other chain takes", From: origins(l.Default.Source)})
	}
	if chain == nil {
		step.Says = "no filter chain takes this connection: it is closed (NR)"
		if f.Transport != "tls" && l.Direction == filter.Inbound {
			step.Says = "no filter chain takes plaintext here: mutual TLS is required (NR)"
		}
		a.fail(0, step)
		return nil
	}
	step.Name, step.Says = chainName(chain), carries(chain)
	if chain.Source != "" {
		step.From = origins(chain.Source)
	}
	a.add(step)
	return chain
}

// wants says which connections a chain is for.
func wants(m *config.ChainMatch) string {
	var parts []string
	add := func(what string, list ...string) {
		if len(list) > 0 {
			parts = append(parts, what+" "+strings.Join(list, ", "))
		}
	}
	if m.Port != 0 {
		add("port", strconv.Itoa(int(m.Port)))
	}
	for _, p := range m.Destinations {
		add("to", p.String())
	}
	add("server name", m.ServerNames...)
	switch m.Transport {
	case "tls":
		add("TLS", "")
	case "raw_buffer":
		add("plaintext", "")
	}
	add("protocols", m.Protocols...)
	for _, list := range [][]netip.Prefix{m.DirectSource, m.Sources} {
		for _, p := range list {
			add("from", p.String())
		}
	}
	switch m.SourceType {
	case config.SourceLocal:
		add("from this machine", "")
	case config.SourceExternal:
		add("from elsewhere", "")
	}
	if len(m.SourcePorts) > 0 {
		add("source ports", fmt.Sprint(m.SourcePorts))
	}
	if len(parts) == 0 {
		return "any connection"
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return strings.Join(parts, "; ")
}

func chainName(c *config.FilterChain) string {
	if c.Name == "" {
		return "(unnamed)"
	}
	return c.Name
}

func carries(c *config.FilterChain) string {
	s := "looks at HTTP requests"
	switch {
	case c.OnDemand != nil:
		s = "asks the control plane what the destination is"
	case c.HTTP == nil:
		s = "passes bytes on"
	}
	if c.TLS != nil {
		s = "terminates TLS, " + s
	}
	return s
}

// through explains what the chain does with the request.
func (w World) through(ctx context.Context, a *Answer, r *request, chain *config.FilterChain, conn *filter.Conn) error {
	if chain.OnDemand != nil {
		return w.demand(ctx, a, r, chain, conn)
	}
	if !a.mayConnect(chain, conn) {
		return nil
	}
	switch {
	case chain.HTTP != nil && r.url.Scheme == "tcp":
		a.fail(400, Step{Stage: StageRequest, Says: "this chain expects HTTP, and the query is about plain bytes"})
	case chain.HTTP != nil:
		a.http(r, chain.HTTP, chain.HTTP.Routes, conn)
	default:
		a.tcp(chain.TCP, chain.TCP.Pick(r.random), r, conn)
	}
	return nil
}

// demand explains a chain that learns of destinations as it meets them.
func (w World) demand(ctx context.Context, a *Answer, r *request, chain *config.FilterChain, conn *filter.Conn) error {
	if w.Demand == nil {
		return fmt.Errorf("chain %q learns of its destinations on demand, which cannot be asked about here", chain.Name)
	}
	to, err := w.Demand(ctx, conn.OriginalDst, r.url.Hostname())
	if err != nil {
		a.fail(503, Step{Stage: StageRoute, Says: "what the destination is could not be learned: " + err.Error()})
		return nil
	}
	if !a.mayConnect(chain, conn) {
		return nil
	}
	if !to.Found {
		a.add(Step{Stage: StageRoute, Name: conn.OriginalDst.String(), Says: "no service of the mesh has this address: the mesh's policy for unknown destinations applies"})
		a.tcp(chain.OnDemand.TCP, chain.OnDemand.TCP.Pick(r.random), r, conn)
		return nil
	}
	a.add(Step{Stage: StageName, Name: to.Name, Says: "is what the control plane knows at " + conn.OriginalDst.String()})
	switch {
	case to.Listener != nil:
		return w.handedOver(ctx, a, r, to.Listener, conn)
	case to.Routes != nil && r.isHTTP():
		a.http(r, chain.OnDemand.HTTP, to.Routes, conn)
	case to.Cluster != nil:
		a.tcp(chain.OnDemand.TCP, to.Cluster, r, conn)
	default:
		a.fail(0, Step{Stage: StageRoute, Name: to.Name, Says: "only HTTP goes there"})
	}
	return nil
}

// handedOver explains what the listener of a destination does.
func (w World) handedOver(ctx context.Context, a *Answer, r *request, l *config.Listener, conn *filter.Conn) error {
	facts := r.facts(conn.Local)
	conn.Listener = l.Name
	chain := a.choose(l, &facts)
	if chain == nil {
		return nil
	}
	if chain.OnDemand != nil {
		return fmt.Errorf("listener %s asks for destinations a second time", l.Name)
	}
	conn.Chain = chain.Name
	return w.through(ctx, a, r, chain, conn)
}

// tcp explains where plain bytes go.
func (a *Answer) tcp(t *config.TCP, ref *upstream.Ref, r *request, conn *filter.Conn) {
	step := Step{Stage: StageRoute, Name: t.StatPrefix, Says: "bytes go to cluster " + ref.Name()}
	if len(t.Clusters) > 1 {
		for _, c := range t.Clusters {
			step.Considered = append(step.Considered, Considered{
				Name: c.Cluster, Chosen: c.Ref == ref, Why: fmt.Sprintf("%d of %d connections", c.Weight, t.Total),
			})
		}
	}
	a.add(step)
	a.toCluster(ref, &upstream.Request{OriginalDst: conn.OriginalDst, Client: conn.Remote, SNI: conn.SNI, Random: r.random})
}
