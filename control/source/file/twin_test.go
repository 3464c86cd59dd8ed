// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

// slowClaims decides as claims do, from all documents each time.
type slowClaims struct {
	held     map[source.Key]holder
	good     map[source.Key]bool
	reported map[string][]source.Problem
	isGood   func(source.Entry) bool
	shelf    *shelf
}

func (c *slowClaims) settle(files map[string]*state, troubles []source.Problem) source.Batch {
	owners := map[source.Key]holder{}
	reports := map[string][]source.Problem{}
	order := slices.SortedFunc(maps.Keys(files), func(a, b string) int { return files[a].rank.compare(files[b].rank) })
	for _, path := range order {
		for _, d := range flat(files[path].docs) {
			h := holder{doc: d.document, file: path, line: d.line}
			problems := slices.Clone(d.placedProblems(path))
			if !d.key.IsZero() {
				if first, taken := owners[d.key]; taken {
					problems = append(problems, duplicate(d.key, h, first))
					for i := range problems {
						problems[i].Beside = true
					}
				} else {
					h.known = firstOf(d.entry, d.rest, c.held[d.key].known)
					owners[d.key] = h
				}
			}
			reports[path] = append(reports[path], problems...)
		}
		if p := files[path].failed; p != nil {
			reports[path] = append(reports[path], *p)
		}
	}
	for _, t := range troubles {
		reports[t.Place.File] = append(reports[t.Place.File], t)
	}
	c.remember(owners, files)
	c.guess(owners, order, files)

	b := c.changes(owners)
	for _, k := range slices.SortedFunc(maps.Keys(owners), source.Key.Compare) {
		if h := owners[k]; h.doc.entry == nil {
			reports[h.file] = conclude(reports[h.file], k, h, c.good[k])
		}
	}
	c.shelf.retry()
	for _, t := range c.shelf.trouble() {
		reports[t.Place.File] = append(reports[t.Place.File], t)
	}
	for path := range c.reported {
		reports[path] = slices.Grow(reports[path], 0)
	}
	for _, path := range slices.Sorted(maps.Keys(reports)) {
		if !slices.Equal(c.reported[path], reports[path]) {
			b.Report = append(b.Report, source.Report{About: path, Problems: reports[path]})
			c.reported[path] = reports[path]
		}
	}
	return b
}

