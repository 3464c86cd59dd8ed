// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "fmt"

// A Table holds input rows.
type Table[K comparable, V any] struct {
	g       *Graph
	name    string
	equal   func(a, b V) bool
	order   func(a, b K) int
	indexes []indexer[K, V]

	// Guarded by g.mu.
	cells   map[K]*cell[K, V]
	rows    int
	members keySet[K]
}

// A cell is a row, present or not.
type cell[K comparable, V any] struct {
	node
	t       *Table[K, V]
	key     K
	present bool
	value   V
	older   *past[V] // newest first
}

// A past is what a row was from version changed on, until the next.
type past[V any] struct {
	changed Version
	present bool
	value   V
	older   *past[V]
}

// NewTable adds a table to g. equal says whether two values of a row are the same, so that writing the second over
// the first changes nothing; nil means that they never are.
func NewTable[K comparable, V any](g *Graph, name string, equal func(a, b V) bool) *Table[K, V] {
	t := &Table[K, V]{g: g, name: name, equal: equal, cells: map[K]*cell[K, V]{}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tables = append(g.tables, t)
	return t
}

// WithOrder gives t the order in which Keys and Index.Get list rows, and returns t. It must be called
// before indexes are added and rows written; order(a, b) must be 0 only for a == b.
func (t *Table[K, V]) WithOrder(order func(a, b K) int) *Table[K, V] {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	if len(t.cells) > 0 || t.order != nil {
		panic(fmt.Sprintf("derive: table %s: WithOrder called late or twice", t.name))
	}
	t.order = order
	t.members = keySet[K]{node: node{input: true}, of: members[K, V]{t}, order: order, lasting: true}
	t.g.add(&t.members)
	return t
}

// Set writes row k.
func (t *Table[K, V]) Set(tx *Tx, k K, v V) { t.stage(tx, k, change[V]{true, v}) }

// Delete removes row k, if there is one.
func (t *Table[K, V]) Delete(tx *Tx, k K) { t.stage(tx, k, change[V]{}) }

// Get reads row k; false if there is none. Either is a dependency.
func (t *Table[K, V]) Get(c *Context, k K) (V, bool) {
	c.check()
	if c.fork != nil || c.trace != nil {
		return t.getApart(c, k)
	}
	g := t.g
	g.mu.RLock()
	ce := t.cells[k]
	if ce == nil {
		g.mu.RUnlock()
		var none V
		if c.notes() {
			g.mu.Lock()
			defer g.mu.Unlock()
			ce = t.cell(k)
			p := ce.at(c.version) // it may have come to be in between
			c.note(&ce.node, p.changed)
			return p.value, p.present
		}
		return none, false
	}
	p := ce.at(c.version)
	c.note(&ce.node, p.changed)
	g.mu.RUnlock()
	return p.value, p.present
}

// getApart reads for a context that takes no notes in the graph.
func (t *Table[K, V]) getApart(c *Context, k K) (V, bool) {
	if c.trace != nil {
		c.trace.see(Origin{t.name, k})
	}
	if ch, ok := t.overlaid(c.fork)[k]; ok {
		return ch.value, ch.present
	}
	t.g.mu.RLock()
	defer t.g.mu.RUnlock()
	if ce := t.cells[k]; ce != nil {
		p := ce.at(c.version)
		return p.value, p.present
	}
	var none V
	return none, false
}

// Keys lists the keys of all rows, in the table's order, which it must have. It depends on which rows there
// are, not on their values.
func (t *Table[K, V]) Keys(c *Context) []K {
	c.check()
	if t.order == nil {
		panic(fmt.Sprintf("derive: table %s: Keys without an order", t.name))
	}
	if c.trace != nil {
		c.trace.see(t.members.origin())
	}
	keys := t.members.get(c)
	if c.fork != nil {
		keys = t.members.of.overlay(c.fork, keys)
	}
	return keys
}

// cell finds or makes k's cell. Under g.mu.
func (t *Table[K, V]) cell(k K) *cell[K, V] {
	ce := t.cells[k]
	if ce == nil {
		ce = &cell[K, V]{node: node{input: true}, t: t, key: k}
		t.cells[k] = ce
		t.g.add(ce)
	}
	return ce
}

// at is the row as v sees it.
func (ce *cell[K, V]) at(v Version) past[V] {
	if ce.changed <= v {
		return past[V]{changed: ce.changed, present: ce.present, value: ce.value}
	}
	for p := ce.older; p != nil; p = p.older {
		if p.changed <= v {
			return *p
		}
	}
	return past[V]{}
}

func (ce *cell[K, V]) changedAt(v Version) Version { return ce.at(v).changed }

func (ce *cell[K, V]) trim(oldest Version) {
	if ce.changed <= oldest {
		ce.older = nil
		return
	}
	for p := ce.older; p != nil; p = p.older {
		if p.changed <= oldest {
			p.older = nil
		}
	}
}

func (ce *cell[K, V]) set(at Version, to change[V]) {
	g := ce.t.g
	if ce.changed > 0 && g.keep(ce, at) {
		ce.older = &past[V]{ce.changed, ce.present, ce.value, ce.older}
	}
	switch {
	case to.present && !ce.present:
		ce.t.rows++
	case !to.present && ce.present:
		ce.t.rows--
	}
	ce.changed, ce.present, ce.value = at, to.present, to.value
	g.mark(&ce.node, at)
	g.settle(ce, false)
}

func (ce *cell[K, V]) void() bool     { return !ce.present && ce.older == nil }
func (ce *cell[K, V]) drop()          { delete(ce.t.cells, ce.key) }
func (ce *cell[K, V]) origin() Origin { return Origin{ce.t.name, ce.key} }
func (ce *cell[K, V]) label() string  { return fmt.Sprintf("%s(%v)", ce.t.name, ce.key) }

func (ce *cell[K, V]) same(c *Context) bool {
	ch, ok := ce.t.overlaid(c.fork)[ce.key]
	if !ok {
		return true
	}
	ce.t.g.mu.RLock()
	p := ce.at(c.version)
	ce.t.g.mu.RUnlock()
	return ce.t.alike(change[V]{p.present, p.value}, ch)
}

func (ce *cell[K, V]) bring(*Context)              {}
func (ce *cell[K, V]) report(*Context, *Hold) bool { return false }
func (ce *cell[K, V]) count() *tally               { return nil }

func (t *Table[K, V]) alike(a, b change[V]) bool {
	if !a.present || !b.present {
		return a.present == b.present
	}
	return t.equal != nil && t.equal(a.value, b.value)
}

func (t *Table[K, V]) stats() TableStats { return TableStats{t.name, t.rows} }
