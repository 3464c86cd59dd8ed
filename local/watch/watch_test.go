// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// metrics is what a proxy says: n requests from productpage to reviews, one in four to v3 and one in four of those failed.
func metrics(reporter string, n int, security string) string {
	var b strings.Builder
	b.WriteString("# HELP envoy_other_total x\n# TYPE envoy_other_total counter\nenvoy_other_total 1\n# TYPE istio_requests_total counter\n")
	line := func(version, code string, n int) {
		fmt.Fprintf(&b, "istio_requests_total{reporter=%q,source_workload=\"productpage-v1\",destination_service_name=\"reviews\",destination_version=%q,response_code=%q,connection_security_policy=%q} %d\n",
			reporter, version, code, security, n)
	}
	line("v1", "200", n*3/4)
	line("v3", "200", n*3/16)
	line("v3", "503", n/16)
	b.WriteString("# TYPE istio_request_duration_milliseconds histogram\n")
	for _, le := range []struct {
		bound string
		part  float64
	}{{"10", 0.5}, {"100", 0.9}, {"+Inf", 1}} {
		fmt.Fprintf(&b, "istio_request_duration_milliseconds_bucket{reporter=%q,source_workload=\"productpage-v1\",destination_service_name=\"reviews\",destination_version=\"v1\",le=%q} %d\n",
			reporter, le.bound, int(float64(n)*le.part))
	}
	fmt.Fprintf(&b, "istio_request_duration_milliseconds_sum{reporter=%[1]q,source_workload=\"productpage-v1\",destination_service_name=\"reviews\",destination_version=\"v1\"} %[2]d\nistio_request_duration_milliseconds_count{reporter=%[1]q,source_workload=\"productpage-v1\",destination_service_name=\"reviews\",destination_version=\"v1\"} %[2]d\n", reporter, n)
	return b.String()
}

// serveText serves f's text at every path.
func serveText(t *testing.T, f func(path string) string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, f(r.URL.Path)) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestPicture(t *testing.T) {
	var n atomic.Int64
	n.Store(1600)
	caller := serveText(t, func(string) string { return metrics("source", int(n.Load()), "unknown") })
	callee := serveText(t, func(string) string { return metrics("destination", int(n.Load()), "mutual_tls") })
	control := serveText(t, func(path string) string {
		if path == "/debug/syncz" {
			return `[{"Node":"sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local","Types":[{"TypeURL":"type.googleapis.com/envoy.config.listener.v3.Listener","Rejected":[{"Name":"virtualInbound","Detail":"no"}]},{"Waiting":0}]}]`
		}
		return `[{"file":"a.yaml","line":7,"object":"VirtualService default/reviews","field":"spec.http[0]","message":"wrong","severity":"warning"}]`
	})
	w := New(Defaults(control))
	w.Add(Target{Name: "caller", URL: caller})
	w.Add(Target{Name: "callee", URL: callee})
	w.Add(Target{Name: "dead", URL: "http://127.0.0.1:1"})
	if p := w.Look(t.Context()); len(p.Edges) != 0 {
		t.Errorf("edges before anything was counted: %+v", p.Edges)
	}
	n.Store(3200)
	p := w.Look(t.Context())
	if len(p.Edges) != 2 {
		t.Fatalf("%+v", p.Edges)
	}
	v1, v3 := p.Edges[0], p.Edges[1]
	if v1.From != "productpage-v1" || v1.To != "reviews" || v1.Version != "v1" || v1.Requests != 1200 || v1.Rate != 1200 || v1.Share != 0.75 || v1.Success != 1 || v1.Security != Mutual {
		t.Errorf("%+v", v1)
	}
	if v1.P50 != 10*time.Millisecond || v1.P99 != 100*time.Millisecond {
		t.Errorf("p50 %s, p99 %s", v1.P50, v1.P99)
	}
	if v3.Version != "v3" || v3.Share != 0.25 || v3.Success != 0.75 {
		t.Errorf("%+v", v3)
	}
	if len(p.Proxies) != 3 || p.Proxies[2].Name != "dead" || p.Proxies[2].Err == "" || p.Proxies[0].Err != "" {
		t.Errorf("%+v", p.Proxies)
	}
	if len(p.Problems) != 2 || p.Problems[0].Severity != "error" || !strings.Contains(p.Problems[0].String(), "reviews-v1.default: virtualInbound: the proxy refuses its configuration: no") {
		t.Errorf("%v", p.Problems)
	}
	if got := p.Problems[1].String(); got != "a.yaml:7: VirtualService default/reviews: spec.http[0]: wrong" {
		t.Error(got)
	}
	if p.Control != "" {
		t.Error(p.Control)
	}
	n.Store(160) // the proxies were restarted
	if p := w.Look(t.Context()); p.Edges[0].Requests != 1200+120 {
		t.Errorf("after a restart: %+v", p.Edges[0])
	}
	w.Remove("dead")
	if p := w.Look(t.Context()); len(p.Proxies) != 2 || len(w.Picture().Proxies) != 2 {
		t.Errorf("%+v", p.Proxies)
	}
}

func TestCalleeAloneIsEnough(t *testing.T) {
	var n atomic.Int64
	w := New(Defaults(""))
	w.Add(Target{Name: "callee", URL: serveText(t, func(string) string { return metrics("destination", int(n.Load()), "none") })})
	w.Look(t.Context())
	n.Store(16)
	if p := w.Look(t.Context()); len(p.Edges) != 2 || p.Edges[0].Security != Plain {
		t.Errorf("%+v", p.Edges)
	}
}

func TestControlPlaneAway(t *testing.T) {
	w := New(Defaults("http://127.0.0.1:1"))
	if p := w.Look(t.Context()); !strings.Contains(p.Control, "control plane") {
		t.Errorf("%q", p.Control)
	}
}

func TestRunShowsUntilItEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	shown := 0
	w := New(Config{Every: time.Millisecond, Window: time.Second})
	if err := w.Run(ctx, func(Picture) {
		if shown++; shown == 3 {
			cancel()
		}
	}); err != nil || shown != 3 {
		t.Errorf("%d, %v", shown, err)
	}
}

func TestQuantile(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		buckets map[float64]float64
		q       float64
		want    time.Duration
	}{
		{nil, 0.5, 0},
		{map[float64]float64{1: 0, inf: 0}, 0.5, 0},
		{map[float64]float64{10: 10, inf: 10}, 0.5, 5 * time.Millisecond},
		{map[float64]float64{10: 0, 20: 10, inf: 10}, 0.5, 15 * time.Millisecond},
		{map[float64]float64{10: 5, inf: 10}, 0.99, 10 * time.Millisecond}, // beyond what is known
	} {
		if got := quantile(c.buckets, c.q); got != c.want {
			t.Errorf("%v %v = %s, want %s", c.buckets, c.q, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(metrics("source", 16, "none"))
	f.Fuzz(func(t *testing.T, text string) { _, _ = parse(text) })
}
