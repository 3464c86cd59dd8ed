// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"math"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/route"
)

const (
	s  = time.Second
	ms = time.Millisecond
)

func ptr(d time.Duration) *time.Duration { return &d }

func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		name     string
		f        route.Forward
		fields   []string
		grpc     bool
		internal bool
		expected bool
		manager  time.Duration
		want     Limits
	}{
		{name: "nothing"},
		{name: "route", f: route.Forward{Timeout: s, Retry: &route.Retry{PerTry: 100 * ms}}, want: Limits{Total: s, PerTry: 100 * ms}},
		{name: "per try that never runs out", f: route.Forward{Timeout: s, Retry: &route.Retry{PerTry: s}}, want: Limits{Total: s}},
		{name: "manager", manager: s, want: Limits{Duration: s}},
		{name: "gRPC, not honoured", f: route.Forward{Timeout: s}, fields: []string{"grpc-timeout", "2S"}, grpc: true, want: Limits{Caller: 2 * s, Total: s}},
		{name: "gRPC, any", f: route.Forward{Timeout: s, MaxGRPCTimeout: ptr(0)}, fields: []string{"grpc-timeout", "2S"}, grpc: true, want: Limits{Caller: 2 * s, Total: 2 * s}},
		{name: "gRPC, capped", f: route.Forward{MaxGRPCTimeout: ptr(s)}, fields: []string{"grpc-timeout", "2S"}, grpc: true, want: Limits{Caller: 2 * s, Total: s}},
		{name: "gRPC, absent", f: route.Forward{Timeout: s, MaxGRPCTimeout: ptr(0)}, grpc: true},
		{name: "gRPC with offset", f: route.Forward{MaxGRPCTimeout: ptr(0), GRPCOffset: s}, fields: []string{"grpc-timeout", "3S"}, grpc: true, want: Limits{Caller: 3 * s, Total: 2 * s}},
		{name: "gRPC, no time at all", f: route.Forward{MaxGRPCTimeout: ptr(0)}, fields: []string{"grpc-timeout", "0m"}, grpc: true, want: Limits{Caller: 1, Total: 1}},
		{name: "gRPC, rubbish", f: route.Forward{MaxGRPCTimeout: ptr(0)}, fields: []string{"grpc-timeout", "0"}, grpc: true},
		{name: "not gRPC", f: route.Forward{Timeout: s, MaxGRPCTimeout: ptr(0)}, fields: []string{"grpc-timeout", "2S"}, want: Limits{Total: s}},
		{name: "stream limit replaces the timeout", f: route.Forward{Timeout: s, Stream: &route.StreamLimit{Max: ptr(0), GRPCMax: ptr(0)}}, manager: s},
		{name: "stream limit, gRPC", f: route.Forward{Stream: &route.StreamLimit{Max: ptr(0), GRPCMax: ptr(5 * s)}}, fields: []string{"grpc-timeout", "9S"}, grpc: true, want: Limits{Caller: 9 * s, Duration: 5 * s}},
		{name: "stream limit of the manager", f: route.Forward{Stream: &route.StreamLimit{}}, manager: s, want: Limits{Duration: s}},
		{name: "headers of an internal caller", f: route.Forward{Timeout: s}, fields: []string{"x-envoy-upstream-rq-timeout-ms", "50", "x-envoy-upstream-rq-per-try-timeout-ms", "20"}, internal: true, want: Limits{Total: 50 * ms, PerTry: 20 * ms}},
		{name: "none, says an internal caller", f: route.Forward{Timeout: s}, fields: []string{"x-envoy-upstream-rq-timeout-ms", "0"}, internal: true},
		{name: "what an internal caller expects", f: route.Forward{Timeout: s}, fields: []string{"x-envoy-expected-rq-timeout-ms", "50"}, internal: true, expected: true, want: Limits{Total: 50 * ms}},
		{name: "rubbish of an internal caller", f: route.Forward{Timeout: s}, fields: []string{"x-envoy-upstream-rq-timeout-ms", "-1"}, internal: true, want: Limits{Total: s}},
	} {
		r := &message.Request{}
		for i := 0; i < len(c.fields); i += 2 {
			r.Header.Add(c.fields[i], c.fields[i+1])
		}
		var l Limits
		l.Set(r, Caller{GRPC: c.grpc, Internal: c.internal, Expected: c.expected}, c.manager, &c.f)
		if l != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, l, c.want)
		}
		if c.internal && !c.expected && r.Header.Len() > 0 {
			t.Errorf("%s: %v is passed on", c.name, r.Header.Fields())
		}
	}
}

