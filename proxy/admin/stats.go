// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
)

// maxFilter bounds the expression of /stats?filter.
const maxFilter = 1 << 10

func (p *pages) stats(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("format") == "prometheus" {
		p.prometheus(w, r)
		return
	}
	samples, ok := p.gather(w, r)
	if !ok {
		return
	}
	if q.Get("format") == "json" {
		w.Header().Set("Content-Type", "application/json")
		_ = telemetry.WriteJSON(w, samples)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	_ = telemetry.WriteText(w, samples)
}

func (p *pages) prometheus(w http.ResponseWriter, r *http.Request) {
	samples, ok := p.gather(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_ = telemetry.WritePrometheus(w, samples)
}

// gather collects what the query asks for.
func (p *pages) gather(w http.ResponseWriter, r *http.Request) ([]telemetry.Sample, bool) {
	q := r.URL.Query()
	var filter *regexp.Regexp
	if f := q.Get("filter"); f != "" {
		if len(f) > maxFilter {
			http.Error(w, "filter: the expression is too long", http.StatusBadRequest)
			return nil, false
		}
		re, err := regexp.Compile(f)
		if err != nil {
			http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
			return nil, false
		}
		filter = re
	}
	samples := p.Registry.Gather()
	kept := samples[:0]
	for _, s := range samples {
		if q.Has("usedonly") && !s.Used() || filter != nil && !filter.MatchString(s.Name) {
			continue
		}
		kept = append(kept, s)
	}
	return kept, true
}

// ClusterStats emits the counters of all clusters under Envoy's names.
func ClusterStats(set *upstream.Set) func(*telemetry.Emitter) {
	return func(e *telemetry.Emitter) {
		for _, c := range set.Snapshot() {
			name := strings.TrimSuffix(c.Spec.StatName, ";")
			if name == "" {
				name = c.Spec.Name
			}
			emitCluster(e, telemetry.Tag{Key: "cluster_name", Value: name}, &c)
		}
	}
}

func emitCluster(e *telemetry.Emitter, tag telemetry.Tag, c *upstream.Status) {
	s := c.Stats
	counter := func(name string, v int64) { e.Counter("cluster.{cluster_name}."+name, float64(v), tag) }
	gauge := func(name string, v int64) { e.Gauge("cluster.{cluster_name}."+name, float64(v), tag) }
	counter("upstream_rq_total", s.RequestTotal.Load())
	counter("upstream_rq_pending_overflow", s.RequestOverflow.Load())
	counter("upstream_rq_pending_total", s.RequestPendingTotal.Load())
	counter("upstream_rq_retry", s.Retry.Load())
	counter("upstream_rq_retry_overflow", s.RetryOverflow.Load())
	for class := 1; class <= 5; class++ {
		e.Counter("cluster.{cluster_name}.upstream_rq_{response_code_class}", float64(s.Codes[class].Load()), tag,
			telemetry.Tag{Key: "response_code_class", Value: string(rune('0'+class)) + "xx"})
	}
	counter("upstream_cx_total", s.ConnTotal.Load())
	gauge("upstream_cx_active", s.ConnActive.Load())
	counter("upstream_cx_http1_total", s.ConnHTTP1Total.Load())
	counter("upstream_cx_http2_total", s.ConnHTTP2Total.Load())
	counter("upstream_cx_connect_fail", s.ConnectFail.Load())
	counter("upstream_cx_connect_timeout", s.ConnectTimeout.Load())
	counter("upstream_cx_overflow", s.ConnOverflow.Load())
	counter("upstream_cx_idle_timeout", s.ConnIdleRetired.Load())
	counter("upstream_cx_max_duration_reached", s.ConnAgeRetired.Load())
	counter("upstream_cx_retired_before_close", s.ConnLearnedRetired.Load())
	counter("upstream_cx_destroy_remote", s.ConnRemoteClosed.Load())
	counter("upstream_cx_none_healthy", s.NoneHealthy.Load())
	counter("upstream_cx_rx_bytes_total", s.BytesIn.Load())
	counter("upstream_cx_tx_bytes_total", s.BytesOut.Load())
	counter("ssl.handshake", s.SSLHandshake.Load())
	counter("ssl.connection_error", s.SSLFail.Load())
	counter("lb_healthy_panic", s.Panic.Load())
	counter("membership_change", s.UpdateSuccess.Load())
	gauge("outlier_detection.ejections_active", s.EjectionsActive.Load())
	counter("outlier_detection.ejections_enforced_total", s.EjectionsTotal.Load())
	counter("outlier_detection.ejections_overflow", s.EjectionsOverflow.Load())
	healthy := int64(0)
	for _, h := range c.Hosts {
		if hostHealth(h) == "healthy" {
			healthy++
		}
	}
	gauge("membership_total", int64(len(c.Hosts)))
	gauge("membership_healthy", healthy)
}
