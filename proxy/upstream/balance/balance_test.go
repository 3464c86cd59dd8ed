// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// members are healthy, with these weights.
func members(weights ...uint32) (all []Member) {
	for id, w := range weights {
		all = append(all, Member{ID: id, Healthy: true, Weight: w, Key: string(rune('a' + id)), Active: new(atomic.Int64)})
	}
	return all
}

func one(cfg *Config, all []Member) *Set {
	return Build(cfg, [][]Place{{{Weight: 1, Members: all}}}, 0, time.Now())
}

func TestNobody(t *testing.T) {
	for name, s := range map[string]*Set{"no priority": Build(&Config{}, nil, 0, time.Now()), "no member": one(&Config{}, nil)} {
		if id := s.Pick(&Query{}, 1, 0); id != None {
			t.Errorf("%s: picked %d", name, id)
		}
	}
}

// Every policy gives members their share, by weight.
func TestShares(t *testing.T) {
	const picks = 40_000
	weights := []uint32{1, 2, 5}
	for _, policy := range []Policy{RoundRobin, LeastRequest, RingHash, Maglev} {
		s := one(&Config{Policy: policy, RingMin: 1 << 16, RingMax: 1 << 20, MaglevSize: 65537}, members(weights...))
		var got [3]int
		for range picks {
			got[s.Pick(&Query{Hash: rand.Uint64(), HasHash: true}, rand.Uint64(), 0)]++
		}
		for id, n := range got {
			if share, want := float64(n)/picks, float64(weights[id])/8; math.Abs(share-want) > .02 {
				t.Errorf("policy %d: member %d has %.3f, want %.3f", policy, id, share, want)
			}
		}
	}
}

// A schedule has the shares of its weights, exactly where they are whole and small.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		weights []float64
		exact   bool
	}{{[]float64{1, 2, 5}, true}, {[]float64{100, 300}, true}, {[]float64{.5, 1.25}, false}, {[]float64{1, 100_000}, false}} {
		var sum float64
		for _, w := range c.weights {
			sum += w
		}
		counts := make([]int, len(c.weights))
		s := schedule(c.weights)
		for _, i := range s {
			counts[i]++
		}
		for i, w := range c.weights {
			off := math.Abs(float64(counts[i])/float64(len(s)) - w/sum)
			if counts[i] == 0 || c.exact && off > 1e-9 || off > .01 {
				t.Errorf("weights %v: %v of %d", c.weights, counts, len(s))
			}
		}
	}
}

func TestSlowStart(t *testing.T) {
	since := time.Unix(1000, 0)
	s := &SlowStart{Window: 100 * time.Second}
	for _, tt := range []struct {
		after      time.Duration
		aggression float64
		want       float64
	}{{0, 1, .1}, {5 * time.Second, 1, .1}, {50 * time.Second, 1, .5}, {25 * time.Second, 2, .5}, {100 * time.Second, 1, 1}, {time.Hour, 1, 1}} {
		s.Aggression = tt.aggression
		if got := s.factor(since, since.Add(tt.after)); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("after %v with aggression %v: %v, want %v", tt.after, tt.aggression, got, tt.want)
		}
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, policy := range []Policy{RoundRobin, LeastRequest, Random, RingHash, Maglev} {
		s := one(&Config{Policy: policy}, members(1, 2, 5, 1))
		if n := testing.AllocsPerRun(100, func() { s.Pick(&Query{Hash: 7, HasHash: true}, 99, 0) }); n != 0 {
			t.Errorf("policy %d: %v allocations", policy, n)
		}
	}
}
