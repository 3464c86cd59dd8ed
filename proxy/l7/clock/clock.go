// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package clock says how long an exchange may take. It is pure: who conducts the
// exchange tells it the time. Four clocks can run:
//
//	Duration  from the request's head on (max_stream_duration, grpc-timeout)
//	Total     from the request's last byte on, all attempts together (route timeout)
//	PerTry    from the later of the request's last byte and the attempt's begin on
//	TryIdle   from that, and from each byte of the response on
package clock

import (
	"math"
	"strconv"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/route"
)

// Limits is how long each clock may run; 0: it does not.
type Limits struct {
	Duration, Total, PerTry, TryIdle time.Duration

	// Caller is how long a gRPC caller says it waits (grpc-timeout), whether a clock runs for it or not; 0: it does not say.
	Caller time.Duration
}

// The faults of a clock that has run out. Shared, not to be changed.
var (
	DurationOver = &fault.Fault{Side: fault.Mesh, Kind: fault.MaxDuration, Details: "max_duration_timeout", Body: "downstream duration timeout",
		Hint: "the stream lasted longer than max_stream_duration or the caller's grpc-timeout allow"}
	TotalOver = &fault.Fault{Side: fault.Upstream, Kind: fault.Timeout, Sent: true, Details: "response_timeout",
		Hint: "no response came within the route's timeout"}
	PerTryOver = &fault.Fault{Side: fault.Upstream, Kind: fault.PerTryTimeout, Sent: true, Details: "upstream_per_try_timeout",
		Hint: "no response came within the retry policy's perTryTimeout"}
	TryIdleOver = &fault.Fault{Side: fault.Upstream, Kind: fault.PerTryTimeout, Sent: true, Details: "upstream_per_try_idle_timeout",
		Hint: "nothing came from the endpoint for the retry policy's per_try_idle_timeout"}
)

// Headers about time.
const (
	timeoutHeader  = "x-envoy-upstream-rq-timeout-ms"
	perTryHeader   = "x-envoy-upstream-rq-per-try-timeout-ms"
	grpcTimeout    = "grpc-timeout"
	ExpectedHeader = "x-envoy-expected-rq-timeout-ms"
)

// A Caller is what counts of the caller for the limits.
type Caller struct {
	GRPC     bool
	Internal bool // it may set limits by headers
	Expected bool // what it says it expects is one of them (respect_expected_rq_timeout)
}

// Set works out the limits for a route, in Envoy's precedence. manager is the
// connection manager's max_stream_duration. The headers by which an internal
// caller sets limits are taken from r.
func (l *Limits) Set(r *message.Request, caller Caller, manager time.Duration, f *route.Forward) {
	h := &r.Header
	*l = Limits{Duration: manager}
	asked, hasAsked := time.Duration(0), false
	if caller.GRPC {
		asked, hasAsked = parseGRPCTimeout(h.Get(grpcTimeout))
		if hasAsked {
			l.Caller = max(asked, 1) // one that does not wait at all has said so
		}
	}
	switch s := f.Stream; {
	case s != nil:
		if s.Max != nil {
			l.Duration = *s.Max
		}
		if s.GRPCMax != nil && hasAsked {
			l.Duration = capped(asked, *s.GRPCMax, s.GRPCOffset)
		}
	case caller.GRPC && f.MaxGRPCTimeout != nil:
		l.Total = *f.MaxGRPCTimeout
		if hasAsked {
			l.Total = capped(asked, *f.MaxGRPCTimeout, f.GRPCOffset)
			h.Set(grpcTimeout, grpcMilliseconds(l.Total)) // the next hop learns what is left of it
		}
	default:
		l.Total = f.Timeout
	}
	if f.Retry != nil {
		l.PerTry, l.TryIdle = f.Retry.PerTry, f.Retry.PerTryIdle
	}
	if caller.Internal { // from others these headers have been stripped
		l.fromHeaders(h, caller.Expected)
	}
	if l.Total > 0 && l.PerTry >= l.Total {
		l.PerTry = 0 // it would never run out first
	}
}

