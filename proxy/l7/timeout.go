// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math"
	"strconv"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
)

// limits is how long an exchange may take. Three clocks can run:
//
//	duration  from the request's head on (max_stream_duration, grpc-timeout)
//	total     from the request's last byte on, all attempts together (route timeout)
//	perTry    from the later of the request's last byte and the attempt's begin on
type limits struct {
	duration, total, perTry time.Duration // 0: none
	begin                   time.Time
}

// Faults of time.
var (
	maxDuration = &fault.Fault{Side: fault.Mesh, Kind: fault.MaxDuration, Details: "max_duration_timeout", Body: "downstream duration timeout",
		Hint: "the stream lasted longer than max_stream_duration or the caller's grpc-timeout allow"}
	totalTimeout = &fault.Fault{Side: fault.Upstream, Kind: fault.Timeout, Sent: true, Details: "upstream_response_timeout",
		Hint: "no response came within the route's timeout"}
	perTryTimeout = &fault.Fault{Side: fault.Upstream, Kind: fault.PerTryTimeout, Sent: true, Details: "upstream_per_try_timeout",
		Hint: "no response came within the retry policy's perTryTimeout"}
)

// Headers by which an internal caller sets timeouts.
const (
	timeoutHeader  = "x-envoy-upstream-rq-timeout-ms"
	perTryHeader   = "x-envoy-upstream-rq-per-try-timeout-ms"
	expectedHeader = "x-envoy-expected-rq-timeout-ms"
	grpcTimeout    = "grpc-timeout"
)

// fromManager takes over the connection manager's limits.
func (l *limits) fromManager(x *exchange) {
	l.begin, l.duration = x.Start, x.site.http.MaxStreamDuration
}

// fromRoute works out the limits for a route, in Envoy's precedence.
func (l *limits) fromRoute(x *exchange, f *route.Forward) {
	h := &x.Request.Header
	asked, hasAsked := time.Duration(0), false
	if x.GRPC {
		asked, hasAsked = parseGRPCTimeout(h.Get(grpcTimeout))
	}
	switch s := f.Stream; {
	case s != nil:
		if s.Max != nil {
			l.duration = *s.Max
		}
		if s.GRPCMax != nil && hasAsked {
			l.duration = capped(asked, *s.GRPCMax, s.GRPCOffset)
		}
	case x.GRPC && f.MaxGRPCTimeout != nil:
		if hasAsked {
			l.total = capped(asked, *f.MaxGRPCTimeout, f.GRPCOffset)
		} else {
			l.total = *f.MaxGRPCTimeout
		}
	default:
		l.total = f.Timeout
	}
	if f.Retry != nil {
		l.perTry = f.Retry.PerTry
	}
	if !x.Internal {
		return // the headers below are stripped from other requests
	}
	if ms, ok := milliseconds(h.Get(timeoutHeader)); ok {
		l.total = ms
	}
	if ms, ok := milliseconds(h.Get(perTryHeader)); ok {
		l.perTry = ms
	}
	h.Delete(timeoutHeader)
	h.Delete(perTryHeader)
}

// capped is what a caller asked for, less offset, but no more than limit (0: none).
func capped(asked, limit, offset time.Duration) time.Duration {
	if offset > 0 && asked > offset {
		asked -= offset
	}
	if limit > 0 && asked > limit {
		asked = limit
	}
	return max(asked, 1)
}

// tell sets the headers by which the upstream learns of the limits.
func (l *limits) tell(x *exchange) {
	h := &x.Request.Header
	total, perTry := l.total, l.effectivePerTry()
	if x.GRPC && l.total > 0 && h.Has(grpcTimeout) {
		if f := x.decision.Route.Forward; f.Stream == nil && f.MaxGRPCTimeout != nil {
			var b [16]byte
			h.Set(grpcTimeout, x.text(append(strconv.AppendInt(b[:0], l.total.Milliseconds(), 10), 'm')))
		}
	}
	if x.site.http.Router.SuppressHeaders {
		return
	}
	expected := total
	if perTry > 0 {
		expected = perTry
	}
	if expected > 0 {
		h.Set(expectedHeader, x.number(max(1, expected.Milliseconds())))
	}
}

// effectivePerTry ignores a per-try timeout that the total would beat.
func (l *limits) effectivePerTry() time.Duration {
	if l.total > 0 && l.perTry >= l.total {
		return 0
	}
	return l.perTry
}

// any says whether some clock may run.
func (l *limits) any() bool { return l.duration > 0 || l.total > 0 || l.perTry > 0 }

func (l *limits) durationOver(now time.Time) bool {
	return l.duration > 0 && now.Sub(l.begin) >= l.duration
}

// deadline returns when to look at the clocks again: the earliest moment at
// which one can have run out. attempt is when the attempt began.
func (x *exchange) deadline(now, attempt time.Time, answered bool) time.Time {
	l := &x.limits
	var at time.Time
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if l.duration > 0 {
		earlier(l.begin.Add(l.duration))
	}
	end, complete := x.requestEnd()
	if !complete {
		end = now // it cannot run out before this
	}
	if l.total > 0 {
		earlier(end.Add(l.total))
	}
	if p := l.effectivePerTry(); p > 0 && !answered {
		earlier(later(end, attempt).Add(p))
	}
	return at
}

// expired returns the fault of the clock that has run out, or nil.
func (x *exchange) expired(now, attempt time.Time, answered bool) *fault.Fault {
	l := &x.limits
	if l.durationOver(now) {
		return maxDuration
	}
	end, complete := x.requestEnd()
	if !complete {
		return nil
	}
	if l.total > 0 && now.Sub(end) >= l.total {
		return totalTimeout
	}
	if p := l.effectivePerTry(); p > 0 && !answered && now.Sub(later(end, attempt)) >= p {
		return perTryTimeout
	}
	return nil
}

// requestEnd returns when the last byte of the request came; false if it has not.
func (x *exchange) requestEnd() (time.Time, bool) {
	if d, ok := x.body.endedAt(); ok {
		return x.Start.Add(d), true
	}
	return time.Time{}, false
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func milliseconds(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return time.Duration(n) * time.Millisecond, err == nil
}

// parseGRPCTimeout reads up to eight digits and a unit (gRPC over HTTP/2).
func parseGRPCTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

// markRequestEnd notes that the whole request is here.
func (x *exchange) markRequestEnd(d time.Duration) { x.MarkAt(filter.RequestEnd, d) }
