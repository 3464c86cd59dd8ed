// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// doc is a value that is only equal by content, never by pointer.
type doc struct{ text string }

func sameDoc(a, b *doc) bool { return a == b || a != nil && b != nil && *a == *b }

// library is a small graph: books, an index by author, and results over them.
type library struct {
	*Graph
	books    *Table[string, string] // title: author
	byAuthor *Index[string, string]
	initial  *Query[string, *doc] // of a book's author
	card     *Query[string, string]
	shelf    *Query[string, string] // of an author
}

func newLibrary() *library {
	l := &library{Graph: NewGraph()}
	l.books = NewTable[string](l.Graph, "books", same[string]).WithOrder(strings.Compare)
	l.byAuthor = NewIndex(l.books, "by author", func(_, author string) []string { return []string{author} })
	l.initial = NewQuery(l.Graph, "initial", sameDoc, func(c *Context, title string) *doc {
		author, ok := l.books.Get(c, title)
		if !ok || author == "" {
			return nil
		}
		return &doc{author[:1]}
	})
	l.card = NewQuery(l.Graph, "card", same[string], func(c *Context, title string) string {
		d := l.initial.Get(c, title)
		if d == nil {
			return title + " by nobody"
		}
		return title + " by " + d.text
	})
	l.shelf = NewQuery(l.Graph, "shelf", same[string], func(c *Context, author string) string {
		return strings.Join(l.byAuthor.Get(c, author), ",")
	})
	return l
}

func (l *library) set(title, author string) Version {
	return l.Update(func(tx *Tx) { l.books.Set(tx, title, author) })
}

func (l *library) computed(name string) uint64 {
	for _, q := range l.Stats().Queries {
		if q.Name == name {
			return q.Computed
		}
	}
	panic("no query " + name)
}

func get[K comparable, V any](g *Graph, q *Query[K, V], k K) (v V) {
	g.Read(func(c *Context) { v = q.Get(c, k) })
	return v
}

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s = %s, want %s", what, g, w)
	}
}

func mustPanic(t *testing.T, fn func()) (what string) {
	t.Helper()
	defer func() {
		p := recover()
		if p == nil {
			t.Error("no panic")
		}
		what = fmt.Sprint(p)
	}()
	fn()
	return ""
}

func TestOnlyWhatReadAChangeRunsAgain(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	l.set("ulysses", "joyce")
	for _, title := range []string{"emma", "ulysses"} {
		get(l.Graph, l.card, title)
	}
	l.set("emma", "jane austen")
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by j")
	wantEqual(t, "card", get(l.Graph, l.card, "ulysses"), "ulysses by j")
	wantEqual(t, "runs", l.computed("card"), 3)
	wantEqual(t, "runs", l.computed("initial"), 3)
}

func TestEqualResultsCutOff(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	before := get(l.Graph, l.initial, "emma")
	get(l.Graph, l.card, "emma")
	l.set("emma", "anybody")
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by a")
	if get(l.Graph, l.initial, "emma") != before {
		t.Error("an equal result is another pointer")
	}
	wantEqual(t, "runs of card", l.computed("card"), 1)
	wantEqual(t, "cut off", l.Stats().Queries[0].CutOff, 1)
	wantEqual(t, "verified", l.Stats().Queries[1].Verified, 1)
}

func TestEqualRowsMakeNoVersion(t *testing.T) {
	l := newLibrary()
	v := l.set("emma", "austen")
	wantEqual(t, "version", l.set("emma", "austen"), v)
	wantEqual(t, "version", l.Update(func(*Tx) {}), v)
	wantEqual(t, "version", l.Update(func(tx *Tx) {
		l.books.Delete(tx, "emma")
		l.books.Set(tx, "emma", "austen")
		l.books.Delete(tx, "nothing")
	}), v)
}

func TestAbsentRowsAreDependencies(t *testing.T) {
	l := newLibrary()
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by nobody")
	l.set("emma", "austen")
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by a")
	l.Update(func(tx *Tx) { l.books.Delete(tx, "emma") })
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by nobody")
}

