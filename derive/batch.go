// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"maps"
	"slices"
)

// A change is what a batch makes of a row.
type change[V any] struct {
	present bool
	value   V
}

// staged is what one Tx writes to one table. A row written twice counts as written last.
type staged[K comparable, V any] struct {
	t     *Table[K, V]
	rows  map[K]change[V]
	order []K // of first writing
	real  []K // rows that really change
	plans []plan[K, V]
}

func (t *Table[K, V]) stage(tx *Tx, k K, ch change[V]) {
	if tx.done || tx.g != t.g {
		panic(fmt.Sprintf("derive: table %s: written through a Tx that is over, or of another graph", t.name))
	}
	b, _ := tx.byTable[t].(*staged[K, V])
	if b == nil {
		b = &staged[K, V]{t: t, rows: map[K]change[V]{}}
		if tx.byTable == nil {
			tx.byTable = map[any]batch{}
		}
		tx.byTable[t] = b
		tx.batches = append(tx.batches, b)
	}
	if _, again := b.rows[k]; !again {
		b.order = append(b.order, k)
	}
	b.rows[k] = ch
}

// now is row k as the writer finds it. Only writers change rows, so it stays so until they do.
func (t *Table[K, V]) now(k K) change[V] {
	t.g.mu.RLock()
	defer t.g.mu.RUnlock()
	if ce := t.cells[k]; ce != nil {
		return change[V]{ce.present, ce.value}
	}
	return change[V]{}
}

func (b *staged[K, V]) prepare() bool {
	for _, ix := range b.t.indexes {
		b.plans = append(b.plans, ix.plan())
	}
	for _, k := range b.order {
		was, will := b.t.now(k), b.rows[k]
		if b.t.alike(was, will) {
			continue
		}
		b.real = append(b.real, k)
		for _, p := range b.plans {
			p.move(k, was, will)
		}
	}
	return len(b.real) > 0
}

func (b *staged[K, V]) apply(at Version) {
	t := b.t
	var moves []move[K]
	for _, k := range b.real {
		ce, will := t.cell(k), b.rows[k]
		if t.order != nil && ce.present != will.present {
			moves = append(moves, move[K]{k, will.present})
		}
		ce.set(at, will)
	}
	t.members.change(t.g, at, moves)
	for _, p := range b.plans {
		p.apply(at)
	}
}

// overlay adds what was written to o, which nobody reads yet.
func (b *staged[K, V]) overlay(o *overlay) {
	t := b.t
	rows := maps.Clone(t.overlaid(o))
	if rows == nil {
		rows = map[K]change[V]{}
	}
	maps.Copy(rows, b.rows)
	o.rows[t] = rows
	var added []K
	for k, ch := range rows {
		if ch.present {
			added = append(added, k)
		}
	}
	if t.order != nil {
		slices.SortFunc(added, t.order)
		o.added[t] = added
	}
	for _, ix := range t.indexes {
		ix.overlay(o, added, rows)
	}
}
