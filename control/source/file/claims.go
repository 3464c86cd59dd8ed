// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

// claims decides which document stands for which object, and remembers what was reported. A change costs what the files
// cost that changed, and those that claim an object with them; how many others there are does not matter.
type claims struct {
	files    map[string]*state              // as they were settled last
	claimed  map[source.Key][]claim         // by documents that name it; the first counts
	guessed  map[source.Key][]claim         // by documents that are no YAML but look like it
	held     map[source.Key]holder          // what was reported of it last
	holds    map[string]map[source.Key]bool // the keys of held, by file
	good     map[source.Key]bool            // some version of it was good: that is in force whatever is held
	troubles map[string][]source.Problem    // that are not those of a document, by file or folder
	reported map[string][]source.Problem
	// later are files to look into with the next change: what a document of theirs may be about has changed.
	later  map[string]bool
	isGood func(source.Entry) bool
	shelf  *shelf
}

// holder is the document that stands for an object.
type holder struct {
	doc  *document
	file string
	line int
	// known is what is known of the object: what doc says, or what was read before if that says nothing; may be nil.
	known source.Entry
	// guess: nothing but the looks of doc says that it is about the object.
	guess bool
}

// claim is one of the documents that may stand for an object.
type claim struct {
	doc  *document
	line int
	rank rank // of its file
	at   int  // which of its file's documents it is
}

func (a claim) compare(b claim) int {
	return cmp.Or(a.rank.compare(b.rank), cmp.Compare(a.at, b.at))
}

func newClaims(isGood func(source.Entry) bool, s *shelf) claims {
	if isGood == nil {
		isGood = func(source.Entry) bool { return true }
	}
	return claims{
		files:   map[string]*state{},
		claimed: map[source.Key][]claim{}, guessed: map[source.Key][]claim{},
		held: map[source.Key]holder{}, holds: map[string]map[source.Key]bool{}, good: map[source.Key]bool{},
		troubles: map[string][]source.Problem{}, reported: map[string][]source.Problem{}, later: map[string]bool{},
		isGood: isGood, shelf: s,
	}
}

// recall takes what was kept for what was reported last, and returns it. All the files it returns must be among those
// that changed when claims are settled first.
func (c *claims) recall(p *parser) (b source.Batch, files map[string]*state) {
	files = map[string]*state{}
	parsed := map[kept]*document{} // of the Lists, whose members are kept one by one
	for _, v := range c.shelf.all() {
		document := kept{File: v.File, Line: v.Line, Text: v.Text}
		top := parsed[document]
		if top == nil {
			top = p.parse(v.Text)
			parsed[document] = top
			if files[v.File] == nil {
				files[v.File] = &state{rank: rank{nowhere, v.File}}
			}
			files[v.File].docs = append(files[v.File].docs, placed{top, v.Line})
		}
		for _, d := range flat([]placed{{top, v.Line}}) {
			if _, again := c.held[v.key()]; again || d.key != v.key() || d.entry == nil {
				continue
			}
			h := holder{doc: d.document, file: v.File, line: v.Line, known: d.entry}
			put := h.put()
			put.Since = v.Since
			b.Put = append(b.Put, put)
			c.hold(v.key(), h)
			c.good[v.key()] = true
		}
	}
	for _, st := range files {
		st.ready()
	}
	return b, files
}

// settle compares what documents claim now with what was put before. Files that are not in changed are as they were.
func (c *claims) settle(changed []string, files map[string]*state, troubles []source.Problem) source.Batch {
	keys := map[source.Key]bool{} // of objects that may come out differently
	stale := c.later              // files about which something else may have to be said
	c.later = map[string]bool{}
	for _, path := range changed {
		c.replace(path, files[path], keys)
		stale[path] = true
	}
	for path := range stale {
		maps.Copy(keys, c.holds[path])
	}
	for k := range keys {
		for _, other := range c.claimed[k] {
			stale[other.rank.path] = true
		}
		stale[c.held[k].file] = true // "" if there is none: nothing is ever said of that
	}
	b := c.decide(slices.SortedFunc(maps.Keys(keys), source.Key.Compare))
	for k := range keys {
		stale[c.held[k].file] = true
	}
	for path := range c.troubles {
		stale[path] = true
	}
	clear(c.troubles)
	c.shelf.retry()
	for _, t := range slices.Concat(troubles, c.shelf.trouble()) {
		c.troubles[t.Place.File] = append(c.troubles[t.Place.File], t)
		stale[t.Place.File] = true
	}
	b.Report = c.report(slices.Sorted(maps.Keys(stale)))
	return b
}

