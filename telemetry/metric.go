// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"math"
	"sync/atomic"
)

// A Counter only grows. The zero value is ready.
type Counter struct{ n atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value returns the count.
func (c *Counter) Value() uint64 { return c.n.Load() }

// A Gauge goes up and down. The zero value is ready.
type Gauge struct{ n atomic.Int64 }

// Set sets it to v.
func (g *Gauge) Set(v int64) { g.n.Store(v) }

// Add adds d, which may be negative.
func (g *Gauge) Add(d int64) { g.n.Add(d) }

// Value returns where it stands.
func (g *Gauge) Value() int64 { return g.n.Load() }

// DefaultBuckets are Envoy's, for milliseconds and for bytes alike. Not to be changed.
func DefaultBuckets() []float64 {
	return []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000,
		30000, 60000, 300000, 600000, 1800000, 3600000}
}

// A Histogram counts observations by size. Make it with NewHistogram.
type Histogram struct {
	bounds []float64 // upper bounds, ascending
	counts []atomic.Uint64
	sum    atomic.Uint64 // of thousandths
}

// NewHistogram returns a histogram with these upper bounds (ascending); the
// bucket above the last is implied.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Record adds one observation; negative ones count as 0. It does not allocate.
func (h *Histogram) Record(v float64) {
	if v < 0 || math.IsNaN(v) {
		v = 0
	}
	i, j := 0, len(h.bounds)
	for i < j { // the first bound that is not below v
		if m := int(uint(i+j) >> 1); h.bounds[m] < v {
			i = m + 1
		} else {
			j = m
		}
	}
	h.counts[i].Add(1)
	h.sum.Add(uint64(v * 1000))
}

// AddTo adds h's counts to s, which has the same bounds or is empty.
func (h *Histogram) AddTo(s *Distribution) {
	if s.Counts == nil {
		s.Bounds, s.Counts = h.bounds, make([]uint64, len(h.counts))
	}
	for i := range h.counts {
		n := h.counts[i].Load()
		s.Counts[i] += n
		s.Count += n
	}
	s.Sum += float64(h.sum.Load()) / 1000
}

// A Distribution is what a histogram held at one moment.
type Distribution struct {
	Bounds []float64
	Counts []uint64 // one per bucket, not cumulative; one more than Bounds
	Count  uint64
	Sum    float64
}

// Quantile estimates the value below which the fraction q of observations lies,
// by interpolation inside its bucket; NaN if there are none.
func (d *Distribution) Quantile(q float64) float64 {
	if d.Count == 0 {
		return math.NaN()
	}
	rank := q * float64(d.Count)
	seen, low := 0.0, 0.0
	for i, n := range d.Counts {
		if i == len(d.Bounds) {
			break
		}
		if seen+float64(n) >= rank && n > 0 {
			return low + (d.Bounds[i]-low)*(rank-seen)/float64(n)
		}
		seen += float64(n)
		low = d.Bounds[i]
	}
	return low
}
