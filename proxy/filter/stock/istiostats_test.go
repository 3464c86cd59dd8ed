// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
)

func page(t *testing.T, reg *telemetry.Registry) string {
	t.Helper()
	var b strings.Builder
	if err := telemetry.WritePrometheus(&b, reg.Gather()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestServerSideLabels(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	s := NewStats(StatsConfig{NoHostFallback: true}, NewMetrics(self, "1.0", reg))
	x := exchange()
	x.Conn.Peer.URISANs = []string{"spiffe://cluster.local/ns/front/sa/a"}
	x.Conn.Own.URISANs = []string{self.Identity}
	x.DownstreamPeer = caller
	x.Upstream.Spec = &upstream.Spec{Name: "inbound|80||", Service: upstream.ServiceFact{Host: "b.shop.svc.cluster.local", Name: "b", Namespace: "shop"}}
	x.Response.Status = 200
	x.WireReceived, x.WireSent = 120, 2000
	x.MarkAt(filter.ResponseEnd, 7*time.Millisecond)
	s.OnEnd(x)
	s.OnEnd(x)
	want := `istio_requests_total{reporter="destination",source_workload="a",source_canonical_service="a",source_canonical_revision="v2",` +
		`source_workload_namespace="front",source_principal="spiffe://cluster.local/ns/front/sa/a",source_app="a",source_version="v2",source_cluster="c1",` +
		`destination_workload="b",destination_workload_namespace="shop",destination_principal="spiffe://cluster.local/ns/shop/sa/b",destination_app="b",` +
		`destination_version="v1",destination_service="b.shop.svc.cluster.local",destination_canonical_service="b",destination_canonical_revision="v1",` +
		`destination_service_name="b",destination_service_namespace="shop",destination_cluster="c1",request_protocol="http",response_code="200",` +
		`grpc_response_status="",response_flags="-",connection_security_policy="mutual_tls"} 2`
	got := page(t, reg)
	if !strings.Contains(got, want) {
		t.Errorf("no\n%s\nin\n%s", want, got)
	}
	for _, want := range []string{"istio_request_duration_milliseconds_sum", "istio_request_bytes_bucket", "istio_response_bytes_count", `istio_build{component="proxy",tag="1.0"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
}

// Messages are counted by who the two ends are, whatever becomes of the call.
func TestMessagesOfCalls(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	s := NewStats(StatsConfig{}, NewMetrics(self, "", reg))
	x := exchange()
	x.GRPC, x.GRPCStatus, x.DownstreamPeer = true, -1, caller
	s.Messages(x).Count(x.Conn.ID, 3, 1)
	x.GRPCStatus, x.Response.Status, x.Flags = 5, 200, filter.UpstreamRemoteReset
	s.Messages(x).Count(x.Conn.ID, 0, 4)
	got := page(t, reg)
	for _, want := range []string{`destination_cluster="c1"} 3`, `destination_cluster="c1"} 5`, `istio_request_messages_total{reporter="destination",source_workload="a"`, "istio_response_messages_total{"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "istio_requests_total{") {
		t.Error("a call that goes on was counted as over")
	}
}

func TestClientSideLabels(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	s := NewStats(StatsConfig{}, NewMetrics(self, "", reg))
	spiffe, err := url.Parse("spiffe://cluster.local/ns/db/sa/c")
	if err != nil {
		t.Fatal(err)
	}
	x := exchange()
	x.Conn.Direction = filter.Outbound
	x.GRPC, x.GRPCStatus = true, 5
	x.Response.Status = 200
	x.Flags = filter.UpstreamRemoteReset
	x.Upstream = filter.Upstream{
		Spec:     &upstream.Spec{Name: "outbound|80||c"},
		Endpoint: &upstream.Endpoint{Workload: "c;ns;canon;;c2"}, Mutual: true,
		TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{URIs: []*url.URL{spiffe}}}},
	}
	s.OnEnd(x)
	plain := exchange()
	plain.Conn.Direction = filter.Outbound
	plain.Target.Route = "block_all"
	s.OnEnd(plain)
	got := page(t, reg)
	for _, want := range []string{
		`source_principal="spiffe://cluster.local/ns/shop/sa/b"`, `destination_workload="c",destination_workload_namespace="db",destination_principal="spiffe://cluster.local/ns/db/sa/c"`,
		`destination_service="a.shop.svc:80",destination_canonical_service="canon",destination_canonical_revision="latest",destination_service_name="a"`,
		`destination_cluster="c2",request_protocol="grpc",response_code="200",grpc_response_status="5",response_flags="UR",connection_security_policy="unknown"`,
		`destination_service_name="BlackHoleCluster"`, `response_code="0"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no\n%s\nin\n%s", want, got)
		}
	}
}