func (l *Limits) fromHeaders(h *message.Header, expected bool) {
	if ms, ok := milliseconds(h.Get(timeoutHeader)); ok {
		l.Total = ms
	} else if ms, ok := milliseconds(h.Get(ExpectedHeader)); ok && expected {
		l.Total = ms
	}
	if ms, ok := milliseconds(h.Get(perTryHeader)); ok {
		l.PerTry = ms
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

// Expected is how long the upstream may take, in milliseconds, as it is told by
// ExpectedHeader; 0: any time.
func (l *Limits) Expected() int64 {
	d := l.Total
	if l.PerTry > 0 {
		d = l.PerTry
	}
	if d <= 0 {
		return 0
	}
	return max(1, d.Milliseconds())
}

// CallerLeft says whether the caller of a request that began at begin has stopped waiting, by its own word.
func (l *Limits) CallerLeft(begin, now time.Time) bool {
	return l.Caller > 0 && now.Sub(begin) >= l.Caller
}

// Any says whether some clock runs.
func (l *Limits) Any() bool { return l.Duration > 0 || l.Total > 0 || l.PerTry > 0 || l.TryIdle > 0 }

// Whole returns the limits that hold while no attempt is under way.
func (l *Limits) Whole() Limits { return Limits{Duration: l.Duration, Total: l.Total} }

// Moments are when an exchange's clocks were started.
type Moments struct {
	Begin   time.Time // the request's head came
	End     time.Time // its last byte came; zero: it has not
	Attempt time.Time // the attempt began; zero: it has its response
	Heard   time.Time // of the endpoint last; zero: not yet
}

// Look returns when to look at the clocks again: the earliest time at which one
// can have run out; the zero time for never.
func (l *Limits) Look(now time.Time, m Moments) time.Time {
	var at time.Time
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if l.Duration > 0 {
		earlier(m.Begin.Add(l.Duration))
	}
	end := m.End
	if end.IsZero() {
		end = now // the clocks below cannot have started before this
	}
	if l.Total > 0 {
		earlier(end.Add(l.Total))
	}
	if l.PerTry > 0 && !m.Attempt.IsZero() {
		earlier(later(end, m.Attempt).Add(l.PerTry))
	}
	if l.TryIdle > 0 {
		earlier(later(later(end, m.Attempt), m.Heard).Add(l.TryIdle))
	}
	return at
}

// Deadline returns when the first of the clocks that run has run out; the zero
// time for never. One that waits for the request's end does not run yet.
func (l *Limits) Deadline(m Moments) time.Time {
	if m.End.IsZero() {
		return (&Limits{Duration: l.Duration}).Look(m.Begin, m)
	}
	return l.Look(m.End, m)
}

// Over returns the fault of a clock that has run out, or nil.
func (l *Limits) Over(now time.Time, m Moments) *fault.Fault {
	switch {
	case l.Duration > 0 && now.Sub(m.Begin) >= l.Duration:
		return DurationOver
	case m.End.IsZero():
		return nil
	case l.Total > 0 && now.Sub(m.End) >= l.Total:
		return TotalOver
	case l.PerTry > 0 && !m.Attempt.IsZero() && now.Sub(later(m.End, m.Attempt)) >= l.PerTry:
		return PerTryOver
	case l.TryIdle > 0 && now.Sub(later(later(m.End, m.Attempt), m.Heard)) >= l.TryIdle:
		return TryIdleOver
	}
	return nil
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

// grpcMilliseconds writes d, rounded up as Envoy does: no hop is to give up before the caller.
func grpcMilliseconds(d time.Duration) string {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return strconv.FormatInt(min(ms, 99_999_999), 10) + "m"
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
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	unit := units[s[len(s)-1]]
	if unit == 0 {
		return 0, false
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}
