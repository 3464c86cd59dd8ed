// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// The graph under test: two tables, two indexes, and levels of queries whose programs, and therefore whose
// reads, depend on data. The twin runs the same programs over plain maps, each time from the beginning.

const (
	twinKeys   = 8
	twinLevels = 5
)

// A world is what a program can read.
type world interface {
	row(table int, k uint8) (int, bool)
	keys(table int) []uint8
	bucket(index, entry int) []uint8
	query(level int, k uint8) int
}

// An op is one step of a program.
type op struct{ code, arg byte }

// A program computes a value from a key. hazard lets it panic and need itself.
type program struct {
	ops    []op
	hazard bool
}

func (p program) run(w world, level int, k uint8) int {
	acc := int(k)
	key := func(x byte) uint8 { return uint8((acc + int(x)) % twinKeys) }
	for i := 0; i < len(p.ops); i++ {
		o := p.ops[i]
		switch o.code % 9 {
		case 0, 1:
			v, ok := w.row(int(o.code%2), key(o.arg))
			if !ok {
				v = 7
			}
			acc = acc*3 + v
		case 2:
			for _, k := range w.keys(int(o.arg % 2)) {
				acc = acc*5 + int(k)
			}
		case 3:
			for _, k := range w.bucket(int(o.arg%2), acc%4) {
				acc = acc*7 + int(k)
			}
		case 4, 5:
			if level > 0 {
				acc = acc*11 + w.query(int(o.arg)%level, key(o.arg/8))
			}
		case 6:
			if acc%2 == 0 {
				i++
			}
		case 7:
			acc %= 2 + int(o.arg%3)
		case 8:
			switch {
			case !p.hazard:
				for _, k := range w.bucket(int(o.arg%2), acc%4) {
					if level > 0 {
						acc = acc*13 + w.query(level-1, k)
					}
				}
			case o.arg%2 == 0 && acc%5 == 0:
				panic(fmt.Sprintf("hazard at level %d", level))
			case acc%3 == 0:
				acc += w.query(level, key(o.arg)) // may be a cycle
			}
		}
		acc &= 0xffff
	}
	return acc
}

func entriesOf(index int, v int) []int {
	if index == 0 {
		return []int{v % 4}
	}
	return []int{v / 4 % 4, v / 16 % 4} // possibly the same twice
}

// state is the rows of both tables.
type state [2]map[uint8]int

func (s state) clone() state { return state{maps.Clone(s[0]), maps.Clone(s[1])} }

// twin computes from scratch.
type twin struct {
	state
	programs []program
	memo     map[string]twinResult
	running  map[string]bool
	trace    *[]Origin
}

type twinResult struct {
	value   int
	origins []Origin
}

func newTwin(s state, programs []program) *twin {
	return &twin{state: s, programs: programs, memo: map[string]twinResult{}, running: map[string]bool{}, trace: new([]Origin)}
}

func (t *twin) see(o Origin) { *t.trace = append(*t.trace, o) }

func (t *twin) row(table int, k uint8) (int, bool) {
	t.see(Origin{tableNames[table], k})
	v, ok := t.state[table][k]
	return v, ok
}

func (t *twin) keys(table int) []uint8 {
	t.see(Origin{tableNames[table], nil})
	return slices.Sorted(maps.Keys(t.state[table]))
}

func (t *twin) bucket(index, entry int) []uint8 {
	t.see(Origin{indexNames[index], entry})
	var out []uint8
	for _, k := range slices.Sorted(maps.Keys(t.state[index])) {
		if slices.Contains(entriesOf(index, t.state[index][k]), entry) {
			out = append(out, k)
		}
	}
	return out
}

func (t *twin) query(level int, k uint8) int {
	name := fmt.Sprint(level, k)
	r, ok := t.memo[name]
	if !ok {
		if t.running[name] {
			panic("cycle")
		}
		t.running[name] = true
		outer := t.trace
		t.trace = &r.origins
		r.value = t.programs[level].run(t, level, k)
		t.trace = outer
		delete(t.running, name)
		t.memo[name] = r
	}
	*t.trace = append(*t.trace, r.origins...)
	return r.value
}

// result is the value, the provenance, or the fault of a query.
type result struct {
	value   int
	origins []Origin
	fault   string
}