func TestOverrides(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	host, err := ParseAttribute("request.headers['x-tenant']")
	if err != nil {
		t.Fatal(err)
	}
	lit, err := ParseAttribute(`"fixed"`)
	if err != nil {
		t.Fatal(err)
	}
	s := NewStats(StatsConfig{Overrides: []Override{
		{Metric: "request_bytes", Drop: true},
		{Remove: []string{"source_principal"}},
		{Metric: "requests_total", Set: []Dimension{{"tenant", host}, {"reporter", lit}}},
	}}, NewMetrics(self, "", reg))
	x := exchange()
	x.Request.Header.Add("X-Tenant", "acme")
	s.OnEnd(x)
	y := exchange()
	s.OnEnd(y)
	got := page(t, reg)
	if strings.Contains(got, "istio_request_bytes") || strings.Contains(got, "source_principal") {
		t.Errorf("dropped things are there in\n%s", got)
	}
	for _, want := range []string{`tenant="acme"`, `tenant="unknown"`, `istio_requests_total{reporter="fixed"`, `istio_response_bytes_count{reporter="destination"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if _, err := ParseAttribute("request.size + 1"); err == nil {
		t.Error("an expression that cannot be evaluated was accepted")
	}
}

func TestTCPSeries(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	s := NewStats(StatsConfig{}, NewMetrics(self, "", reg))
	series := s.TCP(&filter.Exchange{Conn: &filter.Conn{Direction: filter.Inbound}, DownstreamPeer: caller})
	series.Opened(1)
	series.Sent(1, 10)
	series.Received(1, 5)
	series.Closed(1)
	got := page(t, reg)
	for _, want := range []string{"istio_tcp_connections_opened_total{", "istio_tcp_connections_closed_total{", "istio_tcp_sent_bytes_total{", `request_protocol="tcp",response_flags="-",connection_security_policy="none"} 5`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestSeriesAreBounded(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	m := NewMetrics(self, "", reg)
	for i := range maxSeries + 100 {
		m.counter("x", []telemetry.Tag{{Key: "host", Value: strings.Repeat("h", 1+i%7) + string(rune('a'+i%26)) + time.Duration(i).String()}})
	}
	if n := len(m.counters); n > maxSeries+1 {
		t.Errorf("%d series, want at most %d", n, maxSeries+1)
	}
	if m.overflow.Value() == 0 {
		t.Error("refused series are not counted")
	}
}

func TestStatsDoNotAllocate(t *testing.T) {
	s, x := benchStats()
	s.OnEnd(x)
	if n := testing.AllocsPerRun(100, func() { s.OnEnd(x) }); n != 0 {
		t.Errorf("%v allocations per exchange, want 0", n)
	}
}

func TestStatsFromManyGoroutines(t *testing.T) {
	reg := telemetry.NewRegistry(telemetry.Config{})
	s := NewStats(StatsConfig{}, NewMetrics(self, "", reg))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			x := exchange()
			x.Conn.ID = uint64(g)
			for i := range 2000 {
				x.Response.Status = 200 + i%3
				s.OnEnd(x)
			}
		})
	}
	wg.Wait()
	sum := 0.0
	for _, sample := range reg.Gather() {
		if sample.Template == requestsTotal {
			sum += sample.Value
		}
	}
	if sum != 8000 {
		t.Errorf("counted %v exchanges, want 8000", sum)
	}
}

func benchStats() (*Stats, *filter.Exchange) {
	s := NewStats(StatsConfig{}, NewMetrics(self, "", telemetry.NewRegistry(telemetry.Config{})))
	x := exchange()
	x.Conn.Peer.URISANs = []string{"spiffe://cluster.local/ns/front/sa/a"}
	x.Conn.Own.URISANs = []string{self.Identity}
	x.DownstreamPeer = caller
	x.Upstream.Spec = &upstream.Spec{Name: "inbound|80||", Service: upstream.ServiceFact{Host: "b.shop.svc.cluster.local"}}
	x.Response.Status = 200
	x.MarkAt(filter.ResponseEnd, 7*time.Millisecond)
	return s, x
}

func BenchmarkStats(b *testing.B) {
	s, x := benchStats()
	b.ReportAllocs()
	for b.Loop() {
		s.OnEnd(x)
	}
}
