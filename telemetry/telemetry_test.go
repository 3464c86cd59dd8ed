// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestNames(t *testing.T) {
	cluster := Tag{"cluster_name", "outbound|80||a.b.svc.cluster.local;"}
	for _, c := range []struct {
		template   string
		tags       []Tag
		text, prom string
	}{
		{"cluster.{cluster_name}.upstream_rq_total", []Tag{cluster},
			"cluster.outbound|80||a.b.svc.cluster.local;.upstream_rq_total", "envoy_cluster_upstream_rq_total"},
		{"cluster.{cluster_name}.upstream_rq_{response_code_class}", []Tag{cluster, {"response_code_class", "2xx"}},
			"cluster.outbound|80||a.b.svc.cluster.local;.upstream_rq_2xx", "envoy_cluster_upstream_rq"},
		{"server.state", nil, "server.state", "envoy_server_state"},
		{"istio_requests_total", []Tag{{"reporter", "source"}}, "istio_requests_total.reporter.source", "istio_requests_total"},
		{"listener_manager.lds.update_success", nil, "listener_manager.lds.update_success", "envoy_listener_manager_lds_update_success"},
	} {
		if got := textName(c.template, c.tags); got != c.text {
			t.Errorf("text name of %s = %q, want %q", c.template, got, c.text)
		}
		if got := promName(c.template); got != c.prom {
			t.Errorf("Prometheus name of %s = %q, want %q", c.template, got, c.prom)
		}
	}
}

func TestExpositionIsReadByPrometheus(t *testing.T) {
	r := NewRegistry(Config{Buckets: []BucketRule{{Prefix: "istio_request_bytes", Bounds: []float64{10, 20}}}})
	r.Counter("cluster.{cluster_name}.upstream_rq_total", Tag{"cluster_name", "a\"\n\\\xff"}).Add(3)
	r.Gauge("server.state").Set(2)
	h := r.Histogram("istio_request_bytes", Tag{"reporter", "source"})
	for _, v := range []float64{1, 10, 15, 99} {
		h.Record(v)
	}
	r.Collect(func(e *Emitter) { e.Gauge("istio_build", 1, Tag{"component", "proxy"}) })
	var page strings.Builder
	if err := WritePrometheus(&page, r.Gather()); err != nil {
		t.Fatal(err)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	fams, err := p.TextToMetricFamilies(strings.NewReader(page.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, page.String())
	}
	if got := fams["envoy_cluster_upstream_rq_total"].GetMetric()[0].GetCounter().GetValue(); got != 3 {
		t.Errorf("counter = %v, want 3", got)
	}
	hist := fams["istio_request_bytes"].GetMetric()[0].GetHistogram()
	if hist.GetSampleCount() != 4 || hist.GetSampleSum() != 125 || hist.GetBucket()[0].GetCumulativeCount() != 2 || hist.GetBucket()[1].GetCumulativeCount() != 3 {
		t.Errorf("histogram = %v", hist)
	}
	if fams["istio_build"] == nil || fams["envoy_server_state"].GetMetric()[0].GetGauge().GetValue() != 2 {
		t.Errorf("gauges missing in\n%s", page.String())
	}
}

func TestText(t *testing.T) {
	r := NewRegistry(Config{})
	r.Counter("cluster_manager.cds.update_success").Inc()
	r.Counter("evil.{x}", Tag{"x", "a\nb: 1"})
	r.Histogram("h.x")
	var page strings.Builder
	if err := WriteText(&page, r.Gather()); err != nil {
		t.Fatal(err)
	}
	want := "cluster_manager.cds.update_success: 1\nevil.a_b: 1: 0\nh.x: No recorded values\n"
	if page.String() != want {
		t.Errorf("got %q, want %q", page.String(), want)
	}
}

func TestSameNameSameMetric(t *testing.T) {
	r := NewRegistry(Config{})
	a, b := r.Counter("x", Tag{"k", "v"}), r.Counter("x", Tag{"k", "v"})
	if a != b {
		t.Error("two counters of one name")
	}
	r.Drop("x", Tag{"k", "v"})
	if len(r.Gather()) != 1 {
		t.Error("dropped while in use")
	}
	r.Drop("x", Tag{"k", "v"})
	if len(r.Gather()) != 0 {
		t.Error("not dropped")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	h := NewHistogram(DefaultBuckets())
	if n := testing.AllocsPerRun(100, func() { h.Record(12.5) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	var d Distribution
	h.AddTo(&d)
	if q := d.Quantile(0.5); q < 10 || q > 25 {
		t.Errorf("median = %v, want 10 to 25", q)
	}
}

func BenchmarkRecord(b *testing.B) {
	h := NewHistogram(DefaultBuckets())
	for b.Loop() {
		h.Record(12.5)
	}
}
