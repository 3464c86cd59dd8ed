// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"math"
	"slices"
	"sync"
)

// A Watcher collects the held results that may have changed.
type Watcher struct {
	g        *Graph
	ready    chan struct{}
	draining sync.Mutex // held through Drain; taken before g.mu

	// Guarded by g.mu.
	holds   []*Hold
	pending []*Hold
	seq     uint64
}

// A Hold keeps one result, and all it depends on, in memory and watched.
type Hold struct {
	w   *Watcher
	e   entry
	tag any
	seq uint64

	// Belong to Drain.
	last     any     // the value last reported, if there is an equal function to compare it with
	seen     Version // when that changed, as the node has it; unseen if it cannot tell
	reported bool

	// Guarded by g.mu.
	prev, next *Hold // of the same result
	at         int   // in w.holds
	pends      bool  // in w.pending
	released   bool
}

const unseen = Version(math.MaxUint64)

// NewWatcher returns a watcher with no holds.
func (g *Graph) NewWatcher() *Watcher { return &Watcher{g: g, ready: make(chan struct{}, 1)} }

// Watch holds q's result for k. It is computed by the next Drain, which reports it: a first value is a change.
func Watch[K comparable, V any](w *Watcher, q *Query[K, V], k K, tag any) *Hold {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	m := q.memo(k)
	if m.idle {
		w.g.unidle(m)
	}
	w.seq++
	h := &Hold{w: w, e: m, tag: tag, seq: w.seq, next: m.holds, at: len(w.holds)}
	if h.next != nil {
		h.next.prev = h
	} else {
		q.tally.held++
	}
	m.holds = h
	w.holds = append(w.holds, h)
	h.pend()
	return h
}

// Tag is what was passed to Watch.
func (h *Hold) Tag() any { return h.tag }

// Release ends the hold; it is not reported any more. It may be called more than once, and inside Drain.
func (h *Hold) Release() {
	h.w.g.mu.Lock()
	defer h.w.g.mu.Unlock()
	h.release()
}

func (h *Hold) release() {
	if h.released {
		return
	}
	h.released = true
	w, n := h.w, h.e.head()
	last := len(w.holds) - 1
	w.holds[h.at] = w.holds[last]
	w.holds[h.at].at = h.at
	w.holds[last] = nil
	w.holds = w.holds[:last]
	if h.next != nil {
		h.next.prev = h.prev
	}
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		n.holds = h.next
	}
	if n.holds == nil {
		h.e.count().held--
		w.g.release(h.e)
	}
	h.prev, h.next, h.last = nil, nil, nil
}

// Watcher is the one that h belongs to.
func (h *Hold) Watcher() *Watcher { return h.w }

// Pending reports whether h's value may differ from the one last reported.
func (h *Hold) Pending() bool {
	h.w.g.mu.RLock()
	defer h.w.g.mu.RUnlock()
	return h.pends
}

// pend puts h among those that may have changed. Under g.mu.
func (h *Hold) pend() {
	if h.pends || h.released {
		return
	}
	h.pends = true
	h.w.pending = append(h.w.pending, h)
	select {
	case h.w.ready <- struct{}{}:
	default:
	}
}

// Pending reports whether any held result may have changed since the last Drain.
func (w *Watcher) Pending() bool {
	w.g.mu.RLock()
	defer w.g.mu.RUnlock()
	return slices.ContainsFunc(w.pending, func(h *Hold) bool { return !h.released })
}

// Ready receives when a held result may have changed since the last Drain.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Drain calls fn for each hold whose value differs from the one last reported, in the order in which they
// were taken, all in one version, which it returns. fn must not call Drain or Collect. If fn or a query panics, what was
// not yet reported remains to be.
func (w *Watcher) Drain(fn func(c *Context, h *Hold)) Version {
	w.draining.Lock()
	defer w.draining.Unlock()
	c, pending := w.take()
	defer c.end()
	done := 0
	defer func() { w.giveBack(pending[done:]) }()
	for _, h := range pending {
		if h.e.report(c, h) {
			h.reported = false // until fn has returned
			fn(c, h)
			h.reported = true
		}
		done++
	}
	return c.version
}

// Collect is Drain with all changed holds at once. fn is called even if there are none.
func (w *Watcher) Collect(fn func(c *Context, changed []*Hold)) Version {
	w.draining.Lock()
	defer w.draining.Unlock()
	c, pending := w.take()
	defer c.end()
	var changed []*Hold
	done := false
	defer func() {
		if !done {
			w.giveBack(pending)
		}
	}()
	for _, h := range pending {
		if h.e.report(c, h) {
			h.reported = false
			changed = append(changed, h)
		}
	}
	fn(c, changed)
	for _, h := range changed {
		h.reported = true
	}
	done = true
	return c.version
}

// take begins a reader, and takes what may have changed up to its version.
func (w *Watcher) take() (*Context, []*Hold) {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	select {
	case <-w.ready:
	default:
	}
	pending := w.pending
	w.pending = nil
	for _, h := range pending {
		h.pends = false
	}
	slices.SortFunc(pending, func(a, b *Hold) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return w.g.beginLocked(), pending
}

func (w *Watcher) giveBack(holds []*Hold) {
	if len(holds) == 0 {
		return
	}
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	for _, h := range holds {
		h.pend()
	}
}

// Close releases all holds.
func (w *Watcher) Close() {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	for len(w.holds) > 0 {
		w.holds[len(w.holds)-1].release()
	}
	w.pending = nil
}

// report computes m's value at c's version, and says whether h has to report it. If the value may be another at the
// newest version already, h pends again.
func (m *memo[K, V]) report(c *Context, h *Hold) bool {
	g := m.q.g
	g.mu.Lock()
	released, v, covered := h.released, m.value, m.covers(c.version)
	if !released && !covered {
		g.mu.Unlock()
		v = m.q.get(c, m.key, false)
		g.mu.Lock()
		covered = m.covers(c.version)
	}
	seen := unseen
	if covered {
		seen = m.changed
	}
	if !m.clean || !covered {
		h.pend()
	}
	g.mu.Unlock()
	if released {
		return false
	}
	known := h.reported
	if known && seen != unseen && seen == h.seen {
		return false
	}
	if known && m.q.equal != nil {
		if last, _ := h.last.(V); m.q.equal(last, v) {
			h.seen = seen
			return false
		}
	}
	h.seen = seen
	if m.q.equal != nil {
		h.last = v
	}
	return true
}
