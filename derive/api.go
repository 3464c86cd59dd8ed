// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"slices"
	"sync"
)

// A Version numbers the states of a graph's rows. The empty graph has version 0.
type Version uint64

// A Graph owns tables, indexes and queries, and the results computed from them.
type Graph struct {
	mu       sync.RWMutex
	version  Version
	watchers []*Watcher
}

// NewGraph returns an empty graph.
func NewGraph() *Graph { return &Graph{} }

// Update applies all that fn writes to tx as one version, and returns it. A batch that changes
// nothing makes no version. Writers are serialised; fn must not call Update.
func (g *Graph) Update(fn func(tx *Tx)) Version {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn(&Tx{})
	g.version++
	for _, w := range g.watchers {
		w.signal()
	}
	return g.version
}

// Read lets fn read the newest version.
func (g *Graph) Read(fn func(c *Context)) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	fn(&Context{version: g.version})
}

// A Context is what readers and query functions read through. It is valid until the function it
// was passed to returns, and only on that goroutine.
type Context struct {
	version Version
	origins *[]Origin
}

// Version is the version that c reads.
func (c *Context) Version() Version { return c.version }

// A Tx is one batch of changes.
type Tx struct{ fork *Fork }

// A Table holds input rows.
type Table[K comparable, V any] struct {
	name  string
	rows  map[K]V
	order func(a, b K) int
}

// NewTable adds a table to g. equal says whether two values of a row are the same, so that writing the second over
// the first changes nothing; nil means that they never are.
func NewTable[K comparable, V any](g *Graph, name string, equal func(a, b V) bool) *Table[K, V] {
	return &Table[K, V]{name: name, rows: map[K]V{}}
}

// WithOrder gives t the order in which Keys and Index.Get list rows. It must be called before the first
// row is written; order(a, b) must be 0 only for a == b.
func (t *Table[K, V]) WithOrder(order func(a, b K) int) *Table[K, V] {
	t.order = order
	return t
}

// Set writes row k.
func (t *Table[K, V]) Set(tx *Tx, k K, v V) { t.rows[k] = v }

// Delete removes row k, if there is one.
func (t *Table[K, V]) Delete(tx *Tx, k K) { delete(t.rows, k) }

// Get reads row k; false if there is none. Either is a dependency.
func (t *Table[K, V]) Get(c *Context, k K) (V, bool) {
	v, ok := t.rows[k]
	return v, ok
}

// Keys lists the keys of all rows, in the table's order, which it must have. It depends on which rows there
// are, not on their values.
func (t *Table[K, V]) Keys(c *Context) []K {
	var ks []K
	for k := range t.rows {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, t.order)
	return ks
}

// An Index finds the rows of a table by what they contain.
type Index[I, K comparable] struct{ get func(i I) []K }

// NewIndex adds an index to t, which must have an order and no rows yet. of lists under which entries a row
// is found.
func NewIndex[K comparable, V any, I comparable](t *Table[K, V], name string, of func(k K, v V) []I) *Index[I, K] {
	return &Index[I, K]{get: func(i I) []K {
		var ks []K
		for k, v := range t.rows {
			if slices.Contains(of(k, v), i) {
				ks = append(ks, k)
			}
		}
		slices.SortFunc(ks, t.order)
		return ks
	}}
}

// Get lists the keys of the rows found under i, in the table's order. It depends on that entry
// alone, not on the values of the rows.
func (ix *Index[I, K]) Get(c *Context, i I) []K { return ix.get(i) }

// A Query is a pure function whose results are remembered.
type Query[K comparable, V any] struct {
	fn    func(c *Context, k K) V
	equal func(a, b V) bool
}

// NewQuery adds a query to g. name appears in panics and statistics. equal says whether two results are the same,
// so that whoever read the first need not run again; nil means that they never are.
func NewQuery[K comparable, V any](g *Graph, name string, equal func(a, b V) bool, fn func(c *Context, k K) V) *Query[K, V] {
	return &Query[K, V]{fn: fn, equal: equal}
}

