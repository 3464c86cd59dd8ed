// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"time"

	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// Record writes x as access logs and formats of header values want it. The
// record points into x and is valid no longer than x.
func (x *Exchange) Record(r *accesslog.Record) {
	*r = accesslog.Record{
		Request: x.Request, Trailer: x.Trailer,
		Start: x.Start, Duration: x.marks[ResponseEnd], Marks: &x.marks,
		Status: x.Response.Status, GRPCStatus: x.GRPCStatus, Flags: &x.Flags, Details: x.Details, LocalBody: x.Local.Body,
		Received: x.Received, Sent: x.Sent, Wire: [4]uint64{x.WireReceived, x.WireSent, x.Upstream.Received, x.Upstream.Sent},
		Attempts: x.Attempts, Route: x.Target.Route, Cluster: x.Target.Cluster,
		Upstream: accesslog.Upstream{
			Remote: x.Upstream.Remote, Local: x.Upstream.Local, Version: x.Upstream.Version,
			TLS: x.Upstream.TLS, Failure: x.Upstream.Failure,
		},
	}
	if r.Duration == 0 {
		r.Duration = time.Since(x.Start)
	}
	if x.Response.Status != 0 {
		r.Response = &x.Response
	}
	if x.Fault != nil {
		r.Fault = x.Fault
	}
	if x.Trace.Valid() {
		r.Trace = &x.Trace
	}
	if x.Facts.Metadata != nil {
		r.Metadata = x.Facts.Metadata
	}
	if s := x.Upstream.Spec; s != nil {
		r.Stat = s.StatName
	}
	if e := x.Upstream.Endpoint; e != nil {
		r.Upstream.Host, r.Upstream.Name = e.Pipe, e.Hostname
	}
	x.recordConn(&r.Downstream)
}

func (x *Exchange) recordConn(d *accesslog.Downstream) {
	c := x.Conn
	if c == nil {
		return
	}
	*d = accesslog.Downstream{
		ID: c.ID, Remote: x.Remote, Local: c.Local, DirectRemote: c.DirectRemote, DirectLocal: c.DirectLocal,
		SNI: c.SNI, Listener: c.Listener, Chain: c.Chain, TLS: c.TLS,
	}
	if c.TLS != nil {
		d.Peer, d.Own = (*accesslog.Certificate)(&c.Peer), (*accesslog.Certificate)(&c.Own)
	}
}
