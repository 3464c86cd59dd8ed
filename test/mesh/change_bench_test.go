// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/proxy/config"
)

// serviceOf is one service of many, with all that is about it.
func serviceOf(i int, weight uint32) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d}
spec: {ports: [{port: 80, name: http}], selector: {app: s%[1]d}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d}
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
metadata: {name: s%[1]d}
spec:
  host: s%[1]d
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: s%[1]d}
spec: {address: 10.%[4]d.%[5]d.10, labels: {app: s%[1]d, version: v1, security.istio.io/tlsMode: istio}, serviceAccount: s%[1]d}
`, i, weight, 100-weight, 100+i/250, i%250)
}

// BenchmarkSavedToInForce takes the time from a saved file until a proxy with complete lists routes by it. It listens as the
// forward proxy of an application, and has a cluster for each subset of each service.
func BenchmarkSavedToInForce(b *testing.B) {
	for _, services := range []int{10, 2000} {
		b.Run(fmt.Sprint("services=", services), func(b *testing.B) {
			m := Start(b)
			var rest strings.Builder
			for i := 1; i < services; i++ {
				rest.WriteString(serviceOf(i, 50))
			}
			m.Write("rest.yaml", rest.String())
			m.Write("chosen.yaml", serviceOf(0, 50))
			w := &Workload{Name: "client", Labels: map[string]string{"app": "client"}, Account: "client"}
			m.Join(w)
			Eventually(b, "the whole mesh in the proxy", func() error {
				if got := inForce(w.Sidecar, services); got != 50 {
					return errors.New("it is not there")
				}
				return nil
			})
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			weight := uint32(0)
			change := func() time.Duration {
				weight = weight%98 + 1
				began := time.Now()
				m.Write("chosen.yaml", serviceOf(0, weight))
				for ; inForce(w.Sidecar, services) != weight; <-tick.C {
					if time.Since(began) > 10*time.Second {
						b.Fatal("it does not come into force")
					}
				}
				return time.Since(began)
			}
			for range 5 { // the rest of what was new settles meanwhile
				change()
			}
			var worst time.Duration
			for b.Loop() {
				worst = max(worst, change())
			}
			b.ReportMetric(float64(worst.Milliseconds()), "ms/worst")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
		})
	}
}

// inForce is the weight by which the proxy sends requests for the first service; 0 if it does not have all.
func inForce(p *proxy.Proxy, services int) (weight uint32) {
	look := func(c *config.FilterChain) {
		if c == nil || c.HTTP == nil || c.HTTP.Routes.Load() == nil {
			return
		}
		hosts := c.HTTP.Routes.Load().Config().VirtualHosts
		if len(hosts) < services {
			return
		}
		for _, h := range hosts {
			if h.Name == "s0.default.svc.cluster.local:80" && len(h.Routes) == 3 {
				weight = h.Routes[2].Forward.Clusters[0].Weight
			}
		}
	}
	for _, l := range p.Snapshot().Listeners {
		for _, c := range l.Chains {
			look(c)
		}
		look(l.Default)
	}
	return weight
}
