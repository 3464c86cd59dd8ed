// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/push"
)

const (
	typeCDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	typeLDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
	typeEDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeRDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// twoProxies is one that follows and one that does not.
func twoProxies() []push.ClientStatus {
	at := someTime()
	good := func(url string) push.TypeStatus {
		return push.TypeStatus{TypeURL: url, Wildcard: true, Resources: 3, Sent: "7", SentAt: at, Acked: "7", AckedAt: at}
	}
	late, bad := good(typeEDS), good(typeLDS)
	late.Waiting, late.Acked = 2, "5"
	bad.Rejected = []push.Rejection{{TypeURL: typeLDS, Name: "0.0.0.0_80", Version: "7", Detail: "filter_chains[0]:\n no such cluster"}}
	return []push.ClientStatus{
		{ID: "2", Node: "sidecar~10.0.0.2~reviews-v1.default~default.svc.cluster.local", Identity: "spiffe://cluster.local/ns/default/sa/reviews",
			RemoteAddr: "10.0.0.2:1", Delta: true, ConnectedAt: at, Types: []push.TypeStatus{good(typeCDS), late, bad}},
		{ID: "1", Node: "router~10.0.0.1~edge.istio-system~istio-system.svc.cluster.local", ConnectedAt: at,
			Types: []push.TypeStatus{good(typeCDS), good(typeEDS), good(typeLDS), {TypeURL: typeRDS}}},
	}
}

func TestProxyStatus(t *testing.T) {
	m, out := asking(Mesh{Monitoring: (&fakeControl{clients: twoProxies()}).serve(t)})
	if err := m.ProxyStatus(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	lines(t, out.String(),
		"NAME CDS LDS EDS RDS VERSION REASON",
		"edge.istio-system SYNCED SYNCED SYNCED NOT SENT 7 -",
		"reviews-v1.default SYNCED NACK STALE - 7 EDS: 2 updates unanswered, the last one for 1m30s; LDS 0.0.0.0_80: filter_chains[0]: no such cluster")
}

func TestProxyStatusOfOne(t *testing.T) {
	url := (&fakeControl{clients: twoProxies()}).serve(t)
	for _, name := range []string{"reviews-v1", "reviews-v1.default", "default/reviews-v1"} {
		m, out := asking(Mesh{Monitoring: url})
		if err := m.ProxyStatus(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		lines(t, out.String(),
			"reviews-v1.default, spiffe://cluster.local/ns/default/sa/reviews, from 10.0.0.2:1, delta, connected for 1m30s",
			"TYPE STATE RESOURCES ASKED FOR SENT ACCEPTED", "CDS SYNCED 3 all 7 7", "EDS STALE 3 all 7 5", "LDS NACK 3 all 7 7",
			"rejected LDS 0.0.0.0_80 (version 7): filter_chains[0]: no such cluster")
	}
	m, _ := asking(Mesh{Monitoring: url})
	if err := m.ProxyStatus(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), `no proxy "nobody"`) {
		t.Errorf("got %v", err)
	}
}

func TestStatus(t *testing.T) {
	f := &fakeControl{clients: twoProxies(), problems: []control.Problem{
		{File: "/mesh/reviews.yaml", Line: 12, Object: "VirtualService/default/reviews", Field: "spec.http[0].rout", Severity: "error", Message: "no such field"},
		{Object: "Gateway/a/b", Severity: "warning", Message: "no workload is selected"},
	}, conditions: []control.Condition{
		{Object: "Service/default/reviews", State: control.StateEnforced, Concerned: 2, Enforced: 2},
		{Object: "VirtualService/default/ratings", File: "/mesh/ratings.yaml", Line: 3, State: control.StatePending, Concerned: 2, Enforced: 1,
			Waiting: []string{"sidecar~10.0.0.2~reviews-v1.default~default.svc.cluster.local"}},
		{Object: "DestinationRule/default/ratings", State: control.StateRejected, Concerned: 2, Enforced: 1},
		{Object: "VirtualService/default/reviews", State: control.StateRefused},
	}}
	m, out := asking(Mesh{Monitoring: f.serve(t)})
	if err := m.Status(t.Context()); !errors.Is(err, ErrWrong) {
		t.Errorf("got %v", err)
	}
	lines(t, out.String(),
		"/mesh/reviews.yaml:12: error: VirtualService/default/reviews: spec.http[0].rout: no such field",
		"warning: Gateway/a/b: no workload is selected",
		"pending: /mesh/ratings.yaml:3: VirtualService/default/ratings is in force on 1 of 2 proxies; waiting for reviews-v1.default",
		"rejected: DestinationRule/default/ratings is in force on 1 of 2 proxies",
		"rejected: reviews-v1.default refuses LDS 0.0.0.0_80: filter_chains[0]: no such cluster",
		"lagging: reviews-v1.default have updates to answer",
		"configuration: 1 object or field refused, 1 warning",
		"objects: 1 enforced, 1 pending, 1 rejected, 1 refused",
		"proxies: 2 connected, 1 lagging, 1 resource rejected")

	m, out = asking(Mesh{Monitoring: (&fakeControl{}).serve(t), JSON: true})
	if err := m.Status(t.Context()); err != nil {
		t.Error(err)
	}
	var r Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Proxies != 0 || r.Problems == nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNobodyToAsk(t *testing.T) {
	m, _ := asking(Mesh{})
	for _, err := range []error{m.Status(t.Context()), m.ProxyStatus(t.Context(), ""), m.Listeners(t.Context(), "x")} {
		if err == nil || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("got %v", err)
		}
	}
	m, _ = asking(Mesh{Monitoring: "http://127.0.0.1:1"})
	if err := m.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "control plane at http://127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}

// What a real Envoy prints is read, too.
func TestTablesOfAnEnvoy(t *testing.T) {
	at := admin(t, fakeProxy(t, "testdata/envoy", nil, nil))
	f := &fakeControl{places: map[string]string{"VirtualService/default/ratings": `{"file":"/mesh/ratings.yaml","line":4}`}}
	url := f.serve(t)
	const v1 = "outbound|9080|v1|ratings.default.svc.cluster.local"
	const vhost = "9080 ratings.default.svc.cluster.local:9080 ratings, ratings:9080 + 2 more... "
	for name, c := range map[string]struct {
		show func(*Mesh) error
		want []string
	}{
		"listeners": {func(m *Mesh) error { return m.Listeners(t.Context(), "") }, []string{
			"NAME ADDRESS PORT MATCH DESTINATION FROM",
			"0.0.0.0_9080 127.0.0.1 25080 Trans: raw_buffer Route: 9080 -",
			"0.0.0.0_9080 127.0.0.1 25080 SNI: shop.example.com; Trans: tls TLS, Clusters: PassthroughCluster (9), other (1) -",
			"0.0.0.0_9080 127.0.0.1 25080 else Cluster: PassthroughCluster -",
			"refused - - - REJECTED: Didn't find a registered implementation for 'nobody.knows.this' with type URL: 'google.protobuf.Empty' -",
		}},
		"routes": {func(m *Mesh) error { return m.Routes(t.Context(), "") }, []string{
			"NAME VHOST NAME DOMAINS MATCH DESTINATION FROM",
			vhost + "/* + 1 header " + v1 + " /mesh/ratings.yaml:4",
			vhost + "/gone answers 410 -",
			vhost + "/old/* redirects -",
			vhost + "regex /v[0-9]+/.* " + v1 + " (80), PassthroughCluster (20) -",
		}},
		"clusters": {func(m *Mesh) error { return m.Clusters(t.Context(), "") }, []string{
			"SERVICE FQDN PORT SUBSET DIRECTION TYPE FROM",
			"PassthroughCluster - - - ORIGINAL_DST -",
			"prometheus_stats - - - STATIC -",
			"ratings.default.svc.cluster.local 9080 v1 outbound EDS DestinationRule/default/ratings",
		}},
		"endpoints": {func(m *Mesh) error { return m.Endpoints(t.Context(), "") }, []string{
			"ENDPOINT STATUS OUTLIER CHECK REQUESTS ERRORS CLUSTER",
			"10.0.0.7:9080 HEALTHY OK 0 0 " + v1,
			"10.0.0.8:9080 UNHEALTHY OK 0 0 " + v1,
			"127.0.0.1:15000 HEALTHY OK 0 0 prometheus_stats",
		}},
		"secrets": {func(m *Mesh) error { return m.Secrets(t.Context(), "") }, []string{
			"RESOURCE NAME TYPE STATUS VALID IDENTITY SERIAL NUMBER NOT AFTER NOT BEFORE",
			"default Cert Chain ACTIVE VALID spiffe://cluster.local/ns/default/sa/bookinfo-reviews 5d806289af883c3950af3e8c076b169d60980072 2036-11-18T09:03:28Z 2026-11-21T09:03:28Z",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m, out := asking(Mesh{Monitoring: url, Admin: at})
			if err := c.show(m); err != nil {
				t.Fatal(err)
			}
			// Whether the certificate of the fixture is valid depends on the day.
			text := strings.NewReplacer("ACTIVE   true ", "ACTIVE   VALID ", "ACTIVE   false", "ACTIVE   VALID").Replace(out.String())
			lines(t, text, c.want...)
			m, out = asking(Mesh{Admin: at, JSON: true})
			if err := c.show(m); err != nil || !json.Valid(out.Bytes()) {
				t.Errorf("as JSON: %v: %.200s", err, out)
			}
		})
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"productpage-v1", "reviews-v1", "reviews-v2"} {
		announce(t, dir, Proxy{Workload: name, Namespace: "default"})
	}
	announce(t, dir, Proxy{Workload: "reviews-v1", Namespace: "other"})
	m, _ := asking(Mesh{Proxies: dir})
	for name, want := range map[string]string{
		"productpage-v1": "productpage-v1.default", "productpage": "productpage-v1.default", "reviews-v1.other": "reviews-v1.other",
		"default/reviews-v2": "reviews-v2.default", "reviews-v1": "may be any of reviews-v1.default, reviews-v1.other",
		"reviews": "may be any of", "ratings": "there are productpage-v1.default, reviews-v1.default",
	} {
		p, err := m.find(name)
		switch {
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %q", name, err, want)
		case err == nil && p.Name() != want:
			t.Errorf("%s: found %s, want %q", name, p.Name(), want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "torn.json"), []byte(`{"work`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.find("productpage"); err == nil || !strings.Contains(err.Error(), "torn.json") {
		t.Errorf("a torn file: %v", err)
	}
}
