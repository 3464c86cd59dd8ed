// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
)

// BenchmarkEditedRoute changes one VirtualService of 2,000 and asks for the route table that holds it: the one of its
// port, as an Envoy has it, and the one of its host alone, as a proxy on demand has it.
func BenchmarkEditedRoute(b *testing.B) {
	const services = 2000
	var text strings.Builder
	for i := range services {
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: x}
spec: {clusterIP: 10.%[2]d.%[3]d.1, ports: [{port: 80, name: http}], selector: {app: s%[1]d}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d, namespace: x}
spec:
  hosts: [s%[1]d]
  http: [{route: [{destination: {host: s%[1]d, subset: v1}, weight: 50}, {destination: {host: s%[1]d, subset: v2}, weight: 50}]}]
`, i, 100+i/250, i%250)
	}
	for _, name := range []string{"80", "s7.x.svc.cluster.local:80"} {
		b.Run(name, func(b *testing.B) {
			w := load(b, intent.Defaults(), map[string]string{"mesh.yaml": text.String()})
			client := parseProxy(b, strings.Fields("sidecar x/client 10.0.0.1 app=client"))
			table := w.gather.Objects().VirtualServices
			key := source.Key{Kind: source.KindVirtualService, Namespace: "x", Name: "s7"}
			watcher := w.graph.NewWatcher()
			defer watcher.Close()
			derive.Watch(watcher, w.kind(envoy.TypeRoute).Get, envoy.Named{Client: client, Name: name}, nil)
			var row *source.Object[*source.VirtualService]
			watcher.Collect(func(c *derive.Context, _ []*derive.Hold) { row, _ = table.Get(c, key) })
			weight, size := int32(0), 0
			b.ReportAllocs()
			for b.Loop() {
				weight = weight%100 + 1
				next := *row
				next.Spec = proto.Clone(row.Spec).(*source.VirtualService)
				next.Spec.Http[0].Route[0].Weight = weight
				w.graph.Update(func(tx *derive.Tx) { table.Set(tx, key, &next) })
				watcher.Collect(func(c *derive.Context, changed []*derive.Hold) {
					if len(changed) != 1 {
						b.Fatalf("%d changes", len(changed))
					}
					size = len(w.get(c, envoy.TypeRoute, client, name).Body.Value)
				})
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