// replace puts next, nil if the file is gone, in the place of what was at path, and adds to keys whose claims differ.
func (c *claims) replace(path string, next *state, keys map[source.Key]bool) {
	if was := c.files[path]; was != nil {
		for at, d := range slices.Backward(was.all) {
			in, k := c.listed(d.document)
			if in == nil {
				continue
			}
			keys[k] = true
			if i, ok := slices.BinarySearchFunc(in[k], claim{rank: was.rank, at: at}, claim.compare); ok {
				in[k] = slices.Delete(in[k], i, i+1)
			}
			if len(in[k]) == 0 {
				delete(in, k)
			}
		}
	}
	if next == nil {
		delete(c.files, path)
		return
	}
	c.files[path] = next
	for at, d := range next.all {
		in, k := c.listed(d.document)
		if in == nil {
			continue
		}
		keys[k] = true
		one := claim{d.document, d.line, next.rank, at}
		i, _ := slices.BinarySearchFunc(in[k], one, claim.compare)
		in[k] = slices.Insert(in[k], i, one)
	}
}

// listed is where the claim of a document belongs; nil if it makes none.
func (c *claims) listed(d *document) (in map[source.Key][]claim, k source.Key) {
	switch {
	case !d.key.IsZero():
		return c.claimed, d.key
	case d.hint != nil && d.rest != nil:
		return c.guessed, *d.hint
	}
	return nil, source.Key{}
}

// decide says which of the objects in keys change. Who stands for which is told by what was held before any of them did.
func (c *claims) decide(keys []source.Key) (b source.Batch) {
	next := make([]holder, len(keys))
	for i, k := range keys {
		next[i] = c.owner(k)
	}
	now := time.Now()
	for i, k := range keys {
		h, was := next[i], c.held[k]
		if h == was {
			continue
		}
		c.hold(k, h)
		if h.doc == nil {
			b.Delete = append(b.Delete, k)
			c.shelf.drop(k)
			continue
		}
		if h.known == nil {
			continue // nothing of it was ever read
		}
		put := h.put()
		put.Since = now
		b.Put = append(b.Put, put)
		if put.Refused == nil && c.isGood(put.Entry) {
			c.good[k] = true
			c.shelf.keep(k, h, now)
		}
	}
	return b
}

// owner is the document that stands for an object now; the zero holder if none does.
func (c *claims) owner(k source.Key) holder {
	was := c.held[k]
	if all := c.claimed[k]; len(all) > 0 {
		h := all[0].holder()
		if h.known == nil {
			h.known = was.known
		}
		return h
	}
	if was.doc != nil && !was.guess && c.files[was.file] != nil {
		for _, d := range c.files[was.file].vague { // its document cannot be told any more
			if !fits(c.sharpen(d.document, was.file), k) {
				continue
			}
			h := holder{doc: d.document, file: was.file, line: d.line, known: was.known}
			if h.known == nil && *d.hint == k {
				h.known = d.rest
			}
			return h
		}
	}
	if all := c.guessed[k]; len(all) > 0 {
		h := all[0].holder()
		h.guess = true
		return h
	}
	return holder{}
}

func (a claim) holder() holder {
	h := holder{doc: a.doc, file: a.rank.path, line: a.line, known: a.doc.entry}
	if h.known == nil {
		h.known = a.doc.rest
	}
	return h
}

// hold notes what is reported of k; the zero holder if that is nothing.
func (c *claims) hold(k source.Key, h holder) {
	was := c.held[k]
	if was.file != h.file || was.guess != h.guess {
		for _, d := range c.guessed[k] {
			c.later[d.rank.path] = true
		}
	}
	if delete(c.holds[was.file], k); len(c.holds[was.file]) == 0 {
		delete(c.holds, was.file)
	}
	if h.doc == nil {
		delete(c.held, k)
		delete(c.good, k)
		return
	}
	c.held[k] = h
	if c.holds[h.file] == nil {
		c.holds[h.file] = map[source.Key]bool{}
	}
	c.holds[h.file][k] = true
}

