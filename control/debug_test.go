// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/daemon"
)

// page asks the monitoring port.
func page(t *testing.T, c *Control, path string) (int, string) {
	t.Helper()
	var admin daemon.Admin
	c.register(&admin)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	admin.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// asks is page, with an answer in JSON.
func asks[T any](t *testing.T, c *Control, path string) T {
	t.Helper()
	var v T
	code, body := page(t, c, path)
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%s: %v in %s", path, err, body)
	}
	return v
}

func TestReadyOnceAllIsRead(t *testing.T) {
	cfg := Defaults()
	cfg.State = filepath.Join(t.TempDir(), "state")
	cfg.Folders = []string{t.TempDir()}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := page(t, c, "/ready"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not been read") {
		t.Errorf("before anything is read: %d %s", code, body)
	}
	p := start(t)
	eventually(t, "it is ready", func() bool {
		code, _ := page(t, p.Control, "/ready")
		return code == http.StatusOK
	})
	for _, path := range []string{"/debug/syncz", "/debug/problems", "/debug/conditions"} {
		if _, body := page(t, p.Control, path); strings.TrimSpace(body) != "[]" {
			t.Errorf("%s of an empty mesh is %s", path, body)
		}
	}
}

const dangling = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dangling, namespace: default}
spec:
  hosts: [details]
  gateways: [mesh, nowhere]
  http:
  - route:
    - destination: {host: details, subset: v9}
`

// Each object passes by itself; what is wrong with it shows only beside the others.
func TestProblemsInTheLightOfOthers(t *testing.T) {
	p := start(t)
	p.writeBookshop(t)
	p.write(t, "dangling.yaml", dangling)
	found := func(want string, line int) func() bool {
		return func() bool {
			for _, pr := range asks[[]Problem](t, p.Control, "/debug/problems") {
				if pr.Object == "VirtualService/default/dangling" && pr.Severity == "warning" && pr.Line == line && strings.Contains(pr.Message, want) {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "the missing Gateway is reported", found("there is no Gateway default/nowhere", 6))
	eventually(t, "the missing subset is reported", found(`defines subset "v9"`, 9))
	p.write(t, "dangling.yaml", strings.NewReplacer(", nowhere", "", "v9", "v1").Replace(dangling))
	eventually(t, "both are mended", func() bool { return len(asks[[]Problem](t, p.Control, "/debug/problems")) == 0 })
}

func TestMonitoringPages(t *testing.T) {
	p := start(t)
	p.writeBookshop(t)
	p.write(t, "route.yaml", routeToV1)
	side := p.connect(t, "sidecar", "productpage-v1", "bookinfo-productpage", "10.0.0.15", map[string]string{"app": "productpage"}, nil)
	side.sub.Subscribe(envoy.TypeRoute, "9080")
	p.becomes(t, "VirtualService/default/details", StateEnforced)

	all := asks[[]push.ClientStatus](t, p.Control, "/debug/syncz")
	if len(all) != 1 || !strings.Contains(all[0].Node, "productpage-v1.default") {
		t.Fatalf("/debug/syncz: %+v", all)
	}
	acked := map[string]bool{}
	for _, ty := range all[0].Types {
		acked[ty.TypeURL] = !ty.AckedAt.IsZero()
	}
	if !acked[envoy.TypeCluster] || !acked[envoy.TypeListener] || !acked[envoy.TypeRoute] {
		t.Errorf("/debug/syncz: acknowledged are %v", acked)
	}

	place := asks[struct {
		File string
		Line int
	}](t, p.Control, "/debug/places?object=VirtualService/default/details&field=spec.http[0]")
	if !strings.HasSuffix(place.File, "route.yaml") || place.Line != 7 {
		t.Errorf("/debug/places: %+v", place)
	}
	for query, want := range map[string]int{"object=details": http.StatusBadRequest, "object=VirtualService/default/none": http.StatusNotFound} {
		if code, body := page(t, p.Control, "/debug/places?"+query); code != want {
			t.Errorf("%s: %d %s; want %d", query, code, body, want)
		}
	}

	_, body := page(t, p.Control, "/metrics")
	for _, want := range []string{"pilot_xds{} 1\n", `meltemi_derive_results{query="envoy.cluster"}`, `meltemi_derive_computed_total{query="review"}`} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s in:\n%s", want, body)
		}
	}
	if _, body = page(t, p.Control, "/debug/derive"); !strings.Contains(body, `"envoy.listener"`) {
		t.Errorf("/debug/derive: %s", body)
	}
}
