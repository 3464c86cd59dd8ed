// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Defaults and bounds of Envoy's hash policies.
const (
	defaultRingMin = 1024
	defaultRingMax = 8 << 20
	defaultMaglev  = 65537
	maxMaglev      = 5000011
)

// A ring is Envoy's ketama ring: each member has entries in proportion to its
// weight, hashed from "key_i"; a request goes to the first entry at or after its hash.
type ring struct {
	hashes []uint64
	ids    []int32
}

func newRing(members []Member, shares []float64, minSize, maxSize uint64) *ring {
	if minSize == 0 {
		minSize = defaultRingMin
	}
	if maxSize == 0 {
		maxSize = defaultRingMax
	}
	weights, lowest := normalised(members, shares)
	scale := math.Min(math.Ceil(lowest*float64(minSize))/lowest, float64(maxSize))
	size := int(math.Ceil(scale))
	type entry struct {
		hash uint64
		id   int32
	}
	entries := make([]entry, 0, size)
	var current, target float64
	var key []byte
	for i, h := range members {
		key = append(append(key[:0], h.Key...), '_')
		prefix := len(key)
		target += scale * weights[i]
		for n := uint64(0); current < target; n++ {
			key = strconv.AppendUint(key[:prefix], n, 10)
			entries = append(entries, entry{xxhash.Sum64(key), int32(h.ID)})
			current++
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].hash < entries[j].hash })
	r := &ring{hashes: make([]uint64, len(entries)), ids: make([]int32, len(entries))}
	for i, e := range entries {
		r.hashes[i], r.ids[i] = e.hash, e.id
	}
	return r
}

func (r *ring) pick(hash uint64, attempt int) int {
	lo, hi := 0, len(r.hashes)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.hashes[mid] < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return int(r.ids[(lo+attempt)%len(r.ids)])
}

// normalised returns each member's part of the whole, and the lowest that is not 0.
func normalised(members []Member, shares []float64) (weights []float64, lowest float64) {
	weights = make([]float64, len(members))
	var sum float64
	for i, h := range members {
		if weights[i] = float64(h.Weight); shares != nil {
			weights[i] = shares[i]
		}
		sum += weights[i]
	}
	lowest = 1
	for i := range weights {
		if weights[i] /= sum; weights[i] > 0 {
			lowest = math.Min(lowest, weights[i])
		}
	}
	return weights, lowest
}

// A maglevTable is Maglev's lookup table with Envoy's weights.
type maglevTable struct{ table []int32 }

func newMaglev(members []Member, shares []float64, size uint64) *maglevTable {
	if size == 0 || size > maxMaglev {
		size = defaultMaglev
	}
	type build struct {
		key                string
		id                 int32
		offset, skip, next uint64
		weight, target     float64
	}
	builds := make([]build, 0, len(members))
	weights, _ := normalised(members, shares)
	var heaviest float64
	for i, h := range members {
		if weights[i] == 0 {
			continue
		}
		key := h.Key
		builds = append(builds, build{
			key:    key,
			id:     int32(h.ID),
			offset: xxhash.Sum64String(key) % size,
			skip:   seeded(key)%(size-1) + 1,
			weight: weights[i],
		})
		heaviest = math.Max(heaviest, weights[i])
	}
	sort.Slice(builds, func(i, j int) bool { return builds[i].key < builds[j].key })
	table := make([]int32, size)
	for i := range table {
		table[i] = None
	}
	for filled, iteration := uint64(0), 1; filled < size; iteration++ {
		for i := range builds {
			b := &builds[i]
			if float64(iteration)*b.weight < b.target {
				continue
			}
			b.target += heaviest
			at := (b.offset + b.skip*b.next) % size
			for table[at] != None {
				b.next++
				at = (b.offset + b.skip*b.next) % size
			}
			table[at] = b.id
			b.next++
			if filled++; filled == size {
				break
			}
		}
	}
	return &maglevTable{table}
}

func (m *maglevTable) pick(hash uint64, attempt int) int {
	if attempt > 0 {
		hash ^= ^uint64(0) - uint64(attempt) + 1
	}
	return int(m.table[hash%uint64(len(m.table))])
}

// seeded is XXH64 of s with seed 1.
func seeded(s string) uint64 {
	d := xxhash.NewWithSeed(1)
	_, _ = d.WriteString(s) // never fails
	return d.Sum64()
}
