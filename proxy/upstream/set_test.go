// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"testing"
)

func TestClustersShareTheEndpointsOfAService(t *testing.T) {
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	hash := uint64(0)
	put := func(name, service string) {
		hash++
		s.Put(&Spec{Name: name, ServiceName: service, Discovery: EDS, Hash: hash, Breakers: unlimited()})
	}
	want := func(name string, hosts int) {
		t.Helper()
		if got := len(s.Ref(name).Load().members); got != hosts {
			t.Errorf("cluster %s has %d hosts, want %d", name, got, hosts)
		}
	}
	assign := func(service string, hosts int) {
		s.Assign(service, &Assignment{Localities: []Locality{{Endpoints: eps(0, hosts, hosts)}}})
	}
	put("one", "")
	put("two", "one")
	assign("one", 2)
	want("one", 2)
	want("two", 2)
	put("two", "other")
	assign("one", 3)
	want("one", 3)
	want("two", 0)
	assign("other", 1)
	want("two", 1)
	s.Remove("two")
	put("two", "one")
	want("two", 3)
}

// BenchmarkAssign gives one service of many its endpoints, before its cluster is there, as at the start, and after.
func BenchmarkAssign(b *testing.B) {
	for _, clusters := range []int{10, 4000} {
		for _, there := range []bool{false, true} {
			b.Run(fmt.Sprintf("clusters=%d/there=%v", clusters, there), func(b *testing.B) {
				s := NewSet(Config{})
				defer s.Close()
				for i := range clusters {
					s.Put(&Spec{Name: fmt.Sprint("c", i), Discovery: EDS, Hash: 1, Breakers: unlimited()})
				}
				name := "new"
				if there {
					name = "c1"
				}
				a := &Assignment{Localities: []Locality{{Endpoints: eps(0, 3, 3)}}}
				b.ReportAllocs()
				for b.Loop() {
					s.Assign(name, a)
				}
			})
		}
	}
}
