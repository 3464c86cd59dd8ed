// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/control/envoy"
)

// One service of many, with all that is about it.
func generatedService(i, weight, host int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: default}
spec:
  clusterIP: 10.%[4]d.%[5]d.1
  ports: [{port: 80, name: http}]
  selector: {app: s%[1]d}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: default}
spec:
  hosts: [s%[1]d]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: s%[1]d, subset: v2}}]
  - route:
    - {destination: {host: s%[1]d, subset: v1}, weight: %[2]d}
    - {destination: {host: s%[1]d, subset: v2}, weight: %[3]d}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%[1]d, namespace: default}
spec:
  host: s%[1]d
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: s%[1]d, namespace: default}
spec: {address: 10.%[4]d.%[5]d.%[6]d, labels: {app: s%[1]d, version: v1, security.istio.io/tlsMode: istio}, serviceAccount: s%[1]d}
`, i, weight, 100-weight, 100+i/250, i%250, host)
}

// computed is how often each query has run.
func (p *plane) computed() map[string]uint64 {
	out := map[string]uint64{}
	for _, q := range p.graph.Stats().Queries {
		out[q.Name] = q.Computed
	}
	return out
}

// still waits until nothing is under way any more, and then says what was computed since before, and how much of it by
// queries that are asked for each client alone.
func (p *plane) still(t testing.TB, before map[string]uint64) (total uint64, by map[string]uint64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := p.computed()
	for deadline, quiet := time.Now().Add(20*time.Second), 0; quiet < 5; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to rest")
		}
		now := p.computed()
		quiet++
		if !maps.Equal(now, last) {
			quiet = 0
		}
		last = now
		for _, c := range p.hub.Status() {
			for _, ty := range c.Types {
				if ty.Waiting > 0 {
					quiet = 0
				}
			}
		}
	}
	by = map[string]uint64{}
	for name, n := range last {
		if d := n - before[name]; d > 0 {
			by[name] = d
			total += d
		}
	}
	return total, by
}

func listing(by map[string]uint64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s %d", name, by[name]))
	}
	return strings.Join(all, ", ")
}

// A change that people make costs results that it concerns: as many in a mesh of 2,000 services as in one of 200, however
// its proxies ask.
func TestAChangeCostsWhatItConcerns(t *testing.T) {
	if testing.Short() {
		t.Skip("generates 2,000 services")
	}
	costs := map[string][2]uint64{}
	for i, n := range []int{200, 2000} {
		for name, cost := range changes(t, n) {
			c := costs[name]
			c[i] = cost
			costs[name] = c
		}
	}
	for _, name := range slices.Sorted(maps.Keys(costs)) {
		c := costs[name]
		t.Logf("%-28s %3d results with 200 services, %3d with 2,000", name, c[0], c[1])
		if c[0] != c[1] {
			t.Errorf("%s costs %d results with 200 services and %d with 2,000", name, c[0], c[1])
		}
	}
}

// changes makes changes to one of n services, and says what each cost.
func changes(t *testing.T, n int) map[string]uint64 {
	p := start(t)
	const chosen = 7
	var rest strings.Builder
	for i := range n {
		if i != chosen {
			rest.WriteString("---\n" + generatedService(i, 50, 10))
		}
	}
	p.write(t, "rest.yaml", rest.String())
	p.write(t, "chosen.yaml", generatedService(chosen, 50, 10))

	host := fmt.Sprintf("s%d.default.svc.cluster.local", chosen)
	table, ends := host+":80", "outbound|80|v1|"+host
	complete := p.connect(t, "sidecar", "complete", "complete", "10.0.0.1", map[string]string{"app": "complete"}, nil)
	complete.sub.Subscribe(envoy.TypeRoute, "80")
	complete.sub.Subscribe(envoy.TypeEndpoint, ends)
	demand := p.connect(t, "sidecar", "demand", "demand", "10.0.0.2", map[string]string{"app": "demand"}, map[string]string{"MELTEMI_ON_DEMAND": "true"})
	demand.sub.Subscribe(envoy.TypeRoute, table)
	demand.sub.Subscribe(envoy.TypeCluster, ends, "outbound|80|v2|"+host, "outbound|80||"+host)
	demand.sub.Subscribe(envoy.TypeEndpoint, ends)
	demand.sub.Subscribe(envoy.TypeAddress, "/10."+fmt.Sprint(100+chosen/250)+"."+fmt.Sprint(chosen%250)+".1")

	shows := func(weight, last int) func(t map[string]map[string]proto.Message) bool {
		return func(s map[string]map[string]proto.Message) bool {
			for _, name := range []string{"80", table} {
				if r, ok := get[*routev3.RouteConfiguration](s, envoy.TypeRoute, name); ok && !strings.Contains(r.String(), fmt.Sprintf("weight:{value:%d}", weight)) {
					return false
				}
			}
			a, ok := get[*endpointv3.ClusterLoadAssignment](s, envoy.TypeEndpoint, ends)
			return ok && len(s[envoy.TypeRoute]) > 0 && strings.Contains(a.String(), fmt.Sprintf("10.%d.%d.%d", 100+chosen/250, chosen%250, last))
		}
	}
	wait := func(weight, last int) {
		t.Helper()
		complete.await(t, "the complete client", shows(weight, last))
		demand.await(t, "the client on demand", shows(weight, last))
	}
	wait(50, 10)
	_, _ = p.still(t, p.computed())

	out := map[string]uint64{}
	change := func(name string, weight, last int, text string) {
		t.Helper()
		before := p.computed()
		p.write(t, "chosen.yaml", text)
		wait(weight, last)
		total, by := p.still(t, before)
		out[name] = total
		if n == 2000 {
			t.Logf("%s: %s", name, listing(by))
		}
	}
	change("route edited", 61, 10, generatedService(chosen, 61, 10))
	change("route edited again", 62, 10, generatedService(chosen, 62, 10))
	change("endpoint moved", 62, 11, generatedService(chosen, 62, 11))
	rule := strings.Replace(generatedService(chosen, 63, 11), "host: s7\n  subsets", "host: s7\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n  subsets", 1)
	change("rule and route edited", 63, 11, rule)
	return out
}