func (t *twin) result(level int, k uint8) (r result) {
	defer func() {
		if p := recover(); p != nil {
			r = result{fault: faultOf(p)}
		}
	}()
	var list []Origin
	t.trace = &list
	r.value = t.query(level, k)
	seen := map[Origin]bool{}
	for _, o := range list {
		if !seen[o] {
			seen[o] = true
			r.origins = append(r.origins, o)
		}
	}
	return r
}

func faultOf(p any) string {
	s := fmt.Sprint(p)
	if len(s) > 6 && s[:6] == "derive" {
		return "cycle"
	}
	return s
}

var (
	tableNames = [2]string{"a", "b"}
	indexNames = [2]string{"a by rest", "b by quotients"}
)

// rig is the engine running the same programs.
type rig struct {
	g       *Graph
	tables  [2]*Table[uint8, int]
	indexes [2]*Index[int, uint8]
	queries [twinLevels]*Query[uint8, int]
}

func same[T comparable](a, b T) bool { return a == b }

func newRig(programs []program) *rig {
	r := &rig{g: NewGraph()}
	for i := range r.tables {
		equal := same[int]
		if i == 1 {
			equal = nil
		}
		r.tables[i] = NewTable[uint8](r.g, tableNames[i], equal).WithOrder(cmp.Compare[uint8])
		r.indexes[i] = NewIndex(r.tables[i], indexNames[i], func(_ uint8, v int) []int { return entriesOf(i, v) })
	}
	for level := range r.queries {
		equal := same[int]
		if level == 1 {
			equal = nil
		}
		r.queries[level] = NewQuery(r.g, fmt.Sprint("q", level), equal, func(c *Context, k uint8) int {
			return programs[level].run(rigWorld{r, c}, level, k)
		})
	}
	return r
}

type rigWorld struct {
	*rig
	c *Context
}

func (w rigWorld) row(table int, k uint8) (int, bool) { return w.tables[table].Get(w.c, k) }
func (w rigWorld) keys(table int) []uint8             { return w.tables[table].Keys(w.c) }
func (w rigWorld) bucket(index, entry int) []uint8    { return w.indexes[index].Get(w.c, entry) }
func (w rigWorld) query(level int, k uint8) int       { return w.queries[level].Get(w.c, k) }
func (r *rig) write(tx *Tx, table int, k uint8, v *int) {
	if v == nil {
		r.tables[table].Delete(tx, k)
	} else {
		r.tables[table].Set(tx, k, *v)
	}
}

func (r *rig) result(c *Context, level int, k uint8) (out result) {
	defer func() {
		if p := recover(); p != nil {
			out = result{fault: faultOf(p)}
		}
	}()
	out.value = r.queries[level].Get(c, k)
	out.origins = r.queries[level].Provenance(c, k)
	return out
}

// check looks for broken invariants of a graph that nobody reads.
func (g *Graph) check() error {
	idle := 0
	for id, e := range g.nodes {
		if e == nil {
			continue
		}
		n := e.head()
		if int(n.id) != id || n.pins.Load() != 0 || n.running {
			return fmt.Errorf("%s: id %d at %d, pins %d, running %v", e.label(), n.id, id, n.pins.Load(), n.running)
		}
		if n.idle {
			idle++
		}
		for i, d := range n.deps {
			to := g.nodes[d.id].head()
			if to.rdeps[d.at] != (edge{n.id, uint32(i)}) {
				return fmt.Errorf("%s: edge %d has no reverse", e.label(), i)
			}
			if n.clean && !to.input && !to.clean {
				return fmt.Errorf("%s is clean, %s is not", e.label(), g.nodes[d.id].label())
			}
		}
		for i, d := range n.rdeps {
			if g.nodes[d.id].head().deps[d.at] != (edge{n.id, uint32(i)}) {
				return fmt.Errorf("%s: reverse edge %d has no edge", e.label(), i)
			}
		}
		needed := len(n.rdeps) > 0 || n.holds != nil
		if !n.input && n.idle == needed {
			return fmt.Errorf("%s: idle %v, needed %v", e.label(), n.idle, needed)
		}
		if n.input && !needed && e.void() {
			return fmt.Errorf("%s: void and unneeded, but there", e.label())
		}
	}
	if idle != g.idle.length || idle > g.idle.limit {
		return fmt.Errorf("%d idle, counted %d, limit %d", idle, g.idle.length, g.idle.limit)
	}
	return nil
}