// changes makes owners what is held.
func (c *slowClaims) changes(owners map[source.Key]holder) (b source.Batch) {
	for _, k := range slices.SortedFunc(maps.Keys(c.held), source.Key.Compare) {
		if _, ok := owners[k]; !ok {
			b.Delete = append(b.Delete, k)
			delete(c.held, k)
			delete(c.good, k)
			c.shelf.drop(k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(owners), source.Key.Compare) {
		h := owners[k]
		if was, ok := c.held[k]; ok && was == h {
			continue
		}
		c.held[k] = h
		if h.known == nil {
			continue
		}
		put := h.put()
		b.Put = append(b.Put, put)
		if put.Refused == nil && c.isGood(put.Entry) {
			c.good[k] = true
			c.shelf.keep(k, h, time.Time{})
		}
	}
	return b
}

// remember adds to owners those objects of before whose document cannot be told any more.
func (c *slowClaims) remember(owners map[source.Key]holder, files map[string]*state) {
	for k, was := range c.held {
		if _, claimed := owners[k]; claimed || was.guess || files[was.file] == nil {
			continue
		}
		for _, d := range flat(files[was.file].docs) {
			if d.hint == nil {
				continue
			}
			hint := *d.hint
			if other, ok := c.held[hint]; d.unreadable && (!ok || other.guess || other.file != was.file) {
				hint = source.Key{}
			}
			if fits(hint, k) {
				h := holder{doc: d.document, file: was.file, line: d.line, known: was.known}
				if *d.hint == k {
					h.known = firstOf(was.known, d.rest)
				}
				owners[k] = h
				break
			}
		}
	}
}

// guess adds to owners those objects of which nothing is known but that there is a document that looks like one.
func (c *slowClaims) guess(owners map[source.Key]holder, order []string, files map[string]*state) {
	for _, path := range order {
		for _, d := range flat(files[path].docs) {
			if d.hint == nil || d.rest == nil {
				continue
			}
			if _, claimed := owners[*d.hint]; !claimed {
				owners[*d.hint] = holder{doc: d.document, file: path, line: d.line, known: d.rest, guess: true}
			}
		}
	}
}

func firstOf(entries ...source.Entry) source.Entry {
	for _, e := range entries {
		if e != nil {
			return e
		}
	}
	return nil
}

// Claims of what changed come to the same as claims of everything.
func FuzzClaimsAgreeWithSlowTwin(f *testing.F) {
	for seed := range uint64(20) {
		data := make([]byte, 400)
		r := rand.New(rand.NewPCG(seed, 1))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &parser{namespace: "default", limits: Limits{}.withDefaults()}
		names := []string{"a.yaml", "b-c.yaml", "b/a.yaml", "b/b.yaml"}
		next := func() (b byte) {
			if len(data) > 0 {
				b, data = data[0], data[1:]
			}
			return b
		}
		scan := &scan{parser: p}
		files := map[string]*state{}
		// The shelves have no folder, but may be full.
		full := false
		store := func(string, *kept) error {
			if full {
				return errors.New("full")
			}
			return nil
		}
		shelves := [2]*shelf{newShelf("shelf", store), newShelf("shelf", store)}
		quick, slow := newTwins(shelves)
		for step := 0; len(data) > 0 && step < 100; step++ {
			var changed []string
			var troubles []source.Problem
			restarts := next()
			if restarts%8 == 1 {
				full = !full
			}
			if restarts%16 == 0 { // the process starts again
				for _, s := range shelves {
					clear(s.owed)
				}
				quick, slow = newTwins(shelves)
				_, files = quick.recall(p)
				changed = slices.Collect(maps.Keys(files))
				slow.held, slow.good = maps.Clone(quick.held), maps.Clone(quick.good)
				for _, st := range files {
					st.rank.root = 0
				}
			}
			for range next() % 3 {
				path := names[int(next())%len(names)]
				changed = append(changed, path)
				switch next() % 8 {
				case 0:
					delete(files, path)
					continue
				case 1:
					if was := files[path]; was != nil {
						failed := &source.Problem{Place: source.Place{File: path}, Severity: source.Error, Message: "cannot be read"}
						files[path] = (&state{rank: was.rank, docs: was.docs, failed: failed}).ready()
					}
					continue
				case 2:
					troubles = append(troubles, source.Problem{Place: source.Place{File: path}, Severity: source.Error, Message: "is gone"})
				}
				var text string
				for range next() % 4 {
					text += "---\n" + draw(next)
				}
				files[path] = (&state{rank: rank{0, path}, docs: scan.documents([]byte(text), files[path])}).ready()
			}
			want := slow.settle(files, troubles)
			got := quick.settle(changed, files, troubles)
			if !sameBatch(got, want) {
				t.Fatalf("step %d\ngot  %s\nwant %s", step, show(got), show(want))
			}
			if !maps.Equal(quick.held, slow.held) || !maps.Equal(quick.good, slow.good) || !sameShelf(shelves) {
				t.Fatalf("step %d: what is held, good or kept differs:\n%v\n%v", step, quick, slow)
			}
		}
	})
}

// newTwins make nothing of objects whose host is called bad.
func newTwins(shelves [2]*shelf) (claims, slowClaims) {
	isGood := func(e source.Entry) bool {
		o, ok := e.(*source.Object[*source.VirtualService])
		return !ok || o.Spec.Http[0].Route[0].Destination.Host != "bad"
	}
	return newClaims(isGood, shelves[0]), slowClaims{
		held: map[source.Key]holder{}, good: map[source.Key]bool{}, reported: map[string][]source.Problem{},
		isGood: isGood, shelf: shelves[1],
	}
}

// draw is one of the documents that make claims hard: good ones, such as say nothing of their object, and such as are refused.
func draw(next func() byte) string {
	name := string('x' + rune(next()%3))
	good := vs(name, "host")
	switch next() % 11 {
	case 8:
		return vs(name, "bad")
	case 9:
		// Its kind and name are read, but as its namespace is no name, nothing else.
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + name + ", namespace: [x]}\n"
	case 0:
		return "# moved\n" + good
	case 1:
		return vs(name, "other")
	case 2:
		return good + "  nonsense: 1\n" // refused
	case 3:
		return "\t" + good // no YAML, and only its lines say what it is
	case 4:
		return "x: [\n" // no YAML
	case 5:
		return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {}\n" // no name
	case 6:
		return "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: " + name + "}, spec: {hosts: [a], http: [{route: [{destination: {host: b}}]}]}}\n" +
			"- {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: " + name + "}, spec: {x: y}}\n"
	case 7:
		return "kind: VirtualService\nmetadata:\n  name: " + name + "\nspec: [\n"
	}
	return good
}

func sameBatch(a, b source.Batch) bool {
	return slices.Equal(a.Delete, b.Delete) &&
		slices.EqualFunc(a.Put, b.Put, func(x, y source.Put) bool {
			return x.Entry == y.Entry && slices.Equal(x.Refused, y.Refused) && reflect.DeepEqual(x.Places, y.Places)
		}) &&
		slices.EqualFunc(a.Report, b.Report, func(x, y source.Report) bool {
			return x.About == y.About && slices.Equal(x.Problems, y.Problems)
		})
}

func sameShelf(shelves [2]*shelf) bool {
	same := func(x, y kept) bool {
		x.Since, y.Since = time.Time{}, time.Time{}
		return x == y
	}
	return maps.EqualFunc(shelves[0].known, shelves[1].known, same) && maps.EqualFunc(shelves[0].owed, shelves[1].owed, func(x, y debt) bool {
		if x.next == nil || y.next == nil {
			return x.next == y.next
		}
		return same(*x.next, *y.next)
	})
}

func show(b source.Batch) string {
	out := fmt.Sprint("delete ", b.Delete, " put")
	for _, p := range b.Put {
		out += fmt.Sprintf(" %s at %s:%d", p.Entry.ObjectKey(), p.Places.File, p.Places.Line)
	}
	for _, r := range b.Report {
		out += "\n  " + r.About
		for _, p := range r.Problems {
			out += "\n    " + p.String()
		}
	}
	return out
}
