// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"slices"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

// claims decides which document stands for which object, and remembers what was reported.
type claims struct {
	held     map[source.Key]holder
	good     map[source.Key]bool // some version of it was good: that is in force whatever is held
	reported map[string][]source.Problem
	isGood   func(source.Entry) bool
	shelf    *shelf
}

// holder is the document that was reported for an object last.
type holder struct {
	doc  *document
	file string
	line int
	// last is what was read of the object before, if nothing can be read of it in doc.
	last source.Entry
	// guess: nothing but the looks of doc says that it is about the object.
	guess bool
}

func newClaims(isGood func(source.Entry) bool, s *shelf) claims {
	if isGood == nil {
		isGood = func(source.Entry) bool { return true }
	}
	return claims{
		held: map[source.Key]holder{}, good: map[source.Key]bool{}, reported: map[string][]source.Problem{}, isGood: isGood, shelf: s,
	}
}

// recall takes what was kept for what was reported last, and returns it.
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
				files[v.File] = &state{}
			}
			files[v.File].docs = append(files[v.File].docs, placed{top, v.Line})
		}
		for _, d := range flat([]placed{{top, v.Line}}) {
			if _, again := c.held[v.key()]; again || d.key != v.key() || d.entry == nil {
				continue
			}
			h := holder{doc: d.document, file: v.File, line: v.Line}
			put := h.put()
			put.Since = v.Since
			b.Put = append(b.Put, put)
			c.held[v.key()], c.good[v.key()] = h, true
		}
	}
	return b, files
}

// settle compares what documents claim now with what was put before.
func (c *claims) settle(order []string, files map[string]*state, troubles []source.Problem) source.Batch {
	owners := map[source.Key]holder{}
	reports := map[string][]source.Problem{}
	for _, path := range order {
		for _, d := range flat(files[path].docs) {
			h := holder{doc: d.document, file: path, line: d.line}
			problems := d.placedProblems(path)
			if !d.key.IsZero() {
				if first, taken := owners[d.key]; taken {
					problems = append(problems, duplicate(d.key, h, first))
				} else {
					h.last = c.held[d.key].entry()
					if h.doc.entry != nil || h.doc.rest != nil {
						h.last = nil
					}
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
	for k, h := range owners {
		if h.doc.entry == nil {
			reports[h.file] = conclude(reports[h.file], k, h, c.good[k])
		}
	}
	for _, t := range c.shelf.trouble() {
		reports[t.Place.File] = append(reports[t.Place.File], t)
	}
	b.Report = c.report(reports)
	return b
}

// changes makes owners what is held.
func (c *claims) changes(owners map[source.Key]holder) (b source.Batch) {
	for k := range c.held {
		if _, ok := owners[k]; !ok {
			b.Delete = append(b.Delete, k)
			delete(c.held, k)
			delete(c.good, k)
			c.shelf.drop(k)
		}
	}
	now := time.Now()
	for k, h := range owners {
		if was, ok := c.held[k]; ok && was == h {
			continue
		}
		c.held[k] = h
		put := h.put()
		put.Since = now
		if put.Entry == nil || put.Entry.ObjectKey() != k {
			continue // nothing of it was ever read
		}
		b.Put = append(b.Put, put)
		if put.Refused == nil && c.isGood(put.Entry) {
			c.good[k] = true
			c.shelf.keep(k, h, now)
		}
	}
	slices.SortFunc(b.Delete, source.Key.Compare)
	slices.SortFunc(b.Put, func(x, y source.Put) int { return x.Entry.ObjectKey().Compare(y.Entry.ObjectKey()) })
	return b
}

// remember adds to owners those objects of before whose document cannot be told any more.
func (c *claims) remember(owners map[source.Key]holder, files map[string]*state) {
	for k, was := range c.held {
		if _, claimed := owners[k]; claimed || was.guess || files[was.file] == nil {
			continue
		}
		for _, d := range flat(files[was.file].docs) {
			if d.hint != nil && fits(c.sharpen(d.document, was.file), k) {
				owners[k] = holder{doc: d.document, file: was.file, line: d.line, last: was.entry()}
				break
			}
		}
	}
}

// guess adds to owners those objects of which nothing is known but that there is a document that looks like one.
func (c *claims) guess(owners map[source.Key]holder, order []string, files map[string]*state) {
	for _, path := range order {
		for _, d := range flat(files[path].docs) {
			if d.hint == nil || d.rest == nil {
				continue
			}
			if _, claimed := owners[*d.hint]; !claimed {
				owners[*d.hint] = holder{doc: d.document, file: path, line: d.line, guess: true}
			}
		}
	}
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

// report lists what is to be said that was not said before.
func (c *claims) report(now map[string][]source.Problem) []source.Report {
	var all []source.Report
	for path := range c.reported {
		if len(now[path]) == 0 {
			all = append(all, source.Report{About: path})
			delete(c.reported, path)
		}
	}
	for path, problems := range now {
		if len(problems) > 0 && !slices.Equal(c.reported[path], problems) {
			all = append(all, source.Report{About: path, Problems: problems})
			c.reported[path] = problems
		}
	}
	slices.SortFunc(all, func(a, b source.Report) int {
		if a.About < b.About {
			return -1
		}
		return 1
	})
	return all
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

// entry is what is known of the object.
func (h holder) entry() source.Entry {
	switch {
	case h.doc == nil:
		return nil
	case h.doc.entry != nil:
		return h.doc.entry
	case h.last != nil:
		return h.last
	}
	return h.doc.rest
}

// put is what the sink is told of the document's object; no Entry if nothing of it could be read.
func (h holder) put() source.Put {
	if h.doc.entry != nil {
		return source.Put{Entry: h.doc.entry, Places: h.places()}
	}
	put := source.Put{Entry: h.entry(), Places: h.places(), Refused: []string{}}
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
