// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// FuzzAgainstTwin builds a random graph, and edits, reads, holds, drains and forks it at random; everything must be
// as if computed from scratch.
func FuzzAgainstTwin(f *testing.F) {
	for seed := range uint64(20) {
		script := make([]byte, 600)
		r := rand.New(rand.NewPCG(seed, 1))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4096 {
			t.Skip("long enough")
		}
		newScript(t, script).run()
	})
}

// TestAgainstTwin is a longer walk than the seeds of the fuzzer.
func TestAgainstTwin(t *testing.T) {
	n := uint64(1500)
	if testing.Short() {
		n = 100
	}
	for seed := range n {
		r := rand.New(rand.NewPCG(seed, 2))
		script := make([]byte, 100+r.IntN(1500))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		newScript(t, script).run()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// script interprets bytes as what happens to a graph.
type script struct {
	t        *testing.T
	bytes    []byte
	programs []program
	rig      *rig
	now      state
	watcher  *Watcher
	holds    []*twinHold
	forks    []*twinFork
	readers  []twinReader
	hazard   bool
}

type twinHold struct {
	h        *Hold
	level    int
	k        uint8
	reported bool
	last     int
}

type twinFork struct {
	f    *Fork
	over [2]map[uint8]*int
}

type twinReader struct {
	c     *Context
	state state
}

func newScript(t *testing.T, bytes []byte) *script {
	s := &script{t: t, bytes: bytes, now: state{{}, {}}}
	s.hazard = s.next()%4 == 0
	for range twinLevels {
		p := program{hazard: s.hazard}
		for range 1 + s.next()%6 {
			p.ops = append(p.ops, op{s.next(), s.next()})
		}
		s.programs = append(s.programs, p)
	}
	s.rig = newRig(s.programs)
	s.rig.g.KeepIdle(int(s.next() % 32))
	s.watcher = s.rig.g.NewWatcher()
	return s
}

func (s *script) next() byte {
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return b
}

func (s *script) run() {
	for len(s.bytes) > 0 && !s.t.Failed() {
		switch s.next() % 16 {
		case 0, 1, 2, 3:
			s.edit()
		case 4, 5, 6:
			s.read()
		case 7:
			s.hold()
		case 8:
			s.unhold()
		case 9, 10:
			s.drain(s.next()%4 == 0)
		case 11:
			s.rig.g.KeepIdle(int(s.next() % 32))
		case 12:
			s.fork()
		case 13:
			s.readFork()
		case 14:
			s.openReader()
		case 15:
			s.readOld()
		}
		if len(s.readers) == 0 {
			if err := s.rig.g.check(); err != nil {
				s.t.Error(err)
			}
		}
	}
	s.end()
}

// row reads a change from the script.
func (s *script) row() (table int, k uint8, v *int) {
	b := s.next()
	table, k = int(b%2), b/2%twinKeys
	if x := int(s.next()); x%5 != 0 {
		x %= 64
		v = &x
	}
	return table, k, v
}

func (s *script) edit() {
	next := s.now.clone()
	s.rig.g.Update(func(tx *Tx) {
		for range 1 + s.next()%3 {
			table, k, v := s.row()
			s.rig.write(tx, table, k, v)
			if v == nil {
				delete(next[table], k)
			} else {
				next[table][k] = *v
			}
		}
	})
	s.now = next
}

func (s *script) node() (level int, k uint8) {
	b := s.next()
	return int(b) % twinLevels, b / 8 % twinKeys
}

func (s *script) agree(what string, c *Context, st state) {
	level, k := s.node()
	got, want := s.rig.result(c, level, k), newTwin(st, s.programs).result(level, k)
	if !reflect.DeepEqual(got, want) {
		s.t.Errorf("%s: q%d(%d) = %+v, want %+v", what, level, k, got, want)
	}
}

func (s *script) read() {
	s.rig.g.Read(func(c *Context) { s.agree("read", c, s.now) })
}

func (s *script) hold() {
	if s.hazard || len(s.holds) > 20 {
		return
	}
	level, k := s.node()
	if level == 1 {
		level = 2 // results that never equal are reported when the engine likes
	}
	h := &twinHold{level: level, k: k}
	h.h = Watch(s.watcher, s.rig.queries[level], k, h)
	s.holds = append(s.holds, h)
}

func (s *script) unhold() {
	if len(s.holds) > 0 {
		i := int(s.next()) % len(s.holds)
		s.holds[i].h.Release()
		s.holds = append(s.holds[:i:i], s.holds[i+1:]...)
	}
}

// drain compares the holds reported with those whose value differs. If disturb, rows change meanwhile.
func (s *script) drain(disturb bool) {
	tw := newTwin(s.now, s.programs)
	var want, got []string
	for _, h := range s.holds {
		v := tw.result(h.level, h.k).value
		if !h.reported || h.last != v {
			want = append(want, fmt.Sprintf("q%d(%d)=%d", h.level, h.k, v))
		}
		h.reported, h.last = true, v
	}
	s.watcher.Drain(func(c *Context, h *Hold) {
		th := h.Tag().(*twinHold)
		got = append(got, fmt.Sprintf("q%d(%d)=%d", th.level, th.k, s.rig.queries[th.level].Get(c, th.k)))
		if disturb {
			s.edit()
			if s.next()%2 == 0 {
				s.read()
			}
		}
	})
	if !reflect.DeepEqual(got, want) {
		s.t.Errorf("drain reported %v, want %v", got, want)
	}
}

func (s *script) fork() {
	b := s.next()
	if len(s.forks) < 3 {
		s.forks = append(s.forks, &twinFork{s.rig.g.Fork(), [2]map[uint8]*int{{}, {}}})
	}
	f := s.forks[int(b)%len(s.forks)]
	f.f.Update(func(tx *Tx) {
		for range 1 + s.next()%2 {
			table, k, v := s.row()
			s.rig.write(tx, table, k, v)
			f.over[table][k] = v
		}
	})
}

func (f *twinFork) state(base state) state {
	st := base.clone()
	for table, rows := range f.over {
		for k, v := range rows {
			if v == nil {
				delete(st[table], k)
			} else {
				st[table][k] = *v
			}
		}
	}
	return st
}

func (s *script) readFork() {
	if len(s.forks) == 0 {
		return
	}
	f := s.forks[int(s.next())%len(s.forks)]
	if len(s.readers) > 0 && s.next()%2 == 0 {
		r := s.readers[0]
		f.f.ReadWith(r.c, func(c *Context) { s.agree("old fork", c, f.state(r.state)) })
		return
	}
	f.f.Read(func(c *Context) {
		s.agree("fork", c, f.state(s.now))
		if s.next()%2 == 0 {
			st := f.state(s.now)
			s.edit()
			s.agree("overtaken fork", c, st)
		}
	})
}

func (s *script) openReader() {
	if len(s.readers) < 4 {
		s.readers = append(s.readers, twinReader{s.rig.g.begin(), s.now})
	}
}

// readOld reads through a reader that has been overtaken, and sometimes ends it.
func (s *script) readOld() {
	if len(s.readers) == 0 {
		return
	}
	b := s.next()
	i := int(b/2) % len(s.readers)
	r := s.readers[i]
	s.agree("old reader", r.c, r.state)
	if b%2 == 0 {
		r.c.end()
		s.readers = append(s.readers[:i:i], s.readers[i+1:]...)
	}
}

// end lets go of everything; then nothing must remain but the rows.
func (s *script) end() {
	for _, r := range s.readers {
		r.c.end()
	}
	s.watcher.Close()
	g := s.rig.g
	g.KeepIdle(0)
	if err := g.check(); err != nil {
		s.t.Error(err)
	}
	for _, q := range s.rig.queries {
		if len(q.memos) != 0 || q.tally.results != 0 || q.tally.held != 0 || q.tally.idle != 0 {
			s.t.Errorf("%s: %d results remain", q.name, len(q.memos))
		}
	}
	for i, t := range s.rig.tables {
		if len(t.cells) != len(s.now[i]) || t.rows != len(s.now[i]) {
			s.t.Errorf("table %s: %d cells, %d rows, want %d", t.name, len(t.cells), t.rows, len(s.now[i]))
		}
	}
	if len(g.history) != 0 || len(g.readers) != 0 {
		s.t.Errorf("%d old values and %d readers remain", len(g.history), len(g.readers))
	}
}
