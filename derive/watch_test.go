// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"fmt"
	"testing"
)

// drained lists the tags that w reports.
func drained(w *Watcher) string {
	s := ""
	w.Drain(func(_ *Context, h *Hold) { s += fmt.Sprint(h.Tag(), " ") })
	return s
}

func ready(w *Watcher) bool {
	select {
	case <-w.Ready():
		return true
	default:
		return false
	}
}

func TestWatcherReportsWhatReallyChanged(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	wantEqual(t, "ready", ready(w), false)
	Watch(w, l.card, "emma", "emma")
	Watch(w, l.card, "ulysses", "ulysses")
	wantEqual(t, "ready", ready(w), true)
	wantEqual(t, "first", drained(w), "emma ulysses ")
	wantEqual(t, "again", drained(w), "")

	l.set("other", "x")
	wantEqual(t, "ready", ready(w), false)
	l.set("ulysses", "joyce")
	l.set("emma", "austen")
	wantEqual(t, "ready", ready(w), true)
	wantEqual(t, "changed", drained(w), "emma ulysses ")

	l.set("emma", "anybody")
	wantEqual(t, "ready", ready(w), true)
	wantEqual(t, "cut off", drained(w), "")
	l.set("emma", "x")
	get(l.Graph, l.card, "emma")
	l.set("emma", "austen")
	wantEqual(t, "changed back", drained(w), "")
	l.set("emma", "bronte")
	get(l.Graph, l.card, "emma")
	wantEqual(t, "computed by another", drained(w), "emma ")
}

func TestWatcherInOneVersion(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	Watch(w, l.card, "a", "a")
	Watch(w, l.card, "b", "b")
	v := w.Drain(func(c *Context, h *Hold) {
		if h.Tag() == "a" {
			l.Update(func(tx *Tx) { l.books.Set(tx, "a", "x"); l.books.Set(tx, "b", "y") })
			get(l.Graph, l.card, "b") // the graph moves past this drain
		}
		wantEqual(t, "card", l.card.Get(c, h.Tag().(string)), h.Tag().(string)+" by nobody")
	})
	wantEqual(t, "version", v, 0)
	wantEqual(t, "ready", ready(w), true)
	wantEqual(t, "next", drained(w), "a b ")
}

func TestHoldsAreReleased(t *testing.T) {
	l := newLibrary()
	l.KeepIdle(0)
	w := l.NewWatcher()
	a := Watch(w, l.card, "a", "a")
	b := Watch(w, l.card, "b", "b")
	Watch(w, l.card, "b", "b again")
	s := ""
	w.Drain(func(_ *Context, h *Hold) {
		s += fmt.Sprint(h.Tag(), " ")
		b.Release() // not reported any more
		if h == a {
			Watch(w, l.card, "c", "c")
		}
	})
	wantEqual(t, "reported", s, "a b again ")
	wantEqual(t, "next", drained(w), "c ")
	wantEqual(t, "held", l.Stats().Queries[1].Held, 3)
	w.Close()
	l.set("a", "x")
	wantEqual(t, "after close", drained(w), "")
	wantEqual(t, "left", fmt.Sprint(len(l.card.memos), len(w.holds), l.Stats().Queries[1].Held), "0 0 0")
}

func TestDrainThatPanicsLosesNothing(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	fails := NewQuery(l.Graph, "fails", same[string], func(c *Context, k string) string {
		if author, _ := l.books.Get(c, k); author == "nobody" {
			panic("nobody")
		}
		return l.card.Get(c, k)
	})
	for _, k := range []string{"a", "b", "c"} {
		Watch(w, fails, k, k)
	}
	mustPanic(t, func() {
		w.Drain(func(_ *Context, h *Hold) {
			if h.Tag() == "b" {
				panic("in fn")
			}
		})
	})
	wantEqual(t, "ready", ready(w), true)
	wantEqual(t, "after a panic in fn", drained(w), "b c ")
	l.Update(func(tx *Tx) { l.books.Set(tx, "b", "nobody"); l.books.Set(tx, "c", "x") })
	mustPanic(t, func() { drained(w) })
	l.set("b", "y")
	wantEqual(t, "after a panic in a query", drained(w), "b c ")
	if err := l.check(); err != nil {
		t.Error(err)
	}
}

func TestResultsWithoutEqualAreReportedWhenRun(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	length := NewQuery(l.Graph, "length", nil, func(c *Context, k string) int { return len(l.card.Get(c, k)) })
	Watch(w, length, "emma", "emma")
	wantEqual(t, "first", drained(w), "emma ")
	l.set("emma", "austen")
	wantEqual(t, "changed", drained(w), "emma ")
	l.set("emma", "anybody")
	wantEqual(t, "verified", drained(w), "")
}

func TestCollect(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	collected := func() (tags []any) {
		w.Collect(func(_ *Context, changed []*Hold) {
			for _, h := range changed {
				tags = append(tags, h.Tag())
			}
		})
		return tags
	}
	Watch(w, l.card, "a", "a")
	b := Watch(w, l.card, "b", "b")
	mustPanic(t, func() { w.Collect(func(*Context, []*Hold) { panic("no") }) })
	wantEqual(t, "pending", b.Pending(), true)
	wantEqual(t, "first", collected(), []any{"a", "b"})
	wantEqual(t, "pending", b.Pending(), false)
	wantEqual(t, "again", collected(), nil)
	l.set("b", "x")
	wantEqual(t, "pending", b.Pending(), true)
	wantEqual(t, "changed", collected(), []any{"b"})
}

func TestHoldsOfARow(t *testing.T) {
	l := newLibrary()
	w := l.NewWatcher()
	defer w.Close()
	Watch(w, l.card, "a", "card a")
	Watch(w, l.initial, "a", "initial a")
	Watch(w, l.card, "b", "card b")
	drained(w)
	var tags []any
	for _, h := range l.books.Holds("a") {
		tags = append(tags, h.Tag())
	}
	wantEqual(t, "holds", tags, []any{"initial a", "card a"})
	wantEqual(t, "holds of what nobody read", len(l.books.Holds("c")), 0)
}
