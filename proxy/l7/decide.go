// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/clock"
	"github.com/meltemi/meltemi/proxy/route"
)

// match finds the request's route, in the table of the moment, and the cluster
// it leads to. That there is none is found out when it is acted upon: policies
// come first.
func (x *exchange) match() {
	x.grounds()
	x.table = x.seat.routes.Load()
	if x.table == nil {
		return
	}
	x.decision = x.table.Match(x.Request, &x.facts)
	d := &x.decision
	if d.Host != nil {
		x.Target.VirtualHost = d.Host.Name
	}
	if d.Route == nil {
		return
	}
	x.Target.Route = d.Route.Name
	if d.Route.Decorator != nil {
		x.Target.Operation = d.Route.Decorator.Operation
	}
	if d.Kind != route.ToCluster {
		return
	}
	ref := x.table.Refs[d.Cluster]
	x.Target.Cluster = ref.Name()
	if x.cluster = ref.Load(); x.cluster != nil {
		x.Upstream.Spec = x.cluster.Spec()
	}
	if idle := d.Route.Forward.IdleTimeout; idle != nil {
		x.idleLimit.Store(int64(*idle))
	}
	h := x.site.http
	x.limits.Set(x.Request, clock.Caller{GRPC: x.GRPC, Internal: x.Internal, Expected: h.Router.RespectExpected}, h.MaxStreamDuration, d.Route.Forward)
	put(&x.lastsUntil, x.limits.Duration)
}

// grounds fills in what policy and routing may decide by.
func (x *exchange) grounds() {
	c := x.Conn
	x.Facts = authz.Facts{
		Verified: c.Mutual, URISANs: c.Peer.URISANs, DNSSANs: c.Peer.DNSSANs, Subject: c.Peer.Subject,
		DirectRemote: c.DirectRemote.Addr().Unmap(), Remote: x.Remote.Addr().Unmap(), Local: unmapped(c.Local),
		SNI: c.SNI, Request: x.Request, Metadata: x.Facts.Metadata,
	}
	x.facts.Random, x.facts.Internal, x.facts.GRPC = x.Random, x.Internal, x.GRPC
	x.facts.Presented = c.TLS != nil && len(c.TLS.PeerCertificates) > 0
	x.facts.Validated, x.facts.Metadata = c.Mutual, x.Facts.Metadata
}

// admit runs the filter chain.
func (x *exchange) admit() (filter.Permit, *fault.Fault) {
	var settings []filter.Setting
	if x.decision.Route != nil && x.decision.Slot < len(x.table.Settings) {
		settings = x.table.Settings[x.decision.Slot]
	}
	x.Prepare(x, settings)
	if x.Local.Status != 0 {
		return filter.Permit{}, nil // answered before any filter was asked
	}
	return x.site.http.Chain.Admit(&x.Exchange)
}

// act does what was decided.
func (x *exchange) act(permit filter.Permit) *fault.Fault {
	if x.Local.Status != 0 {
		x.answer()
		return nil
	}
	if !permit.Valid() {
		return unpermitted
	}
	d := &x.decision
	switch {
	case x.table == nil:
		if f := x.seat.routes.Why(); f != nil {
			return f
		}
		return x.site.faults.noTable
	case d.Kind == route.ToLocation:
		status, location := d.Location(x.Request)
		x.Answer(status, "direct_response", "")
		x.table.ResponseHeaders(d, &x.Response.Header, x)
		x.Response.Header.Set("location", location)
		x.answer()
	case d.Kind == route.ToClient:
		x.Answer(d.Route.Direct.Status, "direct_response", d.Route.Direct.Body)
		x.table.ResponseHeaders(d, &x.Response.Header, x)
		x.answer()
	case d.Kind == route.ToCluster:
		return x.forward(permit)
	case d.Host == nil:
		return x.site.faults.noHost
	default:
		return x.site.faults.noRoute
	}
	return nil
}
