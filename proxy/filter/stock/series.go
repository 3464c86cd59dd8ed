// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"hash/maphash"
	"math/bits"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry"
)

// Metrics keeps the series of the istio_* metrics of a proxy. Each series is
// counted in several places, so that connections do not meet at one of them.
type Metrics struct {
	self   *filter.Peer
	reg    *telemetry.Registry
	shards int // a power of two

	mu         sync.Mutex
	counters   map[string]*counters
	histograms map[string]*histograms
	overflow   *telemetry.Counter
}

// maxSeries bounds the series of all istio_* metrics together: labels can hold
// what a client chose.
const maxSeries = 50_000

// maxShards bounds memory: a histogram's shard takes about 200 bytes.
const maxShards = 8

// NewMetrics returns an empty set that reg collects from. Self is the workload
// we are; version is the value of istio_build's label tag.
func NewMetrics(self *filter.Peer, version string, reg *telemetry.Registry) *Metrics {
	m := &Metrics{
		self: self, reg: reg,
		shards:   min(maxShards, 1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1))),
		counters: map[string]*counters{}, histograms: map[string]*histograms{},
		overflow: reg.Counter("meltemi_metric_series_refused_total"),
	}
	reg.Gauge("istio_build", telemetry.Tag{Key: "component", Value: "proxy"}, telemetry.Tag{Key: "tag", Value: version}).Set(1)
	reg.Collect(m.collect)
	return m
}

// counters is one series of a counter.
type counters struct {
	name   string
	tags   []telemetry.Tag
	shards []paddedCounter
}

type paddedCounter struct {
	n atomic.Uint64
	_ [56]byte // a cache line each
}

func (c *counters) add(shard, n uint64) {
	if c != nil {
		c.shards[shard&uint64(len(c.shards)-1)].n.Add(n)
	}
}

// histograms is one series of a histogram.
type histograms struct {
	name   string
	tags   []telemetry.Tag
	shards []*telemetry.Histogram
}

func (h *histograms) record(shard uint64, v float64) {
	if h != nil {
		h.shards[shard&uint64(len(h.shards)-1)].Record(v)
	}
}

func seriesKey(name string, tags []telemetry.Tag) string {
	var b strings.Builder
	b.WriteString(name)
	for _, t := range tags {
		b.WriteByte(0)
		b.WriteString(t.Key)
		b.WriteByte(0)
		b.WriteString(t.Value)
	}
	return b.String()
}

// admit says whether another series may be made, and gives the labels of the
// one that stands for all that may not.
func (m *Metrics) admit(tags []telemetry.Tag) ([]telemetry.Tag, bool) {
	if len(m.counters)+len(m.histograms) < maxSeries {
		return tags, true
	}
	m.overflow.Inc()
	rest := make([]telemetry.Tag, len(tags))
	for i, t := range tags {
		rest[i] = telemetry.Tag{Key: t.Key, Value: unknown}
	}
	return rest, false
}

func (m *Metrics) counter(name string, tags []telemetry.Tag) *counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := seriesKey(name, tags)
	if c := m.counters[key]; c != nil {
		return c
	}
	tags, ok := m.admit(tags)
	if !ok {
		key = seriesKey(name, tags)
		if c := m.counters[key]; c != nil {
			return c
		}
	}
	c := &counters{name: name, tags: tags, shards: make([]paddedCounter, m.shards)}
	m.counters[key] = c
	return c
}

func (m *Metrics) histogram(name string, tags []telemetry.Tag) *histograms {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := seriesKey(name, tags)
	if h := m.histograms[key]; h != nil {
		return h
	}
	tags, ok := m.admit(tags)
	if !ok {
		key = seriesKey(name, tags)
		if h := m.histograms[key]; h != nil {
			return h
		}
	}
	h := &histograms{name: name, tags: tags}
	for range m.shards {
		h.shards = append(h.shards, telemetry.NewHistogram(m.reg.Bounds(name)))
	}
	m.histograms[key] = h
	return h
}

func (m *Metrics) collect(e *telemetry.Emitter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.counters {
		sum := uint64(0)
		for i := range c.shards {
			sum += c.shards[i].n.Load()
		}
		e.Counter(c.name, float64(sum), c.tags...)
	}
	for _, h := range m.histograms {
		var d telemetry.Distribution
		for _, s := range h.shards {
			s.AddTo(&d)
		}
		e.Histogram(h.name, d, h.tags...)
	}
}

// A cache finds the series of a label set without a lock. It is lossy: a label
// set has two places, and takes the older one's when both are in use by others.
type cache[K comparable, V any] struct {
	seed  maphash.Seed
	slots [cacheSlots]atomic.Pointer[cached[K, V]]
}

const cacheSlots = 1024

type cached[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any]() *cache[K, V] {
	return &cache[K, V]{seed: maphash.MakeSeed()}
}

// get returns the value for key, or nil, and the hash that put wants.
func (c *cache[K, V]) get(key *K) (*V, uint64) {
	h := maphash.Comparable(c.seed, *key)
	i := h % cacheSlots
	if e := c.slots[i].Load(); e != nil && e.key == *key {
		return &e.value, h
	}
	if e := c.slots[i^1].Load(); e != nil && e.key == *key {
		return &e.value, h
	}
	return nil, h
}

func (c *cache[K, V]) put(hash uint64, key K, value V) *V {
	e := &cached[K, V]{key, value}
	i := hash % cacheSlots
	if old := c.slots[i].Swap(e); old != nil {
		c.slots[i^1].Store(old)
	}
	return &e.value
}
