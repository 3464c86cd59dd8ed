// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/proxy/explain"
)

// twoSides are the caller's answer and the callee's.
func twoSides() (caller, callee *explain.Answer) {
	caller = &explain.Answer{
		Side: explain.Outbound, Outcome: explain.Forward, Summary: "goes to ratings-v1.default at 10.0.0.7:9080 by mutual TLS",
		Steps: []explain.Step{
			{Stage: explain.StageListener, Name: "0.0.0.0_9080", Says: "takes it"},
			{Stage: explain.StageRoute, Name: "split", Says: "forward", From: []string{"VirtualService/default/ratings spec.http[1]"},
				Notes: []string{"timeout 3s"},
				Considered: []explain.Considered{
					{Name: "route a", Why: "does not fit", From: []string{"VirtualService/default/ratings spec.http[0]"}}, {Name: "route split", Chosen: true},
				}},
			{Stage: explain.StageEndpoint, Name: "10.0.0.7:9080", Says: "the only one", Considered: []explain.Considered{{Name: "10.0.0.7:9080", Chosen: true}}},
		},
		Next: &explain.Next{
			Address: "10.0.0.7:9080", Workload: "ratings-v1", Namespace: "default", Method: "POST", Authority: "ratings:9080", Path: "/r",
			Headers: []explain.Header{{Name: "x-a", Value: "b"}},
			TLS:     true, Mutual: true, Identity: "spiffe://cluster.local/ns/default/sa/reviews", SNI: "s", ALPN: []string{"istio"},
		},
	}
	callee = &explain.Answer{
		Side: explain.Inbound, Outcome: explain.Refuse, Status: 403, Summary: "403: denied by p",
		Steps: []explain.Step{{Stage: explain.StagePolicy, Says: "denied by p", Fatal: true, From: []string{"AuthorizationPolicy/default/p spec.rules[0]"}}},
	}
	return caller, callee
}

