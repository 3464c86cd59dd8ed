// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"testing"

	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// mixed makes n endpoints of a priority: healthy ones first, then degraded ones.
func mixed(priority, n, healthy, degraded int) []Endpoint {
	out := eps(priority, n, healthy)
	for i := healthy; i < healthy+degraded; i++ {
		out[i].Health = Degraded
	}
	return out
}

func TestLoadFollowsEnvoysArithmetic(t *testing.T) {
	type level struct{ total, healthy, degraded int }
	for name, tt := range map[string]struct {
		threshold uint32
		levels    []level
		load      []uint32 // healthy and degraded of each level
		panic     []bool
	}{
		"rounding goes to the first healthy": {0, []level{{10, 1, 0}, {10, 1, 0}, {10, 1, 0}}, []uint32{34, 0, 33, 0, 33, 0}, nil},
		"not to the first degraded":          {0, []level{{10, 0, 1}, {10, 1, 0}, {10, 1, 0}}, []uint32{0, 33, 34, 0, 33, 0}, nil},
		"degraded takes what is left":        {0, []level{{10, 3, 7}, {10, 0, 0}}, []uint32{42, 58, 0, 0}, nil},
		"all panic: by number of hosts":      {50, []level{{10, 2, 0}, {30, 6, 0}}, []uint32{25, 0, 75, 0}, []bool{true, true}},
		"nobody at all healthy":              {50, []level{{10, 0, 0}, {20, 0, 0}}, []uint32{34, 0, 66, 0}, []bool{true, true}},
		"one panics":                         {50, []level{{10, 2, 0}, {10, 5, 0}}, []uint32{29, 0, 71, 0}, []bool{true, false}},
		"together they are enough: no panic": {50, []level{{100, 1, 0}, {100, 99, 0}}, []uint32{1, 0, 99, 0}, []bool{false, false}},
		"panic is off":                       {0, []level{{10, 2, 0}, {30, 0, 0}}, []uint32{100, 0, 0, 0}, []bool{false, false}},
		"an empty level spills":              {0, []level{{0, 0, 0}, {10, 10, 0}}, []uint32{0, 0, 100, 0}, nil},
	} {
		var places []Locality
		for i, l := range tt.levels {
			places = append(places, Locality{Priority: uint32(i), Endpoints: mixed(i, l.total, l.healthy, l.degraded)})
		}
		c := cluster(t, &Spec{Balance: balance.Config{PanicThreshold: tt.threshold}}, places...)
		for i, p := range c.Explain(&Request{}).Priorities {
			if p.Load != tt.load[2*i] || p.DegradedLoad != tt.load[2*i+1] {
				t.Errorf("%s: priority %d has %d+%d, want %d+%d", name, i, p.Load, p.DegradedLoad, tt.load[2*i], tt.load[2*i+1])
			}
			if tt.panic != nil && p.Panic != tt.panic[i] {
				t.Errorf("%s: priority %d panics: %v", name, i, p.Panic)
			}
		}
	}
}

func TestHashKeepsItsHostThoughPlacesAreWeighted(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RingHash, balance.Maglev} {
		near, far, none := eps(0, 3, 3), eps(1, 3, 3), eps(2, 3, 3)
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy, LocalityWeighted: true}},
			Locality{Zone: "near", Weight: 3, Endpoints: near}, Locality{Zone: "far", Weight: 1, Endpoints: far}, Locality{Zone: "none", Endpoints: none})
		places := map[byte]int{}
		for range 4000 {
			r := &Request{Hash: rand.Uint64(), HasHash: true}
			first, _ := c.Pick(r)
			second, _ := c.Pick(r)
			if first != second {
				t.Fatalf("policy %d: one hash, two hosts", policy)
			}
			places[first.Addr().Addr().As4()[1]]++
		}
		if places[2] > 0 || places[1] < 600 || places[1] > 1400 {
			t.Errorf("policy %d: %v picks by place, want about 3000, 1000 and none", policy, places)
		}
	}
}

func TestHashOfTheRouteDoesNotBindOtherPolicies(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastRequest, balance.Random} {
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Priority: 0, Endpoints: eps(0, 10, 5)}, Locality{Priority: 1, Endpoints: eps(1, 10, 10)})
		seen := map[byte]bool{}
		for range 500 {
			h, _ := c.Pick(&Request{Hash: 99, HasHash: true})
			seen[h.Addr().Addr().As4()[1]] = true
		}
		if len(seen) != 2 {
			t.Errorf("policy %d: one hash, one priority", policy)
		}
	}
}

func TestHashPolicyWithoutHashUsesAll(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RingHash, balance.Maglev} {
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: eps(0, 5, 5)})
		if seen := spread(t, c, 500); len(seen) != 5 {
			t.Errorf("policy %d: %d of 5 hosts used", policy, len(seen))
		}
	}
}

func TestLeastRequestWeighsWhatIsActive(t *testing.T) {
	e := eps(0, 2, 2)
	e[1].Weight = 9
	c := cluster(t, &Spec{Balance: balance.Config{Policy: balance.LeastRequest}}, Locality{Endpoints: e})
	c.members[0].stats.Active.Store(2)
	c.members[1].stats.Active.Store(9) // busier, but of nine times the weight
	seen := spread(t, c, 2000)
	if n := seen[c.members[1].String()]; n < 1900 {
		t.Errorf("the heavy host got %d of 2000, want nearly all", n)
	}
}

func TestOutlierCountsAnewAfterItsThreshold(t *testing.T) {
	c := cluster(t, &Spec{Outlier: &Outlier{Consecutive5xx: 2, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 33}}, Locality{Endpoints: eps(0, 3, 3)})
	fail := func(n int) {
		for range n {
			c.observe(c.members[0], Outcome{Status: 500})
		}
	}
	fail(2)
	if c.members[0].Ejected() {
		t.Fatal("one of three hosts is 33.3 %, more than 33 %")
	}
	c.assignment.Localities[0].Endpoints = append(c.assignment.Localities[0].Endpoints, eps(1, 1, 1)...)
	c.assign(c.assignment, nil)
	fail(1)
	if c.members[0].Ejected() {
		t.Fatal("counting did not begin anew")
	}
	fail(1)
	if !c.members[0].Ejected() {
		t.Error("one of four hosts may be ejected")
	}
}
