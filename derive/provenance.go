// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "fmt"

// An Origin is an input that a result was made from.
type Origin struct {
	Table string // the name of the table or index
	Key   any    // the row's key or the index entry; nil for the set of keys of the table
}

// A tracer lists what is read.
type tracer struct {
	seen map[Origin]struct{}
	list []Origin
}

func (t *tracer) see(o Origin) {
	if _, again := t.seen[o]; !again {
		t.seen[o] = struct{}{}
		t.list = append(t.list, o)
	}
}

// Provenance lists the inputs that the result for k was computed from, transitively, each once, in the
// order of first reading. Rows that were looked for and not found are inputs, too.
// It is for readers; query functions must not call it, for the answer is not a dependency.
func (q *Query[K, V]) Provenance(c *Context, k K) []Origin {
	c.check()
	if c.task != nil {
		panic(fmt.Sprintf("derive: Provenance of %s asked for by a query function", q.name))
	}
	if c.fork == nil && c.trace == nil {
		q.get(c, k, false)
		if list, ok := q.recorded(c, k); ok {
			return list
		}
	}
	// What the graph holds is not what c sees: run everything again, and look on.
	t := &tracer{seen: map[Origin]struct{}{}}
	q.apart(&Context{g: c.g, version: c.version, fork: c.fork, trace: t}, k)
	return t.list
}

// recorded reads the provenance off the graph; false if that has moved past c's version.
func (q *Query[K, V]) recorded(c *Context, k K) (list []Origin, ok bool) {
	g := q.g
	g.mu.RLock()
	defer g.mu.RUnlock()
	m := q.memos[k]
	if m == nil || !m.covers(c.version) {
		return nil, false
	}
	type stretch struct{ deps []edge } // what remains to be visited of one result
	seen := map[uint32]struct{}{m.id: {}}
	for stack := []stretch{{m.deps}}; len(stack) > 0; {
		top := &stack[len(stack)-1]
		if len(top.deps) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		id := top.deps[0].id
		top.deps = top.deps[1:]
		if _, again := seen[id]; again {
			continue
		}
		seen[id] = struct{}{}
		e := g.nodes[id]
		switch n := e.head(); {
		case n.input:
			list = append(list, e.origin())
		case !n.covers(c.version):
			return nil, false
		default:
			stack = append(stack, stretch{n.deps})
		}
	}
	return list, true
}

// Holds lists the holds, of all watchers, on results that were computed from row k: the reverse of Provenance, as of
// each result's last run. Whatever is about to run again is Pending.
func (t *Table[K, V]) Holds(k K) []*Hold {
	g := t.g
	g.mu.RLock()
	defer g.mu.RUnlock()
	ce := t.cells[k]
	if ce == nil {
		return nil
	}
	var holds []*Hold
	seen := map[uint32]struct{}{ce.id: {}}
	for stack := []uint32{ce.id}; len(stack) > 0; {
		n := g.nodes[stack[len(stack)-1]].head()
		stack = stack[:len(stack)-1]
		for h := n.holds; h != nil; h = h.next {
			holds = append(holds, h)
		}
		for _, e := range n.rdeps {
			if _, again := seen[e.id]; !again {
				seen[e.id] = struct{}{}
				stack = append(stack, e.id)
			}
		}
	}
	return holds
}