// sharpen is what is known of the object of a document: if the guess at it fits nothing that the file held, nothing is.
func (c *claims) sharpen(d *document, file string) source.Key {
	if was, ok := c.held[*d.hint]; d.unreadable && (!ok || was.guess || was.file != file) {
		return source.Key{}
	}
	return *d.hint
}

// fits reports whether a document of which only hint is known may be about k.
func fits(hint, k source.Key) bool {
	if hint.Name == "" {
		return hint.Kind == "" || hint.Kind == k.Kind
	}
	return hint.Name == k.Name && hint.Namespace == k.Namespace && (hint.Kind == "" || hint.Kind == k.Kind)
}

// report lists what is to be said of files or folders that was not said before.
func (c *claims) report(paths []string) (all []source.Report) {
	for _, path := range paths {
		now := c.problems(path)
		if slices.Equal(c.reported[path], now) {
			continue
		}
		all = append(all, source.Report{About: path, Problems: now})
		if c.reported[path] = now; len(now) == 0 {
			delete(c.reported, path)
		}
	}
	return all
}

// problems are what is to be said about a file or folder.
func (c *claims) problems(path string) (all []source.Problem) {
	if st := c.files[path]; st != nil {
		for at, d := range st.all {
			begin := len(all)
			all = append(all, d.placedProblems(path)...)
			if d.key.IsZero() {
				continue
			}
			first := c.claimed[d.key][0]
			if one := (claim{d.document, d.line, st.rank, at}); first.compare(one) != 0 {
				all = append(all, duplicate(d.key, one.holder(), first.holder()))
				for i := begin; i < len(all); i++ {
					all[i].Beside = true
				}
			}
		}
		if st.failed != nil {
			all = append(all, *st.failed)
		}
	}
	all = append(all, c.troubles[path]...)
	for _, k := range slices.SortedFunc(maps.Keys(c.holds[path]), source.Key.Compare) {
		if h := c.held[k]; h.doc.entry == nil {
			all = conclude(all, k, h, c.good[k])
		}
	}
	return all
}

// conclude adds to the first problem of a refused object that the version before it stays, if there is a good one. It
// adds a problem where none names the object.
func conclude(problems []source.Problem, k source.Key, h holder, good bool) []source.Problem {
	i := slices.IndexFunc(problems, func(p source.Problem) bool { return p.Severity == source.Error && p.Object == k })
	if i < 0 {
		i = len(problems)
		problems = append(problems, source.Problem{Object: k, Severity: source.Error, Place: h.places().Of(""),
			Message: "which document of this file is about it cannot be told any more"})
	}
	if good {
		problems[i].Message += source.StaysInForce
	}
	return problems
}

func duplicate(k source.Key, loser, winner holder) source.Problem {
	return source.Problem{
		Object: k, Severity: source.Error,
		Place:   loser.places().Of(""),
		Message: fmt.Sprintf("the object is in %s already, and the first one counts", winner.places().Of("")),
	}
}

// flat takes Lists apart.
func flat(docs []placed) []placed {
	var all []placed
	for _, d := range docs {
		all = append(all, d)
		for _, m := range d.members {
			all = append(all, placed{m, d.line})
		}
	}
	return all
}

// put is what the sink is told of the document's object; no Entry if nothing of it could be read.
func (h holder) put() source.Put {
	if h.doc.entry != nil {
		return source.Put{Entry: h.doc.entry, Places: h.places()}
	}
	put := source.Put{Entry: h.known, Places: h.places(), Refused: []string{}}
	for _, p := range h.doc.problems {
		if p.Severity == source.Error {
			put.Refused = append(put.Refused, p.Field)
		}
	}
	return put
}

// places are the lines of the document in its file.
func (h holder) places() *source.Places {
	p := &source.Places{File: h.file, Line: h.line}
	for _, l := range h.doc.lines {
		if l.Field == "" {
			p.Line = l.Line + h.line - 1
			continue
		}
		p.Fields = append(p.Fields, source.FieldLine{Field: l.Field, Line: l.Line + h.line - 1})
	}
	return p
}

// placedProblems are the document's problems with their place in the file.
func (d placed) placedProblems(path string) []source.Problem {
	var all []source.Problem
	for _, p := range d.problems {
		p.Place = source.Place{File: path, Line: p.Place.Line + d.line - 1}
		all = append(all, p)
	}
	return all
}
