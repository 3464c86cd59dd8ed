// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/sanitize"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// Headers by which an internal caller asks for retries.
const (
	retryOnHeader    = "x-envoy-retry-on"
	retryGRPCHeader  = "x-envoy-retry-grpc-on"
	maxRetriesHeader = "x-envoy-max-retries"
	codesHeader      = "x-envoy-retriable-status-codes"
	namesHeader      = "x-envoy-retriable-header-names"
)

// noRetry is the policy of a route without one: On is nothing, and the rest as
// Envoy has it where an internal caller asks for more.
var noRetry = &route.Retry{Count: 1, Base: 25 * time.Millisecond, Max: 250 * time.Millisecond}

// settleRetry works out the retry policy, and takes from the request what is said
// to this hop alone, whether it holds or not: the next one would multiply our
// attempts by its own.
func (x *exchange) settleRetry() {
	x.retry = x.decision.Route.Forward.Retry
	if x.retry == nil {
		x.retry = noRetry
	}
	h := &x.Request.Header
	said := slices.ContainsFunc(h.Fields(), sanitize.OneHop)
	if said && x.Internal {
		x.retry = withAsked(x.retry, h)
	}
	if !x.retry.Applies(x.Request) {
		x.retry = noRetry
	}
	if said {
		h.DeleteFunc(sanitize.OneHop)
	}
}

// withAsked returns p with what the headers ask for.
func withAsked(p *route.Retry, h *message.Header) *route.Retry {
	asked := *p
	on, _ := route.ParseRetryOn(h.Get(retryOnHeader))
	grpc, _ := route.ParseRetryOn(h.Get(retryGRPCHeader))
	asked.On |= on | grpc
	if n, err := strconv.ParseUint(h.Get(maxRetriesHeader), 10, 16); err == nil {
		asked.Count = uint32(n)
	}
	asked.Codes, asked.Headers = slices.Clip(p.Codes), slices.Clip(p.Headers)
	for code := range strings.SplitSeq(h.Get(codesHeader), ",") {
		if n, err := strconv.ParseUint(strings.TrimSpace(code), 10, 16); err == nil {
			asked.Codes = append(asked.Codes, uint32(n))
		}
	}
	for name := range strings.SplitSeq(h.Get(namesHeader), ",") {
		if name = strings.TrimSpace(name); name != "" {
			asked.Headers = append(asked.Headers, match.Header{Name: strings.Clone(name), Test: match.HeaderPresent})
		}
	}
	return &asked
}

// retryResponse says whether another attempt follows the response at hand; it
// has been discarded then.
func (x *exchange) retryResponse() bool {
	if x.retry.On == 0 || !x.retry.OnResponse(&x.Response) || !x.mayRetry() {
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
	if x.retry.OnFault(f) {
		return x.mayRetry(), f
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

// mayFollow says whether another attempt may follow the one that lease is for,
// whatever becomes of it. If not, nothing of the request needs to be kept.
func (x *exchange) mayFollow(lease *upstream.Lease) bool {
	if x.retry.On != 0 && x.retries < x.retry.Count {
		return true
	}
	return x.reused && x.resends < maxResends && (lease.Version() == message.HTTP2 || idempotent(x.Request.Method)) // it may be stale
}

// mayRetry says whether number, budget and body allow another attempt.
func (x *exchange) mayRetry() bool {
	x.leaveRetry()
	switch {
	case x.retries >= x.retry.Count:
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
	return x.Hold(x.retry.Backoff(x.retries, rand.Uint64()))
}
