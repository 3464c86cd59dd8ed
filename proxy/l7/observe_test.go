// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// collector takes spans over OTLP.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	spans chan *tracev1.Span
}

func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, rs := range r.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans <- s
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func newCollector(t *testing.T) (*collector, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: make(chan *tracev1.Span, 16)}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return c, netip.MustParseAddrPort(l.Addr().String())
}

func tags(s *tracev1.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes {
		out[a.Key] = a.Value.GetStringValue()
	}
	return out
}

func TestTracing(t *testing.T) {
	c, addr := newCollector(t)
	r := newRig(t, func(s *setup) {
		s.http.Tracing = &config.Tracing{Client: 10_000, Random: 10_000, Overall: 10_000, MaxPathLength: 10, Cluster: "collector", Service: "shop",
			Tags: []config.Tag{{Name: "lit", Kind: config.TagLiteral, Value: "1"}, {Name: "hdr", Kind: config.TagHeader, Value: "x-t", Default: "none"},
				{Name: "fmt", Kind: config.TagFormat, Value: "%PROTOCOL%"}}}
		s.http.TraceByRequestID, s.http.Tracing.SpawnUpstream = true, true
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)), cluster("collector", upstream.HTTP2, addr))
		f := to("/", "b")
		f.Decorator = &route.Decorator{Operation: "shop:80/*", Propagate: true}
		s.routes = append(s.routes, f)
	})
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
	resp, _ := r.get("/a/very/long/path", "traceparent", parent+"01", "X-T", "yes")
	span, attempt := <-c.spans, <-c.spans
	if attempt.Name != "router b egress" || string(attempt.ParentSpanId) != string(span.SpanId) || tags(attempt)["http.status_code"] != "200" {
		t.Errorf("span of the attempt: %v", attempt)
	}
	if got := resp.Header.Get("Echo-Traceparent"); got[36:52] != hex.EncodeToString(attempt.SpanId) {
		t.Errorf("the endpoint is told %q, not of its attempt", got)
	}
	if got := resp.Header.Get("Echo-Traceparent"); !strings.HasPrefix(got, parent[:36]) || got[36:52] == parent[36:52] || !strings.HasSuffix(got, "-01") {
		t.Errorf("the upstream is told %q", got)
	}
	if resp.Header.Get("Echo-X-Envoy-Decorator-Operation") != "shop:80/*" {
		t.Errorf("the upstream is told the operation %q", resp.Header.Get("Echo-X-Envoy-Decorator-Operation"))
	}
	if id := resp.Header.Get("Echo-X-Request-Id"); len(id) != 36 || id[14] != '9' {
		t.Errorf("x-request-id %q does not tell that the request is sampled", id)
	}
	got := tags(span)
	for k, want := range map[string]string{"http.method": "GET", "http.status_code": "200", "http.url": "http://" + r.addr + "/a/very/lo", "response_flags": "-",
		"upstream_cluster": "b", "component": "proxy", "lit": "1", "hdr": "yes", "fmt": "HTTP/1.1", "response_size": "6"} {
		if got[k] != want {
			t.Errorf("tag %s = %q, want %q", k, got[k], want)
		}
	}
	if span.Name != "shop:80/*" || span.Kind != tracev1.Span_SPAN_KIND_CLIENT || len(span.ParentSpanId) != 8 {
		t.Errorf("span %v", span)
	}
	// A caller that does not sample is heard; the context is passed on all the same.
	resp, _ = r.get("/", "traceparent", parent+"00")
	if got := resp.Header.Get("Echo-Traceparent"); !strings.HasSuffix(got, "-00") {
		t.Errorf("the upstream is told %q", got)
	}
	r.get("/none-of-it")
	if s, a := <-c.spans, <-c.spans; s.ParentSpanId != nil || a.ParentSpanId == nil {
		t.Errorf("a span of a trace that was not sampled: %v", s)
	}
}

func TestMetricsAndJSONLog(t *testing.T) {
	istio := telemetry.NewRegistry(telemetry.Config{})
	self := &filter.Peer{ID: "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local", Workload: "a", Namespace: "shop"}
	r := newRig(t, func(s *setup) {
		s.http.AccessLogs = []config.AccessLog{
			{Path: "", JSON: accesslog.IstioJSON()},
			{Path: "", Text: "never\n", Filter: &config.LogFilter{Op: config.LogAnd, Of: []config.LogFilter{{Op: config.LogStatus, Compare: config.AtLeast, Value: 200}, {Op: config.LogFlags}}}},
		}
		path := t.TempDir() + "/log"
		s.http.AccessLogs[0].Path, s.http.AccessLogs[1].Path = path, path+"2"
		s.entries = []filter.Entry{{Name: "istio.stats", Filter: stock.NewStats(stock.StatsConfig{}, stock.NewMetrics(self, "", istio))}}
		spec := cluster("outbound|80||b.shop.svc.cluster.local", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) { echo(w, r) }))
		spec.Service = upstream.ServiceFact{Host: "b.shop.svc.cluster.local", Name: "b", Namespace: "shop"}
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", spec.Name))
	})
	r.log = r.http.AccessLogs[0].Path
	r.get("/x", "User-Agent", "te\"st")
	var line map[string]any
	if err := json.Unmarshal([]byte(r.logged(1)[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line["user_agent"] != `te"st` || line["response_code"] != 200.0 || line["upstream_cluster"] != "outbound|80||b.shop.svc.cluster.local" || line["route_name"] == nil {
		t.Errorf("log %v", line)
	}
	var page strings.Builder
	if err := telemetry.WritePrometheus(&page, append(istio.Gather(), r.reg.Gather()...)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`destination_service="b.shop.svc.cluster.local"`, `destination_service_name="b"`, `response_code="200"`, `istio_request_duration_milliseconds_count{`,
		`envoy_http_downstream_rq{http_conn_manager_prefix="test",response_code_class="2xx"} 1`, `envoy_http_downstream_cx_total{http_conn_manager_prefix="test"} 1`,
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %s in\n%s", want, page.String())
		}
	}
}
