// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// maxSchedule bounds a schedule's length; shares are then exact to 1/maxSchedule.
const maxSchedule = 1024

// A counter is a rotation's place on a cache line of its own.
type counter struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

func newCounter() *counter { return new(counter) }

func (c *counter) add() uint64 { return c.n.Add(1) }

// schedule lays indices out so that each appears in proportion to its weight
// and evenly spaced: earliest deadline first, computed once instead of under a
// lock at every pick. Weights are positive; every index appears at least once.
func schedule(weights []float64) []uint32 {
	n := scheduleLength(weights)
	deadlines := make([]float64, len(weights))
	for i, w := range weights {
		deadlines[i] = 1 / w
	}
	counts := make([]int, len(weights))
	out := make([]uint32, 0, n+len(weights))
	for range n {
		best := 0
		for i := range deadlines {
			if deadlines[i] < deadlines[best] {
				best = i
			}
		}
		out = append(out, uint32(best))
		counts[best]++
		deadlines[best] += 1 / weights[best]
	}
	for i, c := range counts {
		if c == 0 {
			out = append(out, uint32(i))
		}
	}
	return out
}

// scheduleLength is the length after which whole-number weights repeat, if that
// is short enough; otherwise the bound.
func scheduleLength(weights []float64) int {
	var sum, divisor uint64
	for _, w := range weights {
		u := uint64(w)
		if float64(u) != w {
			return boundedLength(len(weights))
		}
		sum += u
		divisor = gcd(divisor, u)
	}
	if n := sum / divisor; n <= maxSchedule {
		return int(n)
	}
	return boundedLength(len(weights))
}

func boundedLength(hosts int) int { return max(maxSchedule, 4*hosts) }

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// factor is Envoy's: max(min_weight, (elapsed/window)^(1/aggression)).
func (s *SlowStart) factor(since, now time.Time) float64 {
	if s == nil || s.Window <= 0 {
		return 1
	}
	elapsed := now.Sub(since)
	if elapsed >= s.Window {
		return 1
	}
	aggression, floor := s.Aggression, s.MinPercent
	if aggression <= 0 {
		aggression = 1
	}
	if floor <= 0 {
		floor = 10
	}
	t := math.Max(float64(elapsed.Milliseconds()), 1) / float64(s.Window.Milliseconds())
	return math.Max(floor/100, math.Pow(t, 1/aggression))
}
