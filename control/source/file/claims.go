// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
)

// claims decides which document stands for which object, and remembers what was reported.
type claims struct {
	held     map[source.Key]holder
	reported map[string][]source.Problem
}

// holder is the document whose object was put last.
type holder struct {
	doc  *document
	file string
	line int
}

func newClaims() claims {
	return claims{held: map[source.Key]holder{}, reported: map[string][]source.Problem{}}
}

// settle compares what documents claim now with what was put before.
func (c *claims) settle(order []string, files map[string]*state, troubles []source.Problem) source.Batch {
	owners := map[source.Key]holder{}
	reports := map[string][]source.Problem{}
	for _, path := range order {
		for _, d := range flat(files[path].docs) {
			h := holder{d.document, path, d.line}
			problems := d.placedProblems(path)
			if !d.key.IsZero() {
				if first, taken := owners[d.key]; taken {
					problems = append(problems, duplicate(d.key, h, first))
				} else {
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
	c.remember(owners, files, reports)

	var b source.Batch
	for k, was := range c.held {
		if _, ok := owners[k]; !ok {
			b.Delete = append(b.Delete, k)
			delete(c.held, k)
			continue
		}
		if now := owners[k]; now.doc.entry == nil && was.doc.entry != nil {
			conclude(reports[now.file], k)
			owners[k] = was
		}
	}
	for k, h := range owners {
		if put := h.put(); put.Entry != nil && c.held[k] != h {
			b.Put = append(b.Put, put)
			c.held[k] = h
		}
	}
	slices.SortFunc(b.Delete, source.Key.Compare)
	slices.SortFunc(b.Put, func(x, y source.Put) int { return x.Entry.ObjectKey().Compare(y.Entry.ObjectKey()) })
	b.Report = c.report(reports)
	return b
}

// remember adds to owners those objects of before whose document cannot be told any more.
func (c *claims) remember(owners map[source.Key]holder, files map[string]*state, reports map[string][]source.Problem) {
	for k, was := range c.held {
		if _, claimed := owners[k]; claimed || files[was.file] == nil {
			continue
		}
		for _, d := range flat(files[was.file].docs) {
			if d.hint != nil && fits(c.sharpen(d.document, was.file), k) {
				owners[k] = was
				if was.doc.entry != nil {
					conclude(reports[was.file], k)
				}
				break
			}
		}
	}
}

// sharpen is what is known of the object of a document: if the guess at it fits nothing that the file held, nothing is.
func (c *claims) sharpen(d *document, file string) source.Key {
	if was, ok := c.held[*d.hint]; d.unreadable && (!ok || was.file != file) {
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

// conclude adds to the first problem of a refused object that the version before it stays.
func conclude(problems []source.Problem, k source.Key) {
	const add = source.StaysInForce
	for i := range problems {
		p := &problems[i]
		if p.Severity == source.Error && !strings.HasSuffix(p.Message, add) && (p.Object == k || fits(p.Object, k)) {
			p.Message += add
			return
		}
	}
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

// put is what the sink is told of the document's object; no Entry if nothing of it could be read.
func (h holder) put() source.Put {
	if h.doc.entry != nil {
		return source.Put{Entry: h.doc.entry, Places: h.places()}
	}
	put := source.Put{Entry: h.doc.rest, Places: h.places()}
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
