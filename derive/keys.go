// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "slices"

// A keySet is an input: a sorted set of keys, all of a table's or those under one entry of an index.
// Its slices are never written to again, for readers have them. Changes wait in pending until somebody looks.
type keySet[K comparable] struct {
	node
	of      owner[K]
	order   func(a, b K) int
	lasting bool // never dropped
	size    int
	sorted  []K
	pending map[K]bool // true: added
	older   *past[[]K]
}

// An owner is where a keySet belongs.
type owner[K comparable] interface {
	origin() Origin
	label() string
	drop()
	// overlay is what o makes of keys.
	overlay(o *overlay, keys []K) []K
}

// A move is a key that enters or leaves a set.
type move[K comparable] struct {
	key K
	in  bool
}

// get lists the keys as c sees them, and notes the dependency.
func (s *keySet[K]) get(c *Context) []K {
	c.g.mu.RLock()
	keys, ok := s.peek(c)
	c.g.mu.RUnlock()
	if ok {
		return keys
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	return s.take(c)
}

// peek is get where nothing need be merged. Under g.mu, for reading at least.
func (s *keySet[K]) peek(c *Context) ([]K, bool) {
	keys, changed, ok := s.at(c.version)
	if ok {
		c.note(&s.node, changed)
	}
	return keys, ok
}

// take is get under g.mu.
func (s *keySet[K]) take(c *Context) []K {
	s.merge()
	keys, _ := s.peek(c)
	return keys
}

// at lists the keys as v sees them, and since when; false if merge must be called first.
func (s *keySet[K]) at(v Version) ([]K, Version, bool) {
	if s.changed <= v {
		return s.sorted, s.changed, s.pending == nil
	}
	for p := s.older; p != nil; p = p.older {
		if p.changed <= v {
			return p.value, p.changed, true
		}
	}
	return nil, 0, true
}

// change applies moves at version at. Under g.mu.
func (s *keySet[K]) change(g *Graph, at Version, moves []move[K]) {
	if len(moves) == 0 {
		return
	}
	if g.keep(s, at) {
		s.merge()
		s.older = &past[[]K]{s.changed, true, s.sorted, s.older}
	}
	if s.pending == nil {
		s.pending = make(map[K]bool, len(moves))
	}
	for _, m := range moves {
		s.pending[m.key] = m.in
		if m.in {
			s.size++
		} else {
			s.size--
		}
	}
	// Merged now and then even if nobody looks, so that pending stays in proportion.
	if len(s.pending) > len(s.sorted)+64 {
		s.merge()
	}
	s.changed = at
	g.mark(&s.node, at)
	g.settle(s, false)
}

// merge brings pending into a new sorted slice.
func (s *keySet[K]) merge() {
	if s.pending == nil {
		return
	}
	var added []K
	for k, in := range s.pending {
		if in {
			added = append(added, k)
		}
	}
	slices.SortFunc(added, s.order)
	s.sorted = mergeKeys(s.order, s.sorted, func(k K) bool { _, ok := s.pending[k]; return ok }, added)
	s.pending = nil
}

// mergeKeys returns keys without those that are hidden, and with added; both are sorted.
func mergeKeys[K any](order func(a, b K) int, keys []K, hidden func(k K) bool, added []K) []K {
	out := make([]K, 0, len(keys)+len(added))
	for _, k := range keys {
		if hidden(k) {
			continue
		}
		for len(added) > 0 && order(added[0], k) < 0 {
			out, added = append(out, added[0]), added[1:]
		}
		out = append(out, k)
	}
	return append(out, added...)
}

func (s *keySet[K]) changedAt(v Version) Version {
	_, changed, _ := s.at(v)
	return changed
}

func (s *keySet[K]) trim(oldest Version) {
	if s.changed <= oldest {
		s.older = nil
		return
	}
	for p := s.older; p != nil; p = p.older {
		if p.changed <= oldest {
			p.older = nil
		}
	}
}

func (s *keySet[K]) void() bool { return !s.lasting && s.size == 0 && s.older == nil }

func (s *keySet[K]) same(c *Context) bool {
	base := s.get(c)
	return slices.Equal(base, s.of.overlay(c.fork, base))
}

func (s *keySet[K]) drop()                       { s.of.drop() }
func (s *keySet[K]) origin() Origin              { return s.of.origin() }
func (s *keySet[K]) label() string               { return s.of.label() }
func (s *keySet[K]) bring(*Context)              {}
func (s *keySet[K]) report(*Context, *Hold) bool { return false }
func (s *keySet[K]) count() *tally               { return nil }

// members is the owner of the keys of a whole table.
type members[K comparable, V any] struct{ t *Table[K, V] }

func (m members[K, V]) origin() Origin { return Origin{Table: m.t.name} }
func (m members[K, V]) label() string  { return m.t.name }

// A table's own set is made once and never dropped.
func (m members[K, V]) drop() {}

func (m members[K, V]) overlay(o *overlay, keys []K) []K {
	rows := m.t.overlaid(o)
	if len(rows) == 0 {
		return keys
	}
	added, _ := o.added[m.t].([]K)
	return mergeKeys(m.t.order, keys, func(k K) bool { _, ok := rows[k]; return ok }, added)
}
