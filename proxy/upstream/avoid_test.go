// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"testing"

	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// Which priorities a retry uses, and for how many of a hundred requests, by the
// priorities tried before.
func TestRetriesAvoidPrioritiesTried(t *testing.T) {
	all := []int{10, 10, 10} // healthy of ten
	for name, tt := range map[string]struct {
		healthy []int
		every   int
		tried   []int
		want    [3]int
	}{
		"no retry":                           {all, 2, nil, [3]int{100, 0, 0}},
		"not asked for":                      {all, 0, []int{0, 0}, [3]int{100, 0, 0}},
		"before it is time":                  {all, 2, []int{0}, [3]int{100, 0, 0}},
		"the one tried is left out":          {all, 2, []int{0, 0}, [3]int{0, 100, 0}},
		"until the next update":              {all, 2, []int{0, 0, 1}, [3]int{0, 100, 0}},
		"then those tried since as well":     {all, 2, []int{0, 0, 1, 1}, [3]int{0, 0, 100}},
		"and once none is left, none is":     {all, 2, []int{0, 0, 1, 1, 2, 2}, [3]int{100, 0, 0}},
		"it begins anew":                     {all, 2, []int{0, 0, 1, 1, 2, 2, 0, 0}, [3]int{0, 100, 0}},
		"load goes by health":                {[]int{10, 5, 5}, 1, []int{0}, [3]int{0, 70, 30}},
		"what is left is shared out":         {[]int{10, 2, 2}, 1, []int{0}, [3]int{0, 50, 50}},
		"rounding goes to the first":         {[]int{2, 2, 2}, 1, []int{1}, [3]int{50, 0, 50}},
		"who is ill is no way out":           {[]int{10, 0, 0}, 1, []int{0}, [3]int{100, 0, 0}},
		"and does not count as what is left": {[]int{10, 0, 10}, 1, []int{0}, [3]int{0, 0, 100}},
	} {
		var places []Locality
		for i, n := range tt.healthy {
			places = append(places, Locality{Priority: uint32(i), Endpoints: eps(i, 10, n)})
		}
		c := cluster(t, &Spec{Balance: balance.Config{Policy: balance.Random}}, places...)
		r := &Request{AvoidEvery: tt.every}
		for _, p := range tt.tried {
			r.Tried = append(r.Tried, c.members[10*p])
		}
		var got [3]int
		set := c.balance.Load()
		for at := range uint64(100) {
			h := set.pick(r, at, 0)
			if h == nil {
				t.Fatalf("%s: nobody", name)
			}
			got[h.Addr().Addr().As4()[1]]++
		}
		if got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		if n := testing.AllocsPerRun(100, func() { set.pick(r, 7, 0) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
