// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
)

// TestHammer has readers, watchers and forks at work while rows change. Each must see a state that was
// committed as one, and nothing else.
func TestHammer(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	h := newHammer(rounds)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for seed := range uint64(3) {
		wg.Go(func() { h.readers(t, seed, done) })
	}
	wg.Go(func() { h.watch(t, done) })
	wg.Go(func() { h.fork(t, done) })
	h.write(rounds)
	close(done)
	wg.Wait()
	h.rig.g.KeepIdle(0)
	if err := h.rig.g.check(); err != nil {
		t.Error(err)
	}
	for _, q := range h.rig.queries {
		if len(q.memos) != 0 {
			t.Errorf("%s: %d results remain", q.name, len(q.memos))
		}
	}
}

type hammer struct {
	programs []program
	rig      *rig
	states   []atomic.Pointer[state] // by version
}

func newHammer(rounds int) *hammer {
	r := rand.New(rand.NewPCG(7, 7))
	h := &hammer{states: make([]atomic.Pointer[state], rounds+2)}
	for range twinLevels {
		var p program
		for range 5 {
			p.ops = append(p.ops, op{byte(r.Uint32()), byte(r.Uint32())})
		}
		h.programs = append(h.programs, p)
	}
	h.rig = newRig(h.programs)
	h.rig.g.KeepIdle(8)
	h.states[0].Store(&state{{}, {}})
	return h
}

func (h *hammer) write(rounds int) {
	r := rand.New(rand.NewPCG(8, 8))
	version := Version(0)
	for range rounds {
		next := h.states[version].Load().clone()
		table, k, v := r.IntN(2), uint8(r.IntN(twinKeys)), r.IntN(64)
		next[table][k] = v
		h.states[version+1].Store(&next) // before anybody can read it
		version = h.rig.g.Update(func(tx *Tx) { h.rig.write(tx, table, k, &v) })
	}
}

func (h *hammer) agree(t *testing.T, r *rand.Rand, c *Context, st state) {
	level, k := r.IntN(twinLevels), uint8(r.IntN(twinKeys))
	got, want := h.rig.result(c, level, k), newTwin(st, h.programs).result(level, k)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("version %d: q%d(%d) = %+v, want %+v", c.Version(), level, k, got, want)
	}
}

func (h *hammer) readers(t *testing.T, seed uint64, done chan struct{}) {
	r := rand.New(rand.NewPCG(seed, 9))
	for !over(done) {
		h.rig.g.Read(func(c *Context) {
			for range 1 + r.IntN(20) {
				h.agree(t, r, c, *h.states[c.Version()].Load())
			}
		})
	}
}

func (h *hammer) fork(t *testing.T, done chan struct{}) {
	r := rand.New(rand.NewPCG(5, 9))
	for !over(done) {
		f := h.rig.g.Fork()
		table, k, v := r.IntN(2), uint8(r.IntN(twinKeys)), r.IntN(64)
		f.Update(func(tx *Tx) { h.rig.write(tx, table, k, &v) })
		for range 3 {
			f.Read(func(c *Context) {
				st := h.states[c.Version()].Load().clone()
				st[table][k] = v
				h.agree(t, r, c, st)
			})
		}
	}
}

// watch holds results, and checks that after each drain what was last reported is what the version has.
func (h *hammer) watch(t *testing.T, done chan struct{}) {
	w := h.rig.g.NewWatcher()
	defer w.Close()
	last := map[string]int{}
	for k := range uint8(twinKeys) {
		Watch(w, h.rig.queries[4], k, k)
		Watch(w, h.rig.queries[3], k, nil).Release()
	}
	for !over(done) {
		v := w.Drain(func(c *Context, hold *Hold) {
			k := hold.Tag().(uint8)
			last[fmt.Sprint(k)] = h.rig.queries[4].Get(c, k)
		})
		for k := range uint8(twinKeys) {
			want := newTwin(*h.states[v].Load(), h.programs).result(4, k).value
			if got := last[fmt.Sprint(k)]; got != want {
				t.Errorf("version %d: last reported for %d: %d, want %d", v, k, got, want)
			}
		}
	}
}

func over(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
