// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/control/envoy"
)

// BenchmarkSaved takes the time from a saved file until every connected client has acknowledged what follows from it.
// Clients run in the same process, and check all they are sent: with complete lists, that is most of the time. What it takes
// our proxy is measured in test/mesh.
func BenchmarkSaved(b *testing.B) {
	for _, bench := range []struct {
		services, complete, demand int
	}{{10, 5, 5}, {2000, 0, 10}, {2000, 1, 0}} {
		b.Run(fmt.Sprintf("services=%d/complete=%d/demand=%d", bench.services, bench.complete, bench.demand), func(b *testing.B) {
			saved(b, bench.services, bench.complete, bench.demand)
		})
	}
}

func saved(b *testing.B, services, complete, demand int) {
	p := start(b)
	var rest strings.Builder
	for i := 1; i < services; i++ {
		rest.WriteString("---\n" + generatedService(i, 50, 10))
	}
	p.write(b, "rest.yaml", rest.String())
	p.write(b, "chosen.yaml", generatedService(0, 50, 10))
	for i := range complete + demand {
		table, hosts, meta := "80", services+1, map[string]string{}
		if i >= complete {
			table, hosts, meta["MELTEMI_ON_DEMAND"] = "s0.default.svc.cluster.local:80", 1, "true"
		}
		c := p.connect(b, "sidecar", fmt.Sprint("client-", i), "client", fmt.Sprint("10.0.0.", i+1), nil, meta)
		c.sub.Subscribe(envoy.TypeRoute, table)
		c.await(b, "the first table", func(s map[string]map[string]proto.Message) bool {
			r, ok := get[*routev3.RouteConfiguration](s, envoy.TypeRoute, table)
			return ok && len(r.VirtualHosts) == hosts
		})
	}
	_, _ = p.still(b, p.computed())
	acked := func(since time.Time) bool {
		all := p.hub.Status()
		for _, c := range all {
			for _, ty := range c.Types {
				if ty.TypeURL == envoy.TypeRoute && (ty.AckedAt.Before(since) || ty.Waiting > 0) {
					return false
				}
			}
		}
		return len(all) == complete+demand
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	weight := 0
	var worst time.Duration
	b.ResetTimer()
	for b.Loop() {
		weight = weight%98 + 1
		began := time.Now()
		p.write(b, "chosen.yaml", generatedService(0, weight, 10))
		for ; !acked(began); <-tick.C {
			if time.Since(began) > 10*time.Second {
				b.Fatal("nobody acknowledges")
			}
		}
		worst = max(worst, time.Since(began))
	}
	b.ReportMetric(float64(worst.Milliseconds()), "ms/worst")
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
}
