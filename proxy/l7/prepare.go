// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"unsafe"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/sanitize"
	"github.com/meltemi/meltemi/telemetry/trace"
)

const (
	requestID  = "x-request-id"
	forceTrace = "x-envoy-force-trace"
	clientID   = "x-client-trace-id"
)

// prepare makes the request true, and gives it its ids.
func (x *exchange) prepare() *fault.Fault {
	h, r := x.site.http, x.Request
	x.WireReceived = requestBytes(r)
	if r.Protocol == "h2c" {
		r.Protocol = "" // an offer that nobody has to take (RFC 9110 section 7.8)
	}
	forced := r.Header.Has(forceTrace) // only internal requests keep it
	facts, f := sanitize.Request(r, h, x.Conn, x.seat.element)
	x.Remote, x.Internal, x.GRPC = unmapped(facts.Remote), facts.Internal, facts.GRPC
	if f != nil {
		return f
	}
	x.identify(facts.Edge, forced && facts.Internal)
	if facts.Location != "" {
		x.Answer(307, "path_with_escaped_slashes_redirect", "")
		x.Response.Header.Add("location", r.Scheme+"://"+r.Authority+facts.Location)
	}
	if t := h.StreamIdleTimeout; t > 0 {
		x.idleLimit.Store(int64(t))
	}
	x.limits.Duration = h.MaxStreamDuration
	put(&x.lastsUntil, x.limits.Duration)
	return nil
}

// identify sees to x-request-id and decides about tracing.
func (x *exchange) identify(edge, forced bool) {
	h, header := x.site.http, &x.Request.Header
	old, has := header.Lookup(requestID)
	keep := has && old != "" && (!edge || h.PreserveRequestID)
	fresh := !keep && h.GenerateRequestID
	traced := x.site.tracer != nil
	if !fresh && !traced {
		return
	}
	packable := fresh
	if keep {
		x.id, packable = trace.ParseRequestID(old)
	}
	if !packable || fresh {
		x.id = trace.NewRequestID() // for sampling alone, if it is not fresh
	}
	if traced {
		x.decide(forced)
		if packable = packable && !h.NoTraceInRequestID; packable {
			x.id.SetReason(x.reason)
		}
	}
	if fresh || traced && packable {
		header.Set(requestID, unsafe.String(&x.id[0], len(x.id)))
	}
}

// decide says whether the exchange is traced, and begins its span.
func (x *exchange) decide(forced bool) {
	t, id := x.site.tracer, x.id
	if !x.site.http.TraceByRequestID {
		id = trace.NewRequestID() // nothing that hops could agree by
	}
	x.reason = t.Sampling.Decide(&id, x.Request.Header.Has(clientID), forced)
	t.Begin(&x.Exchange, x.reason != trace.NotTraced)
}

// requestBytes is how long a request's head is on the wire, as HTTP/1 has it.
func requestBytes(r *message.Request) uint64 {
	n := len(r.Method) + len(r.Path) + len(r.Authority) + len("  HTTP/1.1\r\nhost: \r\n\r\n")
	return uint64(n + fieldBytes(&r.Header))
}
