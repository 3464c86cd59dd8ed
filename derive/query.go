// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "fmt"

// A Query is a pure function whose results are remembered.
type Query[K comparable, V any] struct {
	g     *Graph
	name  string
	fn    func(c *Context, k K) V
	equal func(a, b V) bool
	tally tally

	memos map[K]*memo[K, V] // guarded by g.mu
}

// A memo is a result, or the wish for one.
type memo[K comparable, V any] struct {
	node
	q     *Query[K, V]
	key   K
	value V
	run   *run[K, V]
}

// A run is the task of making a memo valid, and what came out of it.
type run[K comparable, V any] struct {
	task
	m     *memo[K, V]
	value V
}

// NewQuery adds a query to g. name appears in panics and statistics. equal says whether two results are the same,
// so that whoever read the first need not run again; nil means that they never are.
func NewQuery[K comparable, V any](g *Graph, name string, equal func(a, b V) bool, fn func(c *Context, k K) V) *Query[K, V] {
	q := &Query[K, V]{g: g, name: name, fn: fn, equal: equal, memos: map[K]*memo[K, V]{}}
	q.tally.name = name
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queries = append(g.queries, &q.tally)
	return q
}

// Get returns the result for k at c's version, computing it if need be.
func (q *Query[K, V]) Get(c *Context, k K) V {
	c.check()
	if c.fork != nil || c.trace != nil {
		return q.apart(c, k).value
	}
	return q.get(c, k, true)
}

// get is Get in the base; with note, the current task depends on what it returns.
func (q *Query[K, V]) get(c *Context, k K, note bool) V {
	q.g.mu.RLock()
	if m := q.memos[k]; m != nil && m.covers(c.version) {
		v := m.value
		q.taken(c, m, note)
		q.g.mu.RUnlock()
		return v
	}
	q.g.mu.RUnlock()
	return q.slow(c, k, note)
}

// taken notes that c has read m. Under g.mu, for reading at least.
func (q *Query[K, V]) taken(c *Context, m *memo[K, V], note bool) {
	if m.idle && !m.used.Load() {
		m.used.Store(true)
	}
	if note {
		c.note(&m.node, m.from)
	}
}

// slow makes the result valid at c's version, waits for the reader who does, or, where
// the graph has moved past that version, computes it for c's reader alone.
func (q *Query[K, V]) slow(c *Context, k K, note bool) V {
	q.g.mu.Lock()
	m := q.memo(k)
	for !m.covers(c.version) {
		r := m.run
		if m.ahead(c.version) || r != nil && r.version > c.version {
			q.g.mu.Unlock()
			return q.alone(c, k)
		}
		if s := (scan{}); m.full && r == nil && q.g.scan(&m.node, &s, c.version) == unchanged {
			q.confirm(c, m, s)
			break
		}
		if r == nil || r.version < c.version {
			r = &run[K, V]{m: m}
			r.subject = m
			c.push(&r.task)
			m.run, m.running = r, true
			old, had := m.value, m.full
			q.g.mu.Unlock()
			return q.drive(c, r, old, had, note)
		}
		c.wait(&r.task)
		m = q.memo(k) // the old one may be gone
		if r.finished && !m.covers(c.version) {
			v := r.value // not kept in the graph
			q.g.release(m)
			q.g.mu.Unlock()
			return q.keepAlone(c, k, v)
		}
	}
	v := m.value
	q.taken(c, m, note)
	q.g.mu.Unlock()
	return v
}

// memo finds or makes k's memo. Under g.mu.
func (q *Query[K, V]) memo(k K) *memo[K, V] {
	m := q.memos[k]
	if m == nil {
		m = &memo[K, V]{q: q, key: k}
		q.memos[k] = m
		q.g.add(m)
	}
	return m
}

// drive carries out r, the current task: verify what there is, or else compute. had says that old is the last known value.
func (q *Query[K, V]) drive(c *Context, r *run[K, V], old V, had, note bool) V {
	defer q.abort(c, r)
	if had && q.verify(c, r, note) {
		return old
	}
	r.value = q.fn(c, r.m.key)
	q.tally.computed.Add(1)
	same := had && q.equal != nil && q.equal(old, r.value)
	if same {
		q.tally.cutOff.Add(1)
		r.value = old
	}
	q.install(c, r, same, note)
	return r.value
}

// verify looks whether anything that the last run read has changed. If nothing has, the value is valid at c's
// version, too.
func (q *Query[K, V]) verify(c *Context, r *run[K, V], note bool) bool {
	g, m := q.g, r.m
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := (scan{}); ; {
		if m.run != r { // a reader of a later version has taken over, and may have changed m
			r.detached = true
			return false
		}
		switch g.scan(&m.node, &s, c.version) {
		case changed:
			return false
		case unchanged:
			q.confirm(c, m, s)
			r.value = m.value
			q.finish(c, r, note)
			return true
		}
		next := g.nodes[m.deps[s.next].id]
		g.unlocked(func() { next.bring(c) })
		if m.run == r && !next.head().covers(c.version) { // the graph has moved past us
			return false
		}
	}
}

