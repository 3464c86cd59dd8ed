// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "sync/atomic"

// A node is what inputs (rows, sets of keys) and results have in common. Nodes refer to each other by id:
// half the size of a pointer, and nothing for the garbage collector to follow.
type node struct {
	// changed is the version at which dependents must think that the value became what it is.
	// from is the version since which it is known to have been so without interruption: it is
	// later than changed when an early cut-off bridged versions at which nobody looked.
	// verified is the last version at which a result that is not clean is known to be valid.
	changed, from, verified Version

	deps  []edge // what the last run read, in that order, each once
	rdeps []edge // who has read this
	holds *Hold

	id         uint32
	prev, next uint32       // neighbours in the idle list
	pins       atomic.Int32 // readers that have read this and may still make an edge of it
	used       atomic.Bool  // read since it became idle
	input      bool
	full       bool // there is a value
	clean      bool // valid at the newest version; then all results among deps are clean, too
	running    bool // somebody is verifying or computing it
	idle       bool // in the idle list
}

// An edge of deps names a dependency and its position in the dependency's rdeps; an edge of rdeps names a
// dependent and its position in the dependent's deps.
type edge struct{ id, at uint32 }

// covers reports whether the result is known to be valid at v.
func (n *node) covers(v Version) bool {
	return n.full && n.from <= v && (n.clean || v <= n.verified)
}

// ahead reports whether the result has moved past v, so that a reader of v must not replace it.
func (n *node) ahead(v Version) bool {
	return n.full && n.from > v && (n.clean || n.verified >= v)
}

func (n *node) head() *node { return n }

// An entry is a node with its key and value.
type entry interface {
	head() *node
	label() string
	drop()                // forgets it in its table or query
	same(c *Context) bool // whether c's fork sees what the base has

	// Of inputs:
	changedAt(v Version) Version // when the value that v sees came to be
	trim(oldest Version)         // forgets values that no reader of oldest or later sees
	void() bool                  // nothing is lost by dropping it
	origin() Origin

	// Of results:
	bring(c *Context)                // makes it valid at c's version, if c's reader can
	report(c *Context, h *Hold) bool // whether h's value differs from the one last reported
	count() *tally
}

// add gives e an id.
func (g *Graph) add(e entry) {
	n := e.head()
	if last := len(g.free) - 1; last >= 0 {
		n.id, g.free = g.free[last], g.free[:last]
		g.nodes[n.id] = e
		return
	}
	n.id = uint32(len(g.nodes))
	g.nodes = append(g.nodes, e)
}

// forget drops e, which nobody refers to.
func (g *Graph) forget(e entry) {
	e.drop()
	n := e.head()
	g.nodes[n.id] = nil
	g.free = append(g.free, n.id)
	n.id = 0
}

// link makes deps the dependencies of n, and releases those it has no more.
func (g *Graph) link(n *node, deps []uint32) {
	keep := 0
	for keep < len(deps) && keep < len(n.deps) && n.deps[keep].id == deps[keep] {
		keep++
	}
	if keep == len(deps) && keep == len(n.deps) {
		return
	}
	dropped := g.unlink(n, keep)
	if cap(n.deps) < len(deps) || cap(n.deps) > 2*len(deps) {
		n.deps = append(make([]edge, 0, len(deps)), n.deps...)
	}
	for i, id := range deps[keep:] {
		e := g.nodes[id]
		d := e.head()
		if d.idle {
			g.unidle(e)
		}
		n.deps = append(n.deps, edge{id, uint32(len(d.rdeps))})
		d.rdeps = append(d.rdeps, edge{n.id, uint32(keep + i)})
	}
	g.releaseAll(dropped)
}

// unlink removes n's dependencies from position keep on, and returns them.
func (g *Graph) unlink(n *node, keep int) []uint32 {
	var dropped []uint32
	for _, e := range n.deps[keep:] {
		d := g.nodes[e.id].head()
		last := len(d.rdeps) - 1
		if int(e.at) != last {
			moved := d.rdeps[last]
			d.rdeps[e.at] = moved
			g.nodes[moved.id].head().deps[moved.at].at = e.at
		}
		d.rdeps = d.rdeps[:last]
		if c := cap(d.rdeps); c > 32 && last < c/4 {
			d.rdeps = append(make([]edge, 0, 2*last), d.rdeps...)
		}
		dropped = append(dropped, e.id)
	}
	n.deps = n.deps[:keep]
	return dropped
}

// mark says that n changes at version at: whatever was clean and read it, directly or not, may change, too.
func (g *Graph) mark(n *node, at Version) {
	stack := g.stack[:0]
	for {
		for _, e := range n.rdeps {
			if d := g.nodes[e.id].head(); d.clean {
				d.clean, d.verified = false, at-1
				for h := d.holds; h != nil; h = h.next {
					h.pend()
				}
				stack = append(stack, e.id)
			}
		}
		if len(stack) == 0 {
			break
		}
		n = g.nodes[stack[len(stack)-1]].head()
		stack = stack[:len(stack)-1]
	}
	g.stack = stack
}

// release is called when e has lost a reference. What nobody needs becomes idle or goes.
func (g *Graph) release(e entry) {
	g.settle(e, false)
	g.evict()
}

// releaseAll releases several. Nothing is evicted before all are settled: one may be what keeps another.
func (g *Graph) releaseAll(ids []uint32) {
	for _, id := range ids {
		g.settle(g.nodes[id], false)
	}
	g.evict()
}

// settle is release without eviction. What is stale is the next to be evicted.
func (g *Graph) settle(e entry, stale bool) {
	n := e.head()
	switch {
	case n.id == 0 || n.pins.Load() != 0 || len(n.rdeps) != 0 || n.holds != nil || n.running || n.idle:
	case n.input:
		if e.void() {
			g.forget(e)
		}
	case !n.full:
		g.forget(e)
	default:
		g.idle.push(g, e, stale)
	}
}

// unpin takes back a pin on each of ids.
func (g *Graph) unpin(ids []uint32) {
	for _, id := range ids {
		g.nodes[id].head().pins.Add(-1)
	}
	g.releaseAll(ids)
}