// Get returns the result for k at c's version, computing it if need be.
func (q *Query[K, V]) Get(c *Context, k K) V { return q.fn(c, k) }

// An Origin is an input that a result was made from.
type Origin struct {
	Table string // the name of the table or index
	Key   any    // the row's key or the index entry; nil for the set of keys of the table
}

// Provenance lists the inputs that the result for k was computed from, transitively, each once, in the
// order of first reading. Rows that were looked for and not found are inputs, too.
// It is for readers; query functions must not call it.
func (q *Query[K, V]) Provenance(c *Context, k K) []Origin { return nil }

// A Watcher collects the held results that may have changed.
type Watcher struct {
	g     *Graph
	ready chan struct{}
	mu    sync.Mutex
	holds []*Hold
}

// NewWatcher returns a watcher with no holds.
func (g *Graph) NewWatcher() *Watcher {
	w := &Watcher{g: g, ready: make(chan struct{}, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers = append(g.watchers, w)
	return w
}

func (w *Watcher) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// A Hold keeps one result, and all it depends on, in memory and watched.
type Hold struct {
	w       *Watcher
	tag     any
	changed func(c *Context) bool
}

// Watch holds q's result for k. It is computed by the next Drain, which reports it: a first value is a change.
func Watch[K comparable, V any](w *Watcher, q *Query[K, V], k K, tag any) *Hold {
	h := &Hold{w: w, tag: tag}
	var last *V
	h.changed = func(c *Context) bool {
		v := q.Get(c, k)
		if last != nil && q.equal != nil && q.equal(*last, v) {
			return false
		}
		last = &v
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds = append(w.holds, h)
	w.signal()
	return h
}

// Tag is what was passed to Watch.
func (h *Hold) Tag() any { return h.tag }

// Release ends the hold; it is not reported any more. It may be called more than once, and inside Drain.
func (h *Hold) Release() {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.holds = slices.DeleteFunc(slices.Clone(h.w.holds), func(o *Hold) bool { return o == h })
}

// Ready receives when a held result may have changed since the last Drain.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Drain calls fn for each hold whose value differs from the one last reported, in the order in which they
// were taken, all in one version, which it returns.
func (w *Watcher) Drain(fn func(c *Context, h *Hold)) Version {
	var v Version
	w.g.Read(func(c *Context) {
		v = c.version
		w.mu.Lock()
		holds := w.holds
		w.mu.Unlock()
		for _, h := range holds {
			if h.changed(c) {
				fn(c, h)
			}
		}
	})
	return v
}

// Close releases all holds.
func (w *Watcher) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds = nil
}

// A Fork is a graph's rows with some of them overlaid.
type Fork struct{ g *Graph }

// Fork returns a fork without overlaid rows. It follows the base's later versions.
func (g *Graph) Fork() *Fork { return &Fork{g: g} }

// Update overlays rows: what fn sets or deletes is so in the fork, whatever the base says.
func (f *Fork) Update(fn func(tx *Tx)) { panic("derive: forks are not available yet") }

// Read lets fn read the newest version of the base under the fork's rows.
func (f *Fork) Read(fn func(c *Context)) { f.g.Read(fn) }

// Stats counts what a graph holds and did.
type Stats struct {
	Version Version
	Tables  []TableStats
	Queries []QueryStats
}

// TableStats is about one table or index.
type TableStats struct {
	Name string
	Rows int
}

// QueryStats is about one query. Counts of work are since the graph was made.
type QueryStats struct {
	Name     string
	Results  int    // in memory
	Held     int    // of these, under a Hold
	Idle     int    // of these, needed by nobody
	Computed uint64 // runs of the function
	Verified uint64 // results found unchanged without running the function
	CutOff   uint64 // runs that gave an equal result
}

// Stats returns the current counts.
func (g *Graph) Stats() Stats { return Stats{Version: g.version} }

// KeepIdle sets how many results that nobody needs are kept for the next reader.
func (g *Graph) KeepIdle(n int) {}
