// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
)

const caller = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"

// newWorld loads a bootstrap the way a proxy does.
func newWorld(t *testing.T, file string) World {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := upstream.NewSet(upstream.Config{})
	t.Cleanup(set.Close)
	reg, self := telemetry.NewRegistry(telemetry.Config{}), &filter.Peer{Name: "reviews-v1", Namespace: "default"}
	store, err := config.NewStore(config.Config{
		Clusters: set, Registry: reg, Metrics: stock.NewMetrics(self, "test", reg), Self: self, Identity: identity(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	snap, err := store.LoadStatic(b)
	if err != nil {
		t.Fatal(err)
	}
	return World{Snapshot: snap, Clusters: set, Identity: caller}
}

func ask(t *testing.T, w World, q Query) *Answer {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Ask(context.Background(), w, b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// step returns the last step of a stage.
func step(t *testing.T, a *Answer, stage Stage) Step {
	t.Helper()
	for _, s := range slices.Backward(a.Steps) {
		if s.Stage == stage {
			return s
		}
	}
	t.Fatalf("no step %s in %+v", stage, a.Steps)
	return Step{}
}

func ptr[T any](v T) *T { return &v }

func TestOutboundThroughTheForwardProxy(t *testing.T) {
	w := newWorld(t, "testdata/sidecar.yaml")
	a := ask(t, w, Query{Side: Outbound, URL: "http://ratings:9080/a/../ratings/0?x=1", Random: ptr(uint64(79))})
	if a.Outcome != Forward || a.Next == nil {
		t.Fatalf("%+v", a)
	}
	if s := step(t, a, StageListener); s.Name != "127.0.0.1_15080" {
		t.Errorf("listener %+v", s)
	}
	if s := step(t, a, StageRequest); !strings.Contains(s.Name, "/ratings/0?x=1") || len(s.Notes) != 1 {
		t.Errorf("request %+v", s)
	}
	r := step(t, a, StageRoute)
	if r.Name != "split" || !slices.Equal(r.From, []string{"VirtualService/default/ratings spec.http[1]"}) {
		t.Errorf("route %+v", r)
	}
	var lost []string
	for _, c := range r.Considered {
		if !c.Chosen {
			lost = append(lost, c.Name+": "+c.Why)
		}
	}
	want := []string{
		"virtual host allow_any: domain * is less specific",
		`route for mallory: does not fit: header end-user: exact "mallory"`, `route old: does not fit: path prefix "/old"`,
		"cluster outbound|9080|v2|ratings.default.svc.cluster.local: weight 20",
	}
	if !slices.Equal(lost, want) {
		t.Errorf("lost: %q", lost)
	}
	n := a.Next
	if n.Address != "127.0.0.1:15090" || n.Workload != "ratings-v1" || n.Namespace != "default" || !n.Mutual || n.Identity != caller ||
		n.SNI != "outbound_.9080_.v1_.ratings.default.svc.cluster.local" || n.Path != "/ratings/0?x=1" {
		t.Errorf("next %+v", n)
	}
	e := step(t, a, StageEndpoint)
	if e.Name != n.Address || len(e.Considered) != 1 && len(e.Considered) != 2 {
		t.Errorf("endpoint %+v", e)
	}
	if s := step(t, a, StageSecurity); s.Name != "mutual TLS" {
		t.Errorf("security %+v", s)
	}
}

func TestOutcomes(t *testing.T) {
	w := newWorld(t, "testdata/sidecar.yaml")
	for _, c := range []struct {
		name    string
		q       Query
		outcome Outcome
		status  int
		says    string
	}{
		{"fault", Query{URL: "http://ratings:9080/", Headers: []Header{{"end-user", "mallory"}}}, Refuse, 500, "aborted with 500"},
		{"redirect", Query{URL: "http://ratings/old/x"}, Redirect, 301, "redirected to http://ratings/new"},
		{"no endpoint", Query{URL: "http://ratings/", Random: ptr(uint64(80))}, Refuse, 503, "no endpoint (UH)"},
		{"no cluster", Query{URL: "http://other/only"}, Refuse, 503, "not known here (NC)"},
		{"no route", Query{URL: "http://other/"}, Refuse, 404, "no route (NR)"},
		{"not HTTP", Query{URL: "tcp://db:5432"}, Bypass, 0, "dials db:5432 itself"},
	} {
		c.q.Side = Outbound
		a := ask(t, w, c.q)
		if a.Outcome != c.outcome || a.Status != c.status || !strings.Contains(a.Summary, c.says) {
			t.Errorf("%s: %s %d %q", c.name, a.Outcome, a.Status, a.Summary)
		}
	}
}

func TestInboundPolicy(t *testing.T) {
	w := newWorld(t, "testdata/sidecar.yaml")
	mutual := Caller{TLS: true, Identity: caller, ALPN: []string{"istio-http/1.1", "istio"}}
	for _, c := range []struct {
		name    string
		q       Query
		outcome Outcome
		status  int
		says    string
	}{
		{"allowed", Query{Caller: mutual}, Forward, 0, "goes to 127.0.0.1:9080 by plaintext"},
		{"wrong method", Query{Caller: mutual, Method: "POST"}, Refuse, 403, "none matches"},
		{"wrong caller", Query{Caller: Caller{TLS: true, Identity: "spiffe://cluster.local/ns/default/sa/x"}}, Refuse, 403, "none matches"},
		{"no certificate", Query{Caller: Caller{TLS: true}}, Refuse, 0, "a client certificate is required"},
		{"plaintext", Query{}, Refuse, 0, "mutual TLS is required (NR)"},
		{"another port", Query{Address: "127.0.0.1:1", Caller: mutual}, Bypass, 0, "reach the workload itself"},
	} {
		c.q.Side, c.q.URL = Inbound, "http://ratings:9080/ratings/0"
		if c.q.Address == "" {
			c.q.Address = "127.0.0.1:15090"
		}
		a := ask(t, w, c.q)
		if a.Outcome != c.outcome || a.Status != c.status || !strings.Contains(a.Summary, c.says) {
			t.Errorf("%s: %s %d %q", c.name, a.Outcome, a.Status, a.Summary)
		}
	}
	a := ask(t, w, Query{Side: Inbound, Address: "127.0.0.1:15090", URL: "http://ratings:9080/", Caller: mutual})
	if s := step(t, a, StagePolicy); !slices.Equal(s.From, []string{"AuthorizationPolicy/default/ratings-reader spec.rules[0]"}) {
		t.Errorf("policy %+v", s)
	}
	if s := step(t, a, StageChain); !slices.Equal(s.From, []string{"PeerAuthentication/istio-system/default spec.mtls"}) {
		t.Errorf("chain %+v", s)
	}
}

// A listener that should listen and does not takes nothing.
func TestAListenerThatDoesNotListen(t *testing.T) {
	for name, c := range map[string]struct {
		world, listener string
		q               Query
	}{
		"forward proxy": {"testdata/sidecar.yaml", "127.0.0.1_15080", Query{Side: Outbound, URL: "http://ratings:9080/"}},
		"capture":       {"testdata/captured.yaml", "virtualOutbound", Query{Side: Outbound, URL: "http://10.0.0.1/"}},
	} {
		w := newWorld(t, c.world)
		w.Unopened = map[string]error{"another": errors.New("no"), c.listener: errors.New("the port is taken")}
		a := ask(t, w, c.q)
		if a.Outcome != Refuse || a.Status != 0 || !strings.Contains(a.Summary, "should listen and does not: the port is taken") || len(a.Steps) != 1 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	w := newWorld(t, "testdata/sidecar.yaml")
	q := Query{Side: Inbound, URL: "http://ratings:9080/", Address: "127.0.0.1:15090"}
	a := ask(t, w, q)
	w.Unopened = map[string]error{step(t, a, StageListener).Name: errors.New("the port is taken")}
	if a = ask(t, w, q); a.Outcome != Refuse || !strings.Contains(a.Summary, "the port is taken") {
		t.Errorf("inbound: %+v", a)
	}
}

func TestQueriesThatAreNone(t *testing.T) {
	w := newWorld(t, "testdata/sidecar.yaml")
	for text, want := range map[string]string{
		`{`:                                   "unexpected EOF",
		`{"sides":1}`:                         "unknown field",
		`{"side":"outbound","url":"x"}`:       "want http://",
		`{"side":"up","url":"http://a"}`:      `side "up"`,
		`{"side":"inbound","url":"http://a"}`: "address: say which",
		`{"side":"outbound","url":"http://a","address":"b"}`: "address: ",
		`{"side":"outbound","url":"tcp://a"}`:                "names no port",
	} {
		if _, err := Ask(t.Context(), w, json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := (World{}).Answer(t.Context(), Query{Side: Outbound, URL: "http://a"}); err == nil {
		t.Error("without configuration: no error")
	}
}

// A path is what its spelling is, as on the wire.
func TestPathsAreAskedAboutAsTheyAreSpelled(t *testing.T) {
	for text, want := range map[string]string{
		"http://a": "/", "http://a/": "/", "http://a:1?q=/x#f": "/?q=/x", "http://a/x/..\\y": "/x/..\\y", "http://a/%2fx/%41?a=b c": "",
		"http://a//x/%2fx/%41": "//x/%2fx/%41", "http://a/%zz": "/%zz", "http://u@a/@:": "/@:", "http://[::1]:80/?": "/?",
	} {
		r, err := newRequest(Query{Side: Outbound, URL: text})
		switch {
		case want == "" && err == nil:
			t.Errorf("%s is a path", text)
		case want != "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && r.message.Path != want:
			t.Errorf("%s: %q", text, r.message.Path)
		}
	}
}

func TestOutboundCaptured(t *testing.T) {
	w := newWorld(t, "testdata/captured.yaml")
	w.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "details":
			return []netip.Addr{netip.MustParseAddr("240.240.0.1")}, nil
		case "broken":
			return nil, errors.New("no resolver answers")
		}
		return nil, nil
	}
	for _, c := range []struct {
		url, address    string
		outcome         Outcome
		listener, chain string
		says            string
	}{
		{"http://details:9080/", "", Respond, "0.0.0.0_9080", "(unnamed)", "204: "},
		{"https://details:9080/", "", Forward, "0.0.0.0_9080", "PassthroughFilterChain", "goes to 240.240.0.1:9080"},
		{"tcp://10.0.0.1:5432", "", Forward, "virtualOutbound", "virtualOutbound-catchall-tcp", "goes to 10.0.0.1:5432 by plaintext"},
		{"http://any/", "10.0.0.1:15001", Refuse, "virtualOutbound", "virtualOutbound-blackhole", "no endpoint (UH)"},
		{"http://unknown/", "", Refuse, "", "", `"unknown" has no address`},
		{"http://broken/", "", Refuse, "", "", "no resolver answers"},
	} {
		a := ask(t, w, Query{Side: Outbound, URL: c.url, Address: c.address})
		if a.Outcome != c.outcome || !strings.Contains(a.Summary, c.says) {
			t.Errorf("%s: %s %q", c.url, a.Outcome, a.Summary)
		}
		if c.listener == "" {
			continue
		}
		if l, ch := step(t, a, StageListener), step(t, a, StageChain); l.Name != c.listener || ch.Name != c.chain || len(ch.Notes) == 0 {
			t.Errorf("%s: %s, %+v", c.url, l.Name, ch)
		}
	}
	w.Lookup = nil
	if _, err := w.Answer(t.Context(), Query{Side: Outbound, URL: "http://details/"}); err == nil {
		t.Error("a name without a way to look it up: no error")
	}
}

func TestOnDemand(t *testing.T) {
	w := newWorld(t, "testdata/captured.yaml")
	http := w.Snapshot.Listener("0.0.0.0_9080")
	all := w.Snapshot.Listener("virtualOutbound").Chains[1]
	all.OnDemand, all.TCP = &config.OnDemand{HTTP: http.Chains[0].HTTP, TCP: all.TCP}, nil
	known := Demanded{Name: "details.default.svc.cluster.local:80", Found: true}
	for name, c := range map[string]struct {
		to      Demanded
		err     error
		url     string
		outcome Outcome
		says    string
	}{
		"HTTP":     {known.with(http.Chains[0].HTTP.Routes, nil, nil), nil, "http://10.0.0.1/", Respond, "204"},
		"bytes":    {known.with(nil, w.Clusters.Ref("PassthroughCluster"), nil), nil, "tcp://10.0.0.1:80", Forward, "goes to 10.0.0.1:80"},
		"listener": {known.with(nil, nil, http), nil, "tcp://10.0.0.1:80", Forward, "goes to 10.0.0.1:80"},
		"neither":  {known, nil, "tcp://10.0.0.1:80", Refuse, "only HTTP goes there"},
		"nobody":   {Demanded{}, nil, "http://10.0.0.1/", Forward, "goes to 10.0.0.1:80"},
		"outage":   {Demanded{}, errors.New("the control plane is away"), "http://10.0.0.1/", Refuse, "the control plane is away"},
	} {
		w.Demand = func(_ context.Context, dst netip.AddrPort, host string) (Demanded, error) {
			if dst.String() != "10.0.0.1:80" || host != "10.0.0.1" {
				t.Errorf("%s: asked for %s, %s", name, dst, host)
			}
			return c.to, c.err
		}
		if a := ask(t, w, Query{Side: Outbound, URL: c.url}); a.Outcome != c.outcome || !strings.Contains(a.Summary, c.says) {
			t.Errorf("%s: %s %q", name, a.Outcome, a.Summary)
		}
	}
	w.Demand = nil
	if _, err := w.Answer(t.Context(), Query{Side: Outbound, URL: "http://10.0.0.1/"}); err == nil {
		t.Error("nobody to ask: no error")
	}
}

func (d Demanded) with(r *config.RouteRef, c *upstream.Ref, l *config.Listener) Demanded {
	d.Routes, d.Cluster, d.Listener = r, c, l
	return d
}

// Which protocols are offered depends on what is carried.
func TestProtocolsOffered(t *testing.T) {
	set := upstream.NewSet(upstream.Config{})
	t.Cleanup(set.Close)
	set.Put(&upstream.Spec{
		Name:      "c",
		Default:   upstream.Transport{TLS: &tls.Config{}, ALPN: []string{"bytes"}, ALPNHTTP1: []string{"one"}, ALPNHTTP2: []string{"two"}},
		Endpoints: &upstream.Assignment{Localities: []upstream.Locality{{Endpoints: []upstream.Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:80")}}}}},
	})
	for version, want := range map[message.Version]string{0: "bytes", message.HTTP11: "one"} {
		var a Answer
		a.toCluster(set.Ref("c"), &upstream.Request{Version: version})
		if a.Next == nil || strings.Join(a.Next.ALPN, ",") != want {
			t.Errorf("version %d: %+v, want %s", version, a.Next, want)
		}
	}
}
