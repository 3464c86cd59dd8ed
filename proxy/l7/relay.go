// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
)

const (
	serviceTime = "x-envoy-upstream-service-time"
	viaUpstream = "via_upstream"
)

// relay sends the response at hand to the client. A fault after the response's
// head has gone out can only break the exchange off.
func (x *exchange) relay() *fault.Fault {
	resp := &x.Response
	x.Details = viaUpstream
	if x.urx {
		x.Flags |= filter.UpstreamRetryLimitExceeded
	}
	x.outcome.Status, x.outcome.GRPC = outcomeStatus(resp)
	tunnel := x.accepted()
	x.responseHeaders()
	x.site.http.Chain.Respond(&x.Exchange)
	x.finishHead()
	if tunnel {
		return x.tunnel()
	}
	end := resp.ContentLength == 0
	x.Mark(filter.ResponseBegin)
	if err := x.down.WriteHead(resp, end); err != nil {
		return x.clientFault(err)
	}
	x.headSent = true
	if end {
		return x.endRelay(nil)
	}
	return x.relayBody()
}

// accepted says whether the upstream agrees to a tunnel.
func (x *exchange) accepted() bool {
	r, resp := x.Request, &x.Response
	switch {
	case resp.Status == 101:
		return true
	case r.Method == "CONNECT":
		return resp.Status/100 == 2
	}
	return false
}

// responseHeaders does what is the router's: before any filter sees the response.
func (x *exchange) responseHeaders() {
	h := &x.Response.Header
	if !x.site.http.Router.SuppressHeaders {
		h.Set(serviceTime, x.number(x.serviceTime().Milliseconds()))
	}
	if x.decision.Host.AttemptCountOut {
		h.Set(attemptCount, x.number(int64(x.Attempts)))
	}
	if x.cookie != "" {
		h.Add("set-cookie", x.cookie)
	}
	x.table.ResponseHeaders(&x.decision, h, x)
	if !x.Internal {
		for _, name := range x.table.Config().InternalOnly {
			h.Delete(name)
		}
	}
}

// serviceTime is how long the upstream took: from the request's end to the
// response's head.
func (x *exchange) serviceTime() time.Duration {
	head, _ := x.Since(filter.UpstreamRxBegin)
	if end := x.body.End(); !end.IsZero() {
		head -= end.Sub(x.Start)
	}
	return max(0, head)
}

// relayBody copies the body as it comes. It is flushed whenever more would have
// to be waited for, so that head and body of a short response leave together.
func (x *exchange) relayBody() *fault.Fault {
	lease := x.lease
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	ready, _ := lease.Stream.(buffered)
	x.beginMessages()
	for {
		if ready == nil || ready.Buffered() == 0 {
			if err := x.down.Flush(); err != nil {
				return x.clientFault(err)
			}
		}
		x.bound(lease.Stream, time.Time{})
		n, err := lease.Read(scratch[:])
		if n > 0 {
			x.moved()
			if x.limits.TryIdle > 0 {
				x.heard = time.Now()
			}
			x.Sent += uint64(n)
			x.answers(scratch[:n])
			if _, err := x.down.Write(scratch[:n]); err != nil {
				return x.clientFault(err)
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return x.endRelay(lease.Trailer())
		case isTimeout(err) && x.Cancelled() == nil:
			if f := x.over(time.Time{}); f != nil {
				return f
			}
		default:
			return x.streamFault(lease, err)
		}
	}
}

// endRelay ends the response.
func (x *exchange) endRelay(trailer *message.Header) *fault.Fault {
	x.Mark(filter.UpstreamRxEnd)
	if trailer != nil && trailer.Len() > 0 {
		x.Trailer = trailer
		x.WireSent += uint64(fieldBytes(trailer))
	}
	if x.Response.ContentLength != 0 {
		if err := x.down.Finish(x.Trailer); err != nil {
			return x.clientFault(err)
		}
	}
	x.Mark(filter.ResponseEnd)
	x.outcome.Reusable = true
	return nil
}
