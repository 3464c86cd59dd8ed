// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"cmp"
	"runtime"
	"testing"
)

// The mesh of these benchmarks: 100,000 rows, and 1,000,000 results, ten of which read each row. Every result reads a
// row and one setting that all share.
const (
	benchRows    = 100_000
	benchPerRow  = 10
	benchResults = benchRows * benchPerRow
)

type value struct{ n int }

type bench struct {
	g       *Graph
	rows    *Table[int, *value]
	setting *Table[string, int]
	derived *Query[int, *value]
	watcher *Watcher
	holds   []*Hold
}

func newBench() *bench {
	b := &bench{g: NewGraph()}
	b.rows = NewTable[int, *value](b.g, "rows", func(a, b *value) bool { return *a == *b }).WithOrder(cmp.Compare[int])
	b.setting = NewTable[string](b.g, "setting", same[int])
	setting := NewQuery(b.g, "setting", same[int], func(c *Context, k string) int {
		n, _ := b.setting.Get(c, k)
		return n / 10
	})
	b.derived = NewQuery(b.g, "derived", func(a, b *value) bool { return *a == *b }, func(c *Context, k int) *value {
		row, _ := b.rows.Get(c, k/benchPerRow)
		return &value{row.n + k + setting.Get(c, "one")}
	})
	b.g.Update(func(tx *Tx) {
		b.setting.Set(tx, "one", 1)
		for k := range benchRows {
			b.rows.Set(tx, k, &value{k})
		}
	})
	return b
}

// hold takes a hold on all results, and computes them.
func (b *bench) hold() {
	b.watcher = b.g.NewWatcher()
	b.holds = make([]*Hold, benchResults)
	for k := range benchResults {
		b.holds[k] = Watch(b.watcher, b.derived, k, nil)
	}
	b.watcher.Drain(func(*Context, *Hold) {})
}

func (b *bench) work() (computed, verified uint64) {
	for _, q := range b.g.Stats().Queries {
		computed, verified = computed+q.Computed, verified+q.Verified
	}
	return computed, verified
}

// heap is the bytes in use after collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkChangedRow changes one row, and reports the ten results that read it.
func BenchmarkChangedRow(b *testing.B) {
	m := newBench()
	m.hold()
	reported := 0
	computed, verified := m.work()
	n := 0
	for b.Loop() {
		n++
		m.g.Update(func(tx *Tx) { m.rows.Set(tx, n%benchRows, &value{-n}) })
		m.watcher.Drain(func(*Context, *Hold) { reported++ })
	}
	c, v := m.work()
	b.ReportMetric(float64(c-computed)/float64(b.N), "recomputed/op")
	b.ReportMetric(float64(v-verified)/float64(b.N), "verified/op")
	b.ReportMetric(float64(reported)/float64(b.N), "reported/op")
	runtime.KeepAlive(m)
}

// BenchmarkCutOff changes the setting that all results depend on, without consequence: the dearest case, as all must
// be found unchanged.
func BenchmarkCutOff(b *testing.B) {
	m := newBench()
	m.hold()
	computed, verified := m.work()
	n := 0
	for b.Loop() {
		n++
		m.g.Update(func(tx *Tx) { m.setting.Set(tx, "one", n%10) })
		m.watcher.Drain(func(*Context, *Hold) { b.Error("reported") })
	}
	c, v := m.work()
	b.ReportMetric(float64(c-computed)/float64(b.N), "recomputed/op")
	b.ReportMetric(float64(v-verified)/float64(b.N), "verified/op")
	runtime.KeepAlive(m)
}

// BenchmarkMemory states what rows, results and holds take, and how long all results take to compute.
func BenchmarkMemory(b *testing.B) {
	var rows, results, holds uint64
	for b.Loop() {
		before := heap()
		m := newBench()
		loaded := heap()
		m.g.KeepIdle(benchResults)
		m.g.Read(func(c *Context) {
			for k := range benchResults {
				m.derived.Get(c, k)
			}
		})
		computed := heap()
		m.hold()
		held := heap()
		rows += loaded - before
		results += computed - loaded
		holds += held - computed
		runtime.KeepAlive(m)
	}
	n := float64(b.N)
	b.ReportMetric(float64(rows)/n/benchRows, "bytes/row")
	b.ReportMetric(float64(results)/n/benchResults, "bytes/result")
	b.ReportMetric(float64(holds)/n/benchResults, "bytes/hold")
}

// BenchmarkCompute computes a missing result.
func BenchmarkCompute(b *testing.B) {
	m := newBench()
	m.g.KeepIdle(0) // so that it is forgotten at once
	b.ReportAllocs()
	m.g.Read(func(c *Context) {
		k := 0
		for b.Loop() {
			m.derived.Get(c, k)
			k = (k + 1) % benchResults
		}
	})
}

// BenchmarkHit reads a result that is there, from one goroutine and from all.
func BenchmarkHit(b *testing.B) {
	m := newBench()
	m.g.Read(func(c *Context) { m.derived.Get(c, 1) })
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		m.g.Read(func(c *Context) {
			for b.Loop() {
				m.derived.Get(c, 1)
			}
		})
	})
	b.Run("all", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			m.g.Read(func(c *Context) {
				for pb.Next() {
					m.derived.Get(c, 1)
				}
			})
		})
	})
}

// BenchmarkFork asks a fork with one row overlaid for a result that it changes, and for one that it shares.
func BenchmarkFork(b *testing.B) {
	m := newBench()
	m.hold()
	f := m.g.Fork()
	b.ReportAllocs()
	for b.Loop() {
		f.Update(func(tx *Tx) { m.rows.Set(tx, 1, &value{-1}) })
		f.Read(func(c *Context) {
			m.derived.Get(c, benchPerRow)
			m.derived.Get(c, 0)
		})
	}
	runtime.KeepAlive(m)
}