func TestKeysDependOnMembershipAlone(t *testing.T) {
	l := newLibrary()
	titles := NewQuery(l.Graph, "titles", nil, func(c *Context, _ struct{}) string {
		return strings.Join(l.books.Keys(c), " ")
	})
	for _, title := range []string{"c", "a", "b"} {
		l.set(title, "x")
	}
	wantEqual(t, "titles", get(l.Graph, titles, struct{}{}), "a b c")
	l.set("b", "y")
	get(l.Graph, titles, struct{}{})
	wantEqual(t, "runs", l.computed("titles"), 1)
	l.Update(func(tx *Tx) { l.books.Delete(tx, "a"); l.books.Set(tx, "d", "z") })
	wantEqual(t, "titles", get(l.Graph, titles, struct{}{}), "b c d")
}

func TestIndexEntriesAreSeparate(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	l.set("ulysses", "joyce")
	wantEqual(t, "shelf", get(l.Graph, l.shelf, "austen"), "emma")
	wantEqual(t, "shelf", get(l.Graph, l.shelf, "joyce"), "ulysses")
	l.set("persuasion", "austen")
	wantEqual(t, "shelf", get(l.Graph, l.shelf, "austen"), "emma,persuasion")
	wantEqual(t, "shelf", get(l.Graph, l.shelf, "joyce"), "ulysses")
	wantEqual(t, "runs", l.computed("shelf"), 3)
}

func TestBatchThatPanicsChangesNothing(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	var kept *Tx
	mustPanic(t, func() {
		l.Update(func(tx *Tx) {
			kept = tx
			l.books.Set(tx, "emma", "x")
			panic("no")
		})
	})
	wantEqual(t, "version", l.Stats().Version, 1)
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by a")
	mustPanic(t, func() { l.books.Set(kept, "emma", "y") })
	mustPanic(t, func() { newLibrary().Update(func(tx *Tx) { l.books.Set(tx, "emma", "y") }) })
}

func TestMisuseIsRefused(t *testing.T) {
	l := newLibrary()
	var kept *Context
	l.Read(func(c *Context) { kept = c })
	mustPanic(t, func() { l.books.Get(kept, "emma") })
	mustPanic(t, func() { l.card.Get(kept, "emma") })
	mustPanic(t, func() { l.books.WithOrder(strings.Compare) })
	plain := NewTable[string, int](l.Graph, "plain", nil)
	mustPanic(t, func() { l.Read(func(c *Context) { plain.Keys(c) }) })
	mustPanic(t, func() { NewIndex(plain, "by", func(string, int) []int { return nil }) })
	mustPanic(t, func() { newLibrary().Read(func(c *Context) { l.Fork().ReadWith(c, func(*Context) {}) }) })
	nosy := NewQuery(l.Graph, "nosy", nil, func(c *Context, k string) []Origin { return l.card.Provenance(c, k) })
	mustPanic(t, func() { get(l.Graph, nosy, "emma") })
}

// A reader that has been overtaken goes on in its version, and holds up neither writers nor readers.
func TestReaderSeesOneVersion(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	l.Read(func(c *Context) {
		l.set("emma", "bronte")
		wantEqual(t, "new card", get(l.Graph, l.card, "emma"), "emma by b")
		wantEqual(t, "old card", l.card.Get(c, "emma"), "emma by a")
		wantEqual(t, "old shelf", l.shelf.Get(c, "austen"), "emma")
		wantEqual(t, "version", c.Version(), 1)
		l.Update(func(tx *Tx) { l.books.Delete(tx, "emma") })
		author, _ := l.books.Get(c, "emma")
		wantEqual(t, "old row", author, "austen")
		wantEqual(t, "old keys", l.books.Keys(c), []string{"emma"})
		wantEqual(t, "old provenance", l.card.Provenance(c, "emma"), []Origin{{"books", "emma"}})
	})
	if len(l.history) != 0 || l.books.cells["emma"].older != nil {
		t.Errorf("old values are left")
	}
}

// What an overtaken reader computes from rows that have not changed since is as good for all.
func TestOvertakenReaderStillFillsTheGraph(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	l.set("ulysses", "joyce")
	l.Read(func(c *Context) {
		l.set("ulysses", "james joyce")
		l.card.Get(c, "emma")
	})
	get(l.Graph, l.card, "emma")
	wantEqual(t, "runs", l.computed("card"), 1)
	wantEqual(t, "verified", l.Stats().Queries[1].Verified, 0)
}

// A row changes and changes back; a reader from in between must not be served what is equal before and after.
func TestGapInAnEqualResult(t *testing.T) {
	l := newLibrary()
	l.set("emma", "a")
	wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by a")
	l.set("emma", "b")
	l.Read(func(between *Context) {
		l.set("emma", "a")
		wantEqual(t, "card", get(l.Graph, l.card, "emma"), "emma by a")
		wantEqual(t, "card in between", l.card.Get(between, "emma"), "emma by b")
	})
}

