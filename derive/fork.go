// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"maps"
	"sync"
)

// A Fork is a graph's rows with some of them overlaid. Results that do not depend on an overlaid row are the
// base's own where the base has them; the others are the fork's, and kept until base or overlay change.
// Nothing in the base refers to a fork: one that is no longer needed is just forgotten.
type Fork struct {
	g *Graph

	mu      sync.Mutex
	overlay *overlay
	space   *space
	version Version // of the base, at which space was filled
}

// An overlay is the overlaid rows. It is never written to once readers have it.
type overlay struct {
	rows  map[any]any // *Table[K, V]: map[K]change[V]
	added map[any]any // *Table[K, V]: the present ones, []K sorted; *Index[I, K]: those by entry, map[I][]K
}

// Fork returns a fork without overlaid rows. It follows the base's later versions.
func (g *Graph) Fork() *Fork {
	return &Fork{g: g, overlay: &overlay{}, space: &space{}}
}

// Update overlays rows: what fn sets or deletes is so in the fork, whatever the base says.
func (f *Fork) Update(fn func(tx *Tx)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tx := &Tx{g: f.g}
	tx.fill(fn)
	next := &overlay{maps.Clone(f.overlay.rows), maps.Clone(f.overlay.added)}
	if next.rows == nil {
		next.rows, next.added = map[any]any{}, map[any]any{}
	}
	for _, b := range tx.batches {
		b.overlay(next)
	}
	f.overlay, f.space = next, &space{}
}

// Read lets fn read the newest version of the base under the fork's rows.
func (f *Fork) Read(fn func(c *Context)) {
	f.g.Read(func(base *Context) { f.ReadWith(base, fn) })
}

// ReadWith lets fn read the version that base reads under the fork's rows: for comparing the two.
func (f *Fork) ReadWith(base *Context, fn func(c *Context)) {
	base.check()
	if base.g != f.g || base.fork != nil {
		panic("derive: Fork.ReadWith needs a Context of the fork's own base")
	}
	f.mu.Lock()
	if f.version != base.version {
		f.version, f.space = base.version, &space{}
	}
	c := &Context{g: f.g, version: base.version, fork: f.overlay, private: f.space}
	f.mu.Unlock()
	defer func() { c.over = true }()
	fn(c)
}

// overlaid is o's rows of t.
func (t *Table[K, V]) overlaid(o *overlay) map[K]change[V] {
	if o == nil {
		return nil
	}
	rows, _ := o.rows[t].(map[K]change[V])
	return rows
}

// A space holds results that are not in the graph: a fork's, or those of a reader whom the graph has overtaken.
type space struct {
	mu   sync.Mutex
	kept map[any]any // privateKey[K, V]: *outcome[V]
}

// A privateKey identifies a result in a space.
type privateKey[K comparable, V any] struct {
	q *Query[K, V]
	k K
}

// An outcome is a result in a space.
type outcome[V any] struct {
	value V
	same  bool // as the base's result
}

func (p privateKey[K, V]) label() string { return fmt.Sprintf("%s(%v)", p.q.name, p.k) }

func (s *space) get(key any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[key]
}

// put keeps o, unless another reader has been faster; it returns what is kept.
func (s *space) put(key, o any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.kept[key]; ok {
		return first
	}
	if s.kept == nil {
		s.kept = map[any]any{}
	}
	s.kept[key] = o
	return o
}

// apart returns the result for k in c's space. In a fork it is the base's, if nothing it depends on differs.
func (q *Query[K, V]) apart(c *Context, k K) *outcome[V] {
	if c.private == nil {
		c.private = &space{}
	}
	key := privateKey[K, V]{q, k}
	if o := c.private.get(key); o != nil {
		return o.(*outcome[V])
	}
	for t := c.task; t != nil; t = t.parent {
		if t.private && t.subject == any(key) {
			panic(c.chain(t))
		}
	}
	t := &task{subject: key, private: true}
	c.push(t)
	defer func() { c.task = t.parent }()
	o := &outcome[V]{}
	deps, old, had := q.base(c, k)
	if o.same = had && allSame(c, deps); o.same {
		o.value = old
	} else {
		o.value = q.fn(c, k)
		q.tally.computed.Add(1)
		if o.same = had && q.equal != nil && q.equal(old, o.value); o.same {
			o.value = old
		}
	}
	return c.private.put(key, o).(*outcome[V])
}

// base returns the base's result for a fork, and what it depends on; false if the base has none.
func (q *Query[K, V]) base(c *Context, k K) (deps []entry, v V, ok bool) {
	if c.fork == nil || c.trace != nil {
		return nil, v, false
	}
	q.g.mu.RLock()
	defer q.g.mu.RUnlock()
	m := q.memos[k]
	if m == nil || !m.covers(c.version) {
		return nil, v, false
	}
	for _, e := range m.deps {
		deps = append(deps, q.g.nodes[e.id])
	}
	return deps, m.value, true
}

// allSame reports whether c's fork sees all of deps as the base does. As in verify, order matters.
func allSame(c *Context, deps []entry) bool {
	for _, e := range deps {
		if !e.same(c) {
			return false
		}
	}
	return true
}

// alone returns the result for k at the version of a reader whom the graph has overtaken.
func (q *Query[K, V]) alone(c *Context, k K) V {
	if c.task != nil {
		c.task.detached = true
	}
	return q.apart(c, k).value
}

// keepAlone keeps a result that came too late for the graph for c's reader.
func (q *Query[K, V]) keepAlone(c *Context, k K, v V) V {
	if c.task != nil {
		c.task.detached = true
	}
	if c.private == nil {
		c.private = &space{}
	}
	return c.private.put(privateKey[K, V]{q, k}, &outcome[V]{value: v}).(*outcome[V]).value
}
