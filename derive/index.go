// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"slices"
)

// An Index finds the rows of a table by what they contain.
type Index[I, K comparable] struct {
	g     *Graph
	name  string
	order func(a, b K) int
	hides func(o *overlay, k K) bool

	buckets map[I]*bucket[I, K] // guarded by g.mu
}

// A bucket is the keys of the rows found under one entry.
type bucket[I, K comparable] struct {
	keySet[K]
	ix    *Index[I, K]
	entry I
}

// An indexer is a table's view of an index on it.
type indexer[K comparable, V any] interface {
	plan() plan[K, V]
	overlay(o *overlay, added []K, rows map[K]change[V])
}

// A plan collects what one batch does to an index.
type plan[K comparable, V any] interface {
	move(k K, was, will change[V])
	apply(at Version)
}

// indexOf is an index that knows the values of its table.
type indexOf[I, K comparable, V any] struct {
	*Index[I, K]
	of func(k K, v V) []I
}

type indexPlan[I, K comparable, V any] struct {
	indexOf[I, K, V]
	moves map[I][]move[K]
}

// NewIndex adds an index to t, which must have an order and no rows yet. of lists under which entries a row
// is found.
func NewIndex[K comparable, V any, I comparable](t *Table[K, V], name string, of func(k K, v V) []I) *Index[I, K] {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	if t.order == nil || t.rows > 0 {
		panic(fmt.Sprintf("derive: index %s: table %s has no order, or has rows already", name, t.name))
	}
	hides := func(o *overlay, k K) bool { _, ok := t.overlaid(o)[k]; return ok }
	ix := &Index[I, K]{g: t.g, name: name, order: t.order, hides: hides, buckets: map[I]*bucket[I, K]{}}
	t.indexes = append(t.indexes, indexOf[I, K, V]{ix, of})
	t.g.tables = append(t.g.tables, ix)
	return ix
}

// Get lists the keys of the rows found under i, in the table's order. It depends on that entry
// alone, not on the values of the rows.
func (ix *Index[I, K]) Get(c *Context, i I) []K {
	c.check()
	if c.trace != nil {
		c.trace.see(Origin{ix.name, i})
	}
	keys := ix.get(c, i)
	if c.fork != nil {
		keys = ix.overlaid(c.fork, i, keys)
	}
	return keys
}

func (ix *Index[I, K]) get(c *Context, i I) []K {
	ix.g.mu.RLock()
	b := ix.buckets[i]
	if b == nil && !c.notes() {
		ix.g.mu.RUnlock()
		return nil
	}
	if b != nil {
		if keys, ok := b.peek(c); ok {
			ix.g.mu.RUnlock()
			return keys
		}
	}
	ix.g.mu.RUnlock()
	ix.g.mu.Lock()
	defer ix.g.mu.Unlock()
	return ix.bucket(i).take(c)
}

// bucket finds or makes i's bucket. Under g.mu.
func (ix *Index[I, K]) bucket(i I) *bucket[I, K] {
	b := ix.buckets[i]
	if b == nil {
		b = &bucket[I, K]{ix: ix, entry: i}
		b.keySet = keySet[K]{node: node{input: true}, of: b, order: ix.order}
		ix.buckets[i] = b
		ix.g.add(b)
	}
	return b
}

func (ix *Index[I, K]) overlaid(o *overlay, i I, keys []K) []K {
	byEntry, touched := o.added[ix].(map[I][]K)
	if !touched {
		return keys
	}
	return mergeKeys(ix.order, keys, func(k K) bool { return ix.hides(o, k) }, byEntry[i])
}

func (ix *Index[I, K]) stats() TableStats { return TableStats{ix.name, len(ix.buckets)} }

func (b *bucket[I, K]) drop()          { delete(b.ix.buckets, b.entry) }
func (b *bucket[I, K]) origin() Origin { return Origin{b.ix.name, b.entry} }
func (b *bucket[I, K]) label() string  { return fmt.Sprintf("%s(%v)", b.ix.name, b.entry) }
func (b *bucket[I, K]) overlay(o *overlay, keys []K) []K {
	return b.ix.overlaid(o, b.entry, keys)
}

func (x indexOf[I, K, V]) plan() plan[K, V] {
	return &indexPlan[I, K, V]{x, map[I][]move[K]{}}
}

func (x indexOf[I, K, V]) overlay(o *overlay, added []K, rows map[K]change[V]) {
	byEntry := map[I][]K{}
	for _, k := range added {
		for i := range x.entries(k, rows[k]) {
			byEntry[i] = append(byEntry[i], k)
		}
	}
	o.added[x.Index] = byEntry
}

// entries is the set of entries under which a row is found.
func (x indexOf[I, K, V]) entries(k K, row change[V]) map[I]struct{} {
	if !row.present {
		return nil
	}
	list := x.of(k, row.value)
	set := make(map[I]struct{}, len(list))
	for _, i := range list {
		set[i] = struct{}{}
	}
	return set
}

func (p *indexPlan[I, K, V]) move(k K, was, will change[V]) {
	if was.present && will.present && slices.Equal(p.of(k, was.value), p.of(k, will.value)) {
		return
	}
	before, after := p.entries(k, was), p.entries(k, will)
	for i := range before {
		if _, stays := after[i]; !stays {
			p.moves[i] = append(p.moves[i], move[K]{k, false})
		}
	}
	for i := range after {
		if _, was := before[i]; !was {
			p.moves[i] = append(p.moves[i], move[K]{k, true})
		}
	}
}

func (p *indexPlan[I, K, V]) apply(at Version) {
	for i, moves := range p.moves {
		b := p.bucket(i)
		b.change(p.g, at, moves)
	}
}