// confirm notes that m, whose dependencies s found unchanged, is valid at c's version. Under g.mu.
func (q *Query[K, V]) confirm(c *Context, m *memo[K, V], s scan) {
	q.tally.verified.Add(1)
	m.from, m.verified, m.clean = s.from, c.version, q.g.current(&m.node, c.version)
}

// A scan is how far the dependencies of a result have been looked at.
type scan struct {
	next int     // the first not looked at
	from Version // since when the others have been as they are
}

// A verdict is what a scan comes to.
type verdict int

const (
	unchanged verdict = iota
	changed           // one has changed
	unknown           // the next must be made valid first
)

// scan looks whether what n read has changed since n was verified, as v sees it, in the order in which it was read:
// what comes after a change might not be read any more. Under g.mu.
func (g *Graph) scan(n *node, s *scan, v Version) verdict {
	for ; s.next < len(n.deps); s.next++ {
		e := g.nodes[n.deps[s.next].id]
		d := e.head()
		at, from := d.changed, d.from
		if d.input {
			at = e.changedAt(v)
			from = at
		} else if !d.covers(v) {
			return unknown
		}
		if at > n.verified {
			return changed
		}
		s.from = max(s.from, from)
	}
	return unchanged
}

// unlocked calls fn, which may panic, without g.mu.
func (g *Graph) unlocked(fn func()) {
	g.mu.Unlock()
	defer g.mu.Lock()
	fn()
}

// current reports whether n, valid at v, is valid at the newest version, too, as far as that shows without
// verifying anything else.
func (g *Graph) current(n *node, v Version) bool {
	if v == g.version {
		return true
	}
	for _, e := range n.deps {
		if d := g.nodes[e.id].head(); d.changed > v || !d.input && !d.clean {
			return false
		}
	}
	return true
}

// install makes r's value the memo's, unless it was made of something that is not in the graph. What r read may
// have changed meanwhile: then it changed after c's version, and the next to verify the memo will see that.
func (q *Query[K, V]) install(c *Context, r *run[K, V], same, note bool) {
	g, m := q.g, r.m
	g.mu.Lock()
	if m.run != r || r.detached {
		q.finish(c, r, false)
		g.mu.Unlock()
		q.keepAlone(c, m.key, r.value)
		return
	}
	if !same {
		// Whoever read the old value has verified it no later than we had.
		m.changed = r.from
		if m.full {
			m.changed = max(m.changed, m.verified+1)
		}
		m.value = r.value
	}
	if !m.full {
		m.full = true
		q.tally.results++
	}
	g.link(&m.node, c.reads[r.base:])
	m.from, m.verified, m.clean = r.from, c.version, g.current(&m.node, c.version)
	q.finish(c, r, note)
	g.mu.Unlock()
}

// finish ends r, which has a value. Under g.mu.
func (q *Query[K, V]) finish(c *Context, r *run[K, V], note bool) {
	r.finished = true
	m := r.m
	m.pins.Add(1) // while nobody else may know it
	if m.run == r {
		m.run, m.running = nil, false
	}
	c.pop(&r.task)
	if note {
		c.note(&m.node, m.from)
	}
	m.pins.Add(-1)
	q.g.release(m)
}

// abort ends r if a panic, or runtime.Goexit, has. What was known before stays known.
func (q *Query[K, V]) abort(c *Context, r *run[K, V]) {
	if r.finished {
		return
	}
	q.g.mu.Lock()
	defer q.g.mu.Unlock()
	if r.m.run == r {
		r.m.run, r.m.running = nil, false
	}
	if r.parent != nil {
		r.parent.detached = true // should it recover, it has still read nothing it could depend on
	}
	c.pop(&r.task)
	q.g.release(r.m)
}

func (m *memo[K, V]) bring(c *Context)     { m.q.get(c, m.key, false) }
func (m *memo[K, V]) same(c *Context) bool { return m.q.apart(c, m.key).same }
func (m *memo[K, V]) count() *tally        { return &m.q.tally }
func (m *memo[K, V]) label() string        { return fmt.Sprintf("%s(%v)", m.q.name, m.key) }

func (m *memo[K, V]) drop() {
	delete(m.q.memos, m.key)
	if m.full {
		m.q.tally.results--
	}
}

// Results have no values of their own for older readers, and no origin but what they read.
func (m *memo[K, V]) changedAt(Version) Version { return m.changed }
func (m *memo[K, V]) trim(Version)              {}
func (m *memo[K, V]) void() bool                { return false }
func (m *memo[K, V]) origin() Origin            { return Origin{} }
