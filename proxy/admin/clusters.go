// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"net/http"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/meltemi/meltemi/proxy/upstream"
)

func (p *pages) clusters(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("format") == "json" {
		p.clustersJSON(w)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	for _, c := range p.Clusters.Snapshot() {
		n := c.Spec.Name
		b := c.Spec.Breakers
		fmt.Fprintf(w, "%s::observability_name::%s\n", n, statName(c.Spec))
		fmt.Fprintf(w, "%s::default_priority::max_connections::%d\n%s::default_priority::max_pending_requests::%d\n", n, b.MaxConnections, n, b.MaxPending)
		fmt.Fprintf(w, "%s::default_priority::max_requests::%d\n%s::default_priority::max_retries::%d\n", n, b.MaxRequests, n, b.MaxRetries)
		fmt.Fprintf(w, "%s::added_via_api::true\n", n)
		for _, h := range c.Hosts {
			s, e := h.Stats(), h.Endpoint()
			prefix := n + "::" + h.String() + "::"
			for _, f := range []struct {
				name  string
				value any
			}{
				{"cx_active", s.ConnActive.Load()}, {"cx_connect_fail", s.ConnectFail.Load()}, {"cx_total", s.ConnTotal.Load()},
				{"rq_active", s.Active.Load()}, {"rq_error", s.Error.Load()}, {"rq_success", s.Success.Load()},
				{"rq_timeout", s.Timeout.Load()}, {"rq_total", s.Total.Load()}, {"hostname", e.Hostname},
				{"health_flags", healthFlags(h)}, {"weight", max(1, e.Weight)}, {"priority", 0},
			} {
				fmt.Fprintf(w, "%s%s::%v\n", prefix, f.name, f.value)
			}
		}
	}
}

func statName(s *upstream.Spec) string {
	if s.StatName != "" {
		return s.StatName
	}
	return s.Name
}

// hostHealth is how balancing sees h.
func hostHealth(h *upstream.Host) string {
	switch e := h.Endpoint(); {
	case h.Ejected():
		return "ejected"
	case e.Health == upstream.Unhealthy || e.Health == upstream.Draining:
		return "unhealthy"
	case e.Health == upstream.Degraded:
		return "degraded"
	}
	return "healthy"
}

// healthFlags is Envoy's text for it.
func healthFlags(h *upstream.Host) string {
	switch hostHealth(h) {
	case "ejected":
		return "/failed_outlier_check"
	case "unhealthy":
		return "/failed_eds_health"
	case "degraded":
		return "/degraded_eds_health"
	}
	return "healthy"
}

func (p *pages) clustersJSON(w http.ResponseWriter) {
	out := &adminv3.Clusters{}
	for _, c := range p.Clusters.Snapshot() {
		cs := &adminv3.ClusterStatus{Name: c.Spec.Name, AddedViaApi: true, ObservabilityName: statName(c.Spec)}
		for _, h := range c.Hosts {
			cs.HostStatuses = append(cs.HostStatuses, hostStatus(h))
		}
		out.ClusterStatuses = append(out.ClusterStatuses, cs)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: " "}.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

func hostStatus(h *upstream.Host) *adminv3.HostStatus {
	s, e := h.Stats(), h.Endpoint()
	health := &adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY, FailedOutlierCheck: h.Ejected()}
	switch e.Health {
	case upstream.Unhealthy:
		health.EdsHealthStatus = corev3.HealthStatus_UNHEALTHY
	case upstream.Draining:
		health.EdsHealthStatus = corev3.HealthStatus_DRAINING
	case upstream.Degraded:
		health.EdsHealthStatus = corev3.HealthStatus_DEGRADED
	}
	out := &adminv3.HostStatus{Weight: max(1, e.Weight), Hostname: e.Hostname, HealthStatus: health}
	if e.Pipe != "" {
		out.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.Pipe}}}
	} else {
		out.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: h.Addr().Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.Addr().Port())},
		}}}
	}
	for _, m := range []struct {
		name  string
		value int64
		kind  adminv3.SimpleMetric_Type
	}{
		{"cx_active", s.ConnActive.Load(), adminv3.SimpleMetric_GAUGE}, {"cx_connect_fail", s.ConnectFail.Load(), adminv3.SimpleMetric_COUNTER},
		{"cx_total", s.ConnTotal.Load(), adminv3.SimpleMetric_COUNTER}, {"rq_active", s.Active.Load(), adminv3.SimpleMetric_GAUGE},
		{"rq_error", s.Error.Load(), adminv3.SimpleMetric_COUNTER}, {"rq_success", s.Success.Load(), adminv3.SimpleMetric_COUNTER},
		{"rq_timeout", s.Timeout.Load(), adminv3.SimpleMetric_COUNTER}, {"rq_total", s.Total.Load(), adminv3.SimpleMetric_COUNTER},
	} {
		out.Stats = append(out.Stats, &adminv3.SimpleMetric{Name: m.name, Value: uint64(max(0, m.value)), Type: m.kind})
	}
	return out
}
