// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strconv"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/upload"
)

// finish ends an exchange, whatever happened: what was taken is given back, and
// whoever counts, logs or traces is told. The response's strings live until the
// upstream's stream is given back, which is why that comes last.
func (x *exchange) finish() {
	if x.lease != nil && !x.body.Complete() {
		// An endpoint that has answered may read no more, and Stop waits for the write under way. Aborting the stream
		// would cost the connection even if that write was the last, and is just returning.
		_ = x.lease.SetWriteDeadline(past)
	}
	x.unread = x.body.Stop() || x.body.State() == upload.Unseen && x.Request.ContentLength != 0
	x.Received += x.body.Received()
	if end := x.body.End(); !end.IsZero() {
		x.MarkAt(filter.RequestEnd, end.Sub(x.Start))
	}
	if _, ok := x.Since(filter.ResponseEnd); !ok {
		x.Mark(filter.ResponseEnd)
	}
	x.GRPCStatus = x.grpcStatus()
	x.WireReceived += x.Received
	x.WireSent += x.Sent
	if x.Fault != nil && x.lease != nil {
		x.outcome.Fault, x.outcome.Reusable = x.Fault, false
		if x.Fault.Kind == fault.ClientGone {
			x.outcome.Fault = nil // nothing the endpoint did
		}
	}
	x.beginMessages() // of a request without a response
	x.site.http.Chain.End(&x.Exchange)
	if t := x.site.tracer; t != nil {
		t.End(&x.Exchange, &x.record)
	}
	x.site.logs.Log(&x.Exchange, &x.record)
	x.site.stats.End(&x.Exchange)
	x.endLease()
	x.leaveRetry()
	if x.admitted {
		x.cluster.Leave()
	}
}

// grpcStatus is the response's, from its trailers or its head; -1 for none.
func (x *exchange) grpcStatus() int {
	if !x.GRPC {
		return -1
	}
	for _, h := range [...]*message.Header{x.Trailer, &x.Response.Header} {
		if h == nil {
			continue
		}
		if s, ok := h.Lookup("grpc-status"); ok {
			if n, err := strconv.ParseUint(s, 10, 15); err == nil {
				return int(n)
			}
			return 2 // unknown
		}
	}
	return -1
}