func TestExplain(t *testing.T) {
	caller, callee := twoSides()
	dir := t.TempDir()
	var out1, in1 explain.Query
	announce(t, dir, Proxy{Workload: "reviews-v1", Namespace: "default", Admin: fakeProxy(t, dir, caller, &out1)})
	announce(t, dir, Proxy{Workload: "ratings-v1", Namespace: "default", Admin: fakeProxy(t, dir, callee, &in1)})
	f := &fakeControl{places: map[string]string{
		"VirtualService/default/ratings spec.http[0]": `{"file":"/mesh/r.yaml","line":9}`,
		"VirtualService/default/ratings spec.http[1]": `{"file":"/mesh/r.yaml","line":20}`,
	}}
	m, out := asking(Mesh{Monitoring: f.serve(t), Proxies: dir})
	q := Question{From: "reviews", Method: "POST", URL: "http://ratings:9080/r", Headers: []explain.Header{{Name: "x-a", Value: "b"}}}
	if err := m.Explain(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	lines(t, out.String(),
		"POST http://ratings:9080/r from reviews-v1.default",
		"listener 0.0.0.0_9080: takes it",
		"route split: forward",
		"from VirtualService/default/ratings spec.http[1] (/mesh/r.yaml:20)",
		"timeout 3s",
		"- route a: does not fit [/mesh/r.yaml:9]",
		"* route split",
		"endpoint 10.0.0.7:9080: the only one",
		"arriving at ratings-v1.default",
		"policy denied by p",
		"from AuthorizationPolicy/default/p spec.rules[0]",
		"The request is refused: the proxy of ratings-v1.default answers 403: denied by p.")
	if out1.Side != explain.Outbound || out1.URL != q.URL || !slices.Equal(out1.Headers, q.Headers) || out1.Method != "POST" {
		t.Errorf("the caller's proxy was asked %+v", out1)
	}
	if in1.Side != explain.Inbound || in1.Address != "10.0.0.7:9080" || in1.URL != "http://ratings:9080/r" || in1.Method != "POST" ||
		!in1.Caller.TLS || in1.Caller.Identity != "spiffe://cluster.local/ns/default/sa/reviews" || in1.Caller.SNI != "s" {
		t.Errorf("the callee's proxy was asked %+v", in1)
	}

	m, out = asking(Mesh{Proxies: dir, JSON: true})
	if err := m.Explain(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	var e Explanation
	if err := json.Unmarshal(out.Bytes(), &e); err != nil || e.Callee == nil || e.Callee.Status != 403 || e.To != "ratings-v1.default" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestExplainWithoutTheCallee(t *testing.T) {
	caller, _ := twoSides()
	for name, c := range map[string]struct {
		next func(*explain.Next)
		want string
	}{
		"unknown workload": {func(n *explain.Next) { n.Workload = "" }, "who is at 10.0.0.7:9080 cannot be found out: no control plane is known"},
		"elsewhere":        {func(*explain.Next) {}, "no proxy of ratings-v1.default is known on this machine"},
		"an Envoy":         {func(n *explain.Next) { n.Workload = "envoy" }, "only Meltemi's proxies explain"},
	} {
		dir := t.TempDir()
		a := *caller
		next := *caller.Next
		c.next(&next)
		a.Next = &next
		var asked explain.Query
		announce(t, dir, Proxy{Workload: "reviews-v1", Namespace: "default", Admin: fakeProxy(t, dir, &a, &asked)})
		announce(t, dir, Proxy{Workload: "envoy", Namespace: "default", Admin: fakeProxy(t, dir, nil, nil)})
		m, out := asking(Mesh{Proxies: dir})
		if err := m.Explain(t.Context(), Question{From: "reviews-v1", URL: "http://ratings:9080/r"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(out.String(), "The request goes to ratings-v1.default at 10.0.0.7:9080 by mutual TLS.") || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// An address that is dialled as such, and passed through, may be a workload's.
func TestExplainGoesOnFromAnAddress(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.7:9080": "The request is refused: the proxy of ratings-v1.default answers 403: denied by p.",
		"10.0.0.8:9080": "no proxy of the mesh has the address 10.0.0.8:9080, so nobody there enforces anything",
		"10.0.0.9:9080": "no proxy of the mesh has the address 10.0.0.9:9080", // a gateway is nobody's sidecar
	} {
		caller, callee := twoSides()
		caller.Next = &explain.Next{Address: address}
		dir := t.TempDir()
		var out1, in1 explain.Query
		announce(t, dir, Proxy{Workload: "reviews-v1", Namespace: "default", Admin: fakeProxy(t, dir, caller, &out1)})
		announce(t, dir, Proxy{Workload: "ratings-v1", Namespace: "default", Admin: fakeProxy(t, dir, callee, &in1)})
		f := &fakeControl{clients: []push.ClientStatus{
			{Node: "router~10.0.0.9~edge.default~default.svc.cluster.local"}, {Node: "who?"},
			{Node: "sidecar~10.0.0.7~ratings-v1.default~default.svc.cluster.local"},
		}}
		m, out := asking(Mesh{Monitoring: f.serve(t), Proxies: dir})
		if err := m.Explain(t.Context(), Question{From: "reviews", URL: "http://" + address + "/r"}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s:\n%s\nwant %s", address, out, want)
		}
		if address == "10.0.0.7:9080" && (in1.Address != address || in1.Caller.TLS) {
			t.Errorf("the callee's proxy was asked %+v", in1)
		}
	}
}

func TestOtherEnds(t *testing.T) {
	for want, a := range map[string]*explain.Answer{
		"The connection is refused by the proxy of a.b: chain: no chain.": {Outcome: explain.Refuse, Summary: "chain: no chain"},
		"The proxy of a.b answers by itself, 301: moved.":                 {Outcome: explain.Redirect, Status: 301, Summary: "301: moved"},
		"The mesh has no part in it: dialled directly.":                   {Outcome: explain.Bypass, Steps: []explain.Step{{Says: "dialled directly"}}},
	} {
		var s story
		if got := s.verdict(&Explanation{From: "a.b", Caller: a}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
