// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/envoy"
)

// becomes polls until the object's condition has a state.
func (p *plane) becomes(t *testing.T, object, state string) Condition {
	t.Helper()
	var last Condition
	defer func() {
		if t.Failed() {
			t.Logf("%s is %+v", object, last)
		}
	}()
	eventually(t, object+" becomes "+state, func() bool {
		w := httptest.NewRecorder()
		p.conditionsPage(w, httptest.NewRequest("GET", "/debug/conditions?object="+object, nil))
		var all []Condition
		if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 {
			last = all[0]
		}
		return last.State == state
	})
	return last
}

const routeToV1 = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details, namespace: default}
spec:
  hosts: [details]
  http:
  - route: [{destination: {host: details, subset: v1}}]
`

func TestConditionsFollowWhatHappens(t *testing.T) {
	p := start(t)
	p.writeBookshop(t)
	p.write(t, "details-route.yaml", routeToV1)
	const object = "VirtualService/default/details"
	c := p.becomes(t, object, StateUnused) // nobody is there whom it could concern
	if !strings.HasSuffix(c.File, "details-route.yaml") || c.Line != 1 {
		t.Errorf("%+v", c)
	}
	side := p.connect(t, "sidecar", "productpage-v1", "bookinfo-productpage", "10.0.0.15", map[string]string{"app": "productpage"}, nil)
	side.sub.Subscribe(envoy.TypeRoute, "9080")
	if c = p.becomes(t, object, StateEnforced); c.Concerned != 1 || c.Enforced != 1 {
		t.Errorf("%+v", c)
	}

	// Another file's claim to it is refused, and changes nothing about it.
	p.write(t, "twice.yaml", routeToV1)
	for c = p.becomes(t, object, StateEnforced); len(c.Problems) == 0; c = p.becomes(t, object, StateEnforced) {
	}
	if err := os.Remove(filepath.Join(p.folder, "twice.yaml")); err != nil {
		t.Fatal(err)
	}

	// What is enforced but for what is not supported yet, is so in part.
	claim := strings.Replace(routeToV1, "  - route:", "  - match: [{headers: {\"@request.auth.claims.sub\": {exact: me}}}]\n    route:", 1)
	p.write(t, "details-route.yaml", claim)
	if c = p.becomes(t, object, StatePartial); c.Enforced != 1 || len(c.Problems) == 0 {
		t.Errorf("%+v", c)
	}
	p.write(t, "details-route.yaml", routeToV1)
	p.becomes(t, object, StateEnforced)

	// What selects workloads concerns those whom it selects.
	policy := func(app string) string {
		return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: default}\n" +
			"spec: {selector: {matchLabels: {app: " + app + "}}, rules: [{}]}\n"
	}
	const inbound = "AuthorizationPolicy/default/p"
	p.write(t, "policy.yaml", policy("productpage"))
	side.sub.Subscribe(envoy.TypeListener)
	if c = p.becomes(t, inbound, StateEnforced); c.Concerned != 1 {
		t.Errorf("%+v", c)
	}
	p.write(t, "policy.yaml", policy("prodcutpage"))
	if c = p.becomes(t, inbound, StateUnused); c.Concerned != 0 {
		t.Errorf("%+v", c)
	}
	// One that always comes second is not in force anywhere.
	p.write(t, "later.yaml", strings.Replace(routeToV1, "name: details,", "name: zz,", 1))
	p.becomes(t, "VirtualService/default/zz", StateUnused)
	p.becomes(t, object, StateEnforced)

	// One that comes second in its own namespace alone is in force elsewhere.
	visible := func(name, to string) string {
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + name + ", namespace: zother}\n" +
			"spec: {hosts: [reviews.default.svc.cluster.local], exportTo: [\"" + to + "\"], http: [{route: [{destination: {host: reviews.default.svc.cluster.local}}]}]}\n"
	}
	p.write(t, "elsewhere.yaml", visible("aa", ".")+"---\n"+visible("bb", "*"))
	p.becomes(t, "VirtualService/zother/bb", StateEnforced)

	// A version that is refused leaves the last good one in force.
	p.write(t, "details-route.yaml", strings.Replace(routeToV1, "http:", "htpp:", 1))
	if c = p.becomes(t, object, StateOutdated); c.Enforced != 1 || len(c.Problems) == 0 {
		t.Errorf("%+v", c)
	}
	// One that was never good is not in force at all.
	p.write(t, "never.yaml", strings.ReplaceAll(strings.Replace(routeToV1, "http:", "htpp:", 1), "name: details,", "name: never,"))
	if c = p.becomes(t, "VirtualService/default/never", StateRefused); c.Concerned != 0 || len(c.Problems) == 0 {
		t.Errorf("%+v", c)
	}
}
