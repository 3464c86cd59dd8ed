// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// What a caller asks of this hop holds if it is internal, and goes no further in any case.
func TestSettleRetry(t *testing.T) {
	ofRoute := &route.Retry{On: route.OnReset, Count: 3, Codes: []uint32{418}, Base: time.Second, Max: time.Minute}
	gets := &route.Retry{On: route.OnReset, Count: 3, Requests: []match.Header{{Name: ":method", Test: match.HeaderString, Value: match.Exact("GET")}}}
	for name, c := range map[string]struct {
		of       *route.Retry
		external bool
		asked    string // fields, without "x-envoy-", separated by semicolons
		want     route.Retry
		left     []string
	}{
		"nothing":                    {of: ofRoute, want: *ofRoute},
		"nothing, and no policy":     {want: *noRetry},
		"conditions":                 {of: ofRoute, asked: "retry-on: 5xx; retry-grpc-on: cancelled", want: with(*ofRoute, func(p *route.Retry) { p.On |= route.On5xx | route.OnCancelled })},
		"a number":                   {of: ofRoute, asked: "max-retries: 7", want: with(*ofRoute, func(p *route.Retry) { p.Count = 7 })},
		"a number that is none":      {of: ofRoute, asked: "max-retries: many", want: *ofRoute},
		"status codes":               {of: ofRoute, asked: "retriable-status-codes: 500, x, 409", want: with(*ofRoute, func(p *route.Retry) { p.Codes = []uint32{418, 500, 409} })},
		"names of fields":            {asked: "retry-on: retriable-headers; retriable-header-names: x-busy", want: with(*noRetry, func(p *route.Retry) { p.On, p.Headers = route.OnHeaders, []match.Header{{Name: "x-busy"}} })},
		"where the route has none":   {asked: "retry-on: 5xx", want: with(*noRetry, func(p *route.Retry) { p.On = route.On5xx })},
		"more than the route allows": {of: gets, asked: "retry-on: 5xx", want: *noRetry},
		"from outside":               {external: true, asked: "retry-on: 5xx; max-retries: 7", want: *noRetry},
		"what we do not understand":  {asked: "hedge-on-per-try-timeout: true; upstream-alt-stat-name: a", want: *noRetry},
		"what is for all hops":       {asked: "retry-on: 5xx; force-trace: true; attempt-count: 1", want: with(*noRetry, func(p *route.Retry) { p.On = route.On5xx }), left: []string{"x-envoy-force-trace", "x-envoy-attempt-count"}},
	} {
		x := &exchange{}
		x.Request, x.Internal = &message.Request{Method: "POST"}, !c.external
		x.decision.Route = &route.Entry{Route: &route.Route{Forward: &route.Forward{Retry: c.of}}}
		for field := range strings.SplitSeq(c.asked, "; ") {
			if name, value, ok := strings.Cut(field, ": "); ok {
				x.Request.Header.Add("X-Envoy-"+name, value)
			}
		}
		x.settleRetry()
		if got := x.retry; got.On != c.want.On || got.Count != c.want.Count || got.Base != c.want.Base || got.Max != c.want.Max ||
			!slices.Equal(got.Codes, c.want.Codes) || len(got.Headers) != len(c.want.Headers) {
			t.Errorf("%s: %+v, want %+v", name, *got, c.want)
		}
		var left []string
		for _, f := range x.Request.Header.Fields() {
			left = append(left, strings.ToLower(f.Name))
		}
		if !slices.Equal(left, c.left) {
			t.Errorf("%s: the next hop gets %v, want %v", name, left, c.left)
		}
	}
	if len(ofRoute.Codes) != 1 || noRetry.On != 0 || noRetry.Base <= 0 {
		t.Error("a policy that others share was changed")
	}
}

// What no other attempt could be sent is not kept.
func TestMayFollow(t *testing.T) {
	some := &route.Retry{On: route.On5xx, Count: 1}
	for _, c := range []struct {
		method           string
		policy           *route.Retry
		retries, resends uint32
		reused, want     bool
	}{
		{method: "POST", policy: some, want: true},
		{method: "POST", policy: some, retries: 1},
		{method: "POST", policy: noRetry},
		{method: "PUT", policy: noRetry},
		{method: "POST", policy: noRetry, reused: true},
		{method: "PUT", policy: noRetry, reused: true, want: true},
		{method: "PUT", policy: noRetry, reused: true, resends: maxResends},
		{method: "PUT", policy: some, reused: true, retries: 1, want: true},
	} {
		x := &exchange{}
		x.Request = &message.Request{Method: c.method}
		x.retry, x.retries, x.resends, x.reused = c.policy, c.retries, c.resends, c.reused
		if got := x.mayFollow(&upstream.Lease{}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func with(p route.Retry, change func(*route.Retry)) route.Retry {
	change(&p)
	return p
}

// Each attempt of a request is one that does not ask the next hop to try again, and a copy of it neither.
func TestRetryHeadersAreConsumed(t *testing.T) {
	seen := make(chan http.Header, 8)
	note := func(w http.ResponseWriter, q *http.Request) {
		seen <- q.Header
		w.WriteHeader(503)
	}
	r := newRig(t, func(s *setup) {
		s.http.UseRemoteAddress, s.http.Internal = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, note)), cluster("shadow", upstream.HTTP1, backend(t, note)))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) { f.Mirrors = []route.Mirror{{Cluster: "shadow"}} }))
	})
	fields := []string{"x-envoy-retry-on", "5xx", "x-envoy-retry-grpc-on", "?", "x-envoy-max-retries", "2",
		"x-envoy-upstream-rq-timeout-ms", "5000", "x-envoy-upstream-rq-per-try-timeout-ms", "4000"}
	if resp, _ := r.get("/", fields...); resp.StatusCode != 503 {
		t.Fatal(resp.StatusCode)
	}
	for range 4 { // three attempts and a copy
		h := <-seen
		for i := 0; i < len(fields); i += 2 {
			if v := h.Get(fields[i]); v != "" {
				t.Errorf("%s: %q reaches the next hop", fields[i], v)
			}
		}
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "503|URX|via_upstream|3|") {
		t.Errorf("log %q", line)
	}
}