func TestMissingResultIsComputedOnce(t *testing.T) {
	g := NewGraph()
	inside, leave := make(chan bool), make(chan bool)
	slow := NewQuery(g, "slow", nil, func(*Context, int) int {
		inside <- true
		<-leave
		return 42
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { wantEqual(t, "slow", get(g, slow, 1), 42) })
	}
	<-inside
	for { // until the three others wait, or are about to ask
		g.mu.RLock()
		readers := g.readers[0].readers
		g.mu.RUnlock()
		if readers == 4 {
			break
		}
		runtime.Gosched()
	}
	leave <- true
	wg.Wait()
	wantEqual(t, "runs", g.Stats().Queries[0].Computed, 1)
}

func TestQueryThatNeedsItself(t *testing.T) {
	g := NewGraph()
	links := NewTable[string](g, "links", same[string])
	var follow *Query[string, string]
	follow = NewQuery(g, "follow", same[string], func(c *Context, k string) string {
		next, ok := links.Get(c, k)
		if !ok {
			return k
		}
		return follow.Get(c, next)
	})
	g.Update(func(tx *Tx) {
		for k, v := range map[string]string{"a": "b", "b": "c", "c": "d"} {
			links.Set(tx, k, v)
		}
	})
	wantEqual(t, "end", get(g, follow, "a"), "d")
	g.Update(func(tx *Tx) { links.Set(tx, "c", "b") })
	what := mustPanic(t, func() { get(g, follow, "a") })
	wantEqual(t, "panic", what, "derive: a query needs itself: follow(b) → follow(c) → follow(b)")
	f := g.Fork()
	f.Update(func(tx *Tx) { links.Set(tx, "d", "d") })
	mustPanic(t, func() { f.Read(func(c *Context) { follow.Get(c, "d") }) })
	f.Update(func(tx *Tx) { links.Delete(tx, "c") })
	f.Read(func(c *Context) { wantEqual(t, "end in the fork", follow.Get(c, "a"), "c") })
	g.Update(func(tx *Tx) { links.Delete(tx, "b") })
	wantEqual(t, "end", get(g, follow, "a"), "b")
}

// Two readers, each computing what the other needs, must not wait for each other for ever.
func TestCycleAcrossReaders(t *testing.T) {
	g := NewGraph()
	var q *Query[int, int]
	var meet [2]sync.Once
	met := [2]chan bool{make(chan bool), make(chan bool)}
	q = NewQuery(g, "q", nil, func(c *Context, k int) int {
		meet[k].Do(func() { close(met[k]) })
		<-met[1-k]
		return q.Get(c, 1-k)
	})
	var wg sync.WaitGroup
	for k := range 2 {
		wg.Go(func() {
			if what := mustPanic(t, func() { get(g, q, k) }); !strings.Contains(what, "q(0) → q(1)") {
				t.Errorf("panic %q does not name the chain", what)
			}
		})
	}
	wg.Wait()
}

func TestPanicDoesNotPoison(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	broken := true
	fragile := NewQuery(l.Graph, "fragile", nil, func(c *Context, k string) string {
		s := l.card.Get(c, k)
		if broken {
			panic("broken")
		}
		return s
	})
	patient := NewQuery(l.Graph, "patient", nil, func(c *Context, k string) (s string) {
		defer func() {
			if recover() != nil {
				s = "recovered"
			}
		}()
		return fragile.Get(c, k)
	})
	wantEqual(t, "panic", mustPanic(t, func() { get(l.Graph, fragile, "emma") }), "broken")
	wantEqual(t, "patient", get(l.Graph, patient, "emma"), "recovered")
	done := make(chan bool)
	exits := NewQuery(l.Graph, "exits", nil, func(*Context, int) int { runtime.Goexit(); return 0 })
	go func() { defer close(done); get(l.Graph, exits, 1) }()
	<-done
	broken = false
	wantEqual(t, "fragile", get(l.Graph, fragile, "emma"), "emma by a")
	wantEqual(t, "patient", get(l.Graph, patient, "emma"), "emma by a")
	if err := l.check(); err != nil {
		t.Error(err)
	}
}

