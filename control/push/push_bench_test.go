// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// BenchmarkChange changes one of 2,000 clusters that 100 proxies, all alike, have in full, and brings each of them up
// to date. Pacing is left out.
func BenchmarkChange(b *testing.B) {
	const clients, clusters = 100, 2000
	w := newWorld(Config{Quiet: time.Nanosecond, Max: time.Nanosecond})
	w.g.Update(func(tx *derive.Tx) {
		for i := range clusters {
			w.things.Set(tx, thing{typeCluster, fmt.Sprintf("c%04d", i)}, content{text: "0"})
		}
	})
	var feeds []*feed
	next := func(f *feed) *xds.Update {
		u, err := f.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		f.Ack(u.TypeURL, u.Nonce)
		return u
	}
	for range clients {
		f, err := w.hub.Open(b.Context(), &xds.Client{Node: &corev3.Node{Id: "sidecar"}})
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		feeds = append(feeds, f.(*feed))
		f.Subscribe(typeCluster, nil, nil, true)
		next(f.(*feed))
	}
	computed := func() (n uint64) {
		for _, q := range w.g.Stats().Queries {
			n += q.Computed
		}
		return n
	}
	before, n := computed(), 0
	for b.Loop() {
		n++
		w.set(typeCluster, fmt.Sprintf("c%04d", n%clusters), fmt.Sprint(n))
		for _, f := range feeds {
			if u := next(f); len(u.Resources) != 1 {
				b.Fatalf("%d resources", len(u.Resources))
			}
		}
	}
	b.ReportMetric(float64(computed()-before)/float64(b.N), "recomputed/op")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/clients, "µs/client")
}