func TestHostileTimeouts(t *testing.T) {
	for in, want := range map[string]time.Duration{"99999999H": math.MaxInt64, "1n": 1, "0S": 0, "00000001M": time.Minute} {
		if d, ok := parseGRPCTimeout(in); !ok || d != want {
			t.Errorf("%s = %v %v, want %v", in, d, ok, want)
		}
	}
	for _, in := range []string{"", "S", "1", "-1S", "1.5S", "123456789S", "1s", "1 S"} {
		if d, ok := parseGRPCTimeout(in); ok {
			t.Errorf("%q = %v, want nothing", in, d)
		}
	}
	l := Limits{Duration: math.MaxInt64, Total: math.MaxInt64}
	now := time.Now()
	if l.Over(now, Moments{Begin: now, End: now}) != nil || l.Look(now, Moments{Begin: now, End: now}).Before(now) {
		t.Error("the longest of times is over at once")
	}
}

func TestClocks(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	l := Limits{Duration: 10 * s, Total: 3 * s, PerTry: s}
	for _, c := range []struct {
		name string
		now  time.Duration
		m    Moments
		over *fault.Fault
		look time.Duration
	}{
		{"the request is still coming", 5 * s, Moments{Begin: begin, Attempt: at(s)}, nil, 6 * s},
		{"it has come", 5 * s, Moments{Begin: begin, End: at(5 * s), Attempt: at(s)}, nil, 6 * s},
		{"one try is over", 6 * s, Moments{Begin: begin, End: at(5 * s), Attempt: at(s)}, PerTryOver, 6 * s},
		{"the second try has begun", 6 * s, Moments{Begin: begin, End: at(5 * s), Attempt: at(6 * s)}, nil, 7 * s},
		{"all tries are over", 8 * s, Moments{Begin: begin, End: at(5 * s), Attempt: at(7500 * ms)}, TotalOver, 8 * s},
		{"the response is coming", 7 * s, Moments{Begin: begin, End: at(5 * s)}, nil, 8 * s},
		{"it takes too long", 8 * s, Moments{Begin: begin, End: at(5 * s)}, TotalOver, 8 * s},
		{"the stream is over", 10 * s, Moments{Begin: begin, Attempt: at(s)}, DurationOver, 10 * s},
	} {
		if got := l.Over(at(c.now), c.m); got != c.over {
			t.Errorf("%s: %v, want %v", c.name, got, c.over)
		}
		if got := l.Look(at(c.now), c.m); !got.Equal(at(c.look)) {
			t.Errorf("%s: looks again at %v, want %v", c.name, got.Sub(begin), c.look)
		}
	}
	idle := Limits{TryIdle: s}
	for _, c := range []struct {
		now  time.Duration
		m    Moments
		over *fault.Fault
	}{
		{900 * ms, Moments{Begin: begin, End: begin, Attempt: begin}, nil},
		{s, Moments{Begin: begin, End: begin, Attempt: begin}, TryIdleOver},
		{s, Moments{Begin: begin, End: begin, Heard: at(500 * ms)}, nil},
		{1500 * ms, Moments{Begin: begin, End: begin, Heard: at(500 * ms)}, TryIdleOver},
		{5 * s, Moments{Begin: begin, Attempt: begin}, nil},
	} {
		if got := idle.Over(at(c.now), c.m); got != c.over {
			t.Errorf("idle at %v: %v, want %v", c.now, got, c.over)
		}
	}
	coming, here := Moments{Begin: begin, Attempt: at(s)}, Moments{Begin: begin, End: at(2 * s), Attempt: at(s)}
	if got := l.Deadline(coming); !got.Equal(at(10 * s)) {
		t.Errorf("only the stream's clock runs while the request comes; it is over at %v", got.Sub(begin))
	}
	if got := l.Deadline(here); !got.Equal(at(3 * s)) {
		t.Errorf("the try is over at %v", got.Sub(begin))
	}
	none := Limits{}
	if none.Any() || !none.Look(begin, Moments{}).IsZero() || !none.Deadline(here).IsZero() || !none.Deadline(coming).IsZero() {
		t.Error("no limits, and yet a deadline")
	}
}

func FuzzGRPCTimeout(f *testing.F) {
	f.Add("1S")
	f.Fuzz(func(t *testing.T, in string) {
		if d, ok := parseGRPCTimeout(in); ok && d < 0 {
			t.Errorf("%q = %v", in, d)
		}
	})
}