func TestProvenance(t *testing.T) {
	l := newLibrary()
	both := NewQuery(l.Graph, "both", same[string], func(c *Context, author string) string {
		s := fmt.Sprint(len(l.books.Keys(c)))
		for _, title := range l.byAuthor.Get(c, author) {
			s += l.card.Get(c, title)
		}
		l.card.Get(c, "missing")
		return s
	})
	l.set("persuasion", "austen")
	l.set("emma", "austen")
	l.set("ulysses", "joyce")
	want := []Origin{{"books", nil}, {"by author", "austen"}, {"books", "emma"}, {"books", "persuasion"}, {"books", "missing"}}
	l.Read(func(c *Context) { wantEqual(t, "provenance", both.Provenance(c, "austen"), want) })
	f := l.Fork()
	f.Update(func(tx *Tx) { l.books.Set(tx, "emma", "joyce") })
	f.Read(func(c *Context) {
		wantEqual(t, "in the fork", both.Provenance(c, "austen"), slices.Delete(slices.Clone(want), 2, 3))
	})
}

func TestForkSharesAndLeavesTheBaseAlone(t *testing.T) {
	l := newLibrary()
	l.set("emma", "austen")
	l.set("ulysses", "joyce")
	emma, ulysses := get(l.Graph, l.initial, "emma"), get(l.Graph, l.initial, "ulysses")
	f := l.Fork()
	f.Update(func(tx *Tx) {
		l.books.Set(tx, "emma", "bronte")
		l.books.Set(tx, "dubliners", "joyce")
	})
	f.Read(func(c *Context) {
		if l.initial.Get(c, "ulysses") != ulysses {
			t.Error("the fork has its own copy of what it could share")
		}
		wantEqual(t, "card", l.card.Get(c, "emma"), "emma by b")
		wantEqual(t, "shelf", l.shelf.Get(c, "joyce"), "dubliners,ulysses")
		wantEqual(t, "shelf", l.shelf.Get(c, "austen"), "")
		wantEqual(t, "keys", l.books.Keys(c), []string{"dubliners", "emma", "ulysses"})
	})
	if get(l.Graph, l.initial, "emma") != emma {
		t.Error("the base has changed")
	}
	l.set("ulysses", "bloom")
	f.Read(func(c *Context) { wantEqual(t, "card", l.card.Get(c, "ulysses"), "ulysses by b") })
	l.Read(func(base *Context) {
		l.set("ulysses", "stephen")
		f.ReadWith(base, func(c *Context) { wantEqual(t, "card", l.card.Get(c, "ulysses"), "ulysses by b") })
	})
}

func TestUnneededResultsAreForgotten(t *testing.T) {
	l := newLibrary()
	l.KeepIdle(10)
	w := l.NewWatcher()
	held := Watch(w, l.card, "held", nil)
	w.Drain(func(*Context, *Hold) {})
	for i := range 1000 {
		get(l.Graph, l.card, fmt.Sprint(i))
		get(l.Graph, l.shelf, fmt.Sprint(i))
	}
	stats := func() string { return fmt.Sprint(len(l.card.memos), len(l.initial.memos), len(l.shelf.memos)) }
	results := len(l.card.memos) + len(l.initial.memos) + len(l.shelf.memos)
	if results > 2*10+2 || len(l.books.cells) > 11 || len(l.byAuthor.buckets) > 10 {
		t.Errorf("too many results are left: %s; %d rows, %d entries", stats(), len(l.books.cells), len(l.byAuthor.buckets))
	}
	if l.card.memos["held"] == nil {
		t.Error("a held result is gone")
	}
	held.Release()
	held.Release()
	l.KeepIdle(0)
	wantEqual(t, "left", stats(), "0 0 0")
	wantEqual(t, "rows left", len(l.books.cells), 0)
}

func TestRecentlyUsedResultsStay(t *testing.T) {
	l := newLibrary()
	l.KeepIdle(10)
	for i := range 100 {
		get(l.Graph, l.card, "favourite")
		get(l.Graph, l.card, fmt.Sprint(i))
	}
	wantEqual(t, "runs", l.computed("card"), 101)
}

func TestIndexEntriesThatEmptyGo(t *testing.T) {
	l := newLibrary()
	for i := range 1000 {
		l.set("emma", fmt.Sprint(i))
	}
	wantEqual(t, "entries", len(l.byAuthor.buckets), 1)
	wantEqual(t, "order", cmp.Compare(len(l.nodes), 10), -1)
}
