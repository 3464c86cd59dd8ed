// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"strconv"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/route"
)

// Headers by which an internal caller asks for retries.
const (
	retryOnHeader    = "x-envoy-retry-on"
	retryGRPCHeader  = "x-envoy-retry-grpc-on"
	maxRetriesHeader = "x-envoy-max-retries"
)

// noRetry is the policy of a route without one.
var noRetry = &route.Retry{}

// policy returns the route's retry policy with what an internal caller asks for.
func (x *exchange) policy() *route.Retry {
	p := x.decision.Route.Forward.Retry
	if p == nil {
		p = noRetry
	}
	if !x.Internal {
		return p
	}
	h := &x.Request.Header
	on, _ := route.ParseRetryOn(h.Get(retryOnHeader))
	grpc, _ := route.ParseRetryOn(h.Get(retryGRPCHeader))
	count, err := strconv.ParseUint(h.Get(maxRetriesHeader), 10, 16)
	if on|grpc == 0 && err != nil {
		return p
	}
	asked := *p
	asked.On |= on | grpc
	if err == nil {
		asked.Count = uint32(count)
	} else if p.On == 0 {
		asked.Count = 1
	}
	return &asked
}

// retryResponse says whether another attempt follows the response at hand; it
// has been discarded then.
func (x *exchange) retryResponse() bool {
	p := x.policy()
	if p.On == 0 || !p.OnResponse(&x.Response) || !p.Applies(x.Request) || !x.mayRetry(p) {
		return false
	}
	x.discard()
	return true
}

// retryFault says whether another attempt follows a failed one; if not, last is
// the fault to answer with.
func (x *exchange) retryFault(f *fault.Fault) (again bool, last *fault.Fault) {
	if f.Kind == fault.ClientGone || x.Cancelled() != nil {
		return false, f
	}
	p := x.policy()
	if p.On != 0 && p.OnFault(f) && p.Applies(x.Request) {
		return x.mayRetry(p), f
	}
	return x.stale(f), f
}

// maxResends bounds how often a kept connection may turn out to be closed.
const maxResends = 3

// stale says whether a fault is a kept connection that the endpoint had closed:
// requests that may be sent twice, or were certainly not acted upon, are sent
// again at once, whatever the policy (RFC 9110 section 9.2.2, RFC 9113 section 8.7).
func (x *exchange) stale(f *fault.Fault) bool {
	switch {
	case !x.reused || x.resends >= maxResends:
		return false
	case f.Kind == fault.RefusedStream && !f.Sent:
	case f.Kind == fault.ConnectionClosed && idempotent(x.Request.Method):
	default:
		return false
	}
	if !x.body.Replayable() {
		return false
	}
	x.resends++
	return true
}

func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// mayRetry says whether number, budget and body allow another attempt.
func (x *exchange) mayRetry(p *route.Retry) bool {
	x.leaveRetry()
	switch {
	case x.retries >= p.Count:
		x.urx = true
		return false
	case !x.body.Replayable():
		return false
	case !x.cluster.AdmitRetry():
		x.body.Unpin()
		return false
	}
	x.retries++
	x.retrying = true
	return true
}

// backoff waits before the next attempt.
func (x *exchange) backoff() *fault.Fault {
	x.pick.Random = rand.Uint64()
	if !x.retrying {
		return nil // a stale connection is no reason to wait
	}
	return x.Hold(x.policy().Backoff(x.retries, rand.Uint64()))
}
