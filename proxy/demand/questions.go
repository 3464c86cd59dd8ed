// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import "slices"

// A question is one name that the control plane was asked about. Whoever needs
// the answer is listed; when nobody does, the subscription ends.
type question struct {
	name     string
	answered bool
	fact     *fact // nil: not answered, or there is nothing
	entries  map[*entry]struct{}
}

// askLocked returns the question of that name, and asks it if it is new.
func (d *Directory) askLocked(name string, e *entry) *question {
	q := d.questions[name]
	if q == nil {
		q = &question{name: name, entries: map[*entry]struct{}{}}
		d.questions[name] = q
		if f := d.names[name]; f != nil {
			q.answer(f) // by an alias; subscribing keeps it if the other name goes
		}
		d.stats.Questions++
		d.cfg.Subscriptions.Subscribe(TypeAddress, name)
	}
	q.entries[e] = struct{}{}
	return q
}

// leaveLocked takes e off a question, and ends the question if it was the last.
func (d *Directory) leaveLocked(name string, e *entry) {
	q := d.questions[name]
	if q == nil {
		return
	}
	delete(q.entries, e)
	if len(q.entries) > 0 {
		return
	}
	delete(d.questions, name)
	d.cfg.Subscriptions.Unsubscribe(TypeAddress, name)
	if f := q.fact; f != nil {
		q.answer(nil)
		if f.questions == 0 {
			d.removeFactLocked(f) // the subscriber has forgotten it, too
		}
	}
}

func (q *question) answer(f *fact) {
	if q.fact != nil {
		q.fact.questions--
	}
	if f != nil {
		f.questions++
	}
	q.answered, q.fact = true, f
}

func (d *Directory) removeFactLocked(f *fact) {
	if d.facts[f.name] == f {
		delete(d.facts, f.name)
	}
	for _, n := range f.names {
		if d.names[n] == f {
			delete(d.names, n)
		}
	}
}

// learnLocked takes a fact in and returns the questions whose answer changed. It
// reports false if nobody asked.
func (d *Directory) learnLocked(f *fact) (touched []*question, wanted bool) {
	for _, n := range f.names {
		if d.questions[n] != nil {
			wanted = true
		}
	}
	old := d.facts[f.name]
	if old != nil {
		for _, q := range d.answeredBy(old) {
			if !slices.Contains(f.names, q.name) {
				q.answer(nil)
				touched = append(touched, q)
			}
		}
		d.removeFactLocked(old)
	}
	if !wanted {
		return touched, false
	}
	d.facts[f.name] = f
	for _, n := range f.names {
		d.names[n] = f
		if q := d.questions[n]; q != nil {
			q.answer(f)
			touched = append(touched, q)
		}
	}
	return touched, true
}

// unlearnLocked notes that there is nothing of that name (any more).
func (d *Directory) unlearnLocked(name string) (touched []*question) {
	if f := d.facts[name]; f != nil {
		touched = d.answeredBy(f)
		d.removeFactLocked(f)
	}
	if q := d.questions[name]; q != nil && !slices.Contains(touched, q) {
		touched = append(touched, q)
	}
	for _, q := range touched {
		q.answer(nil)
	}
	return touched
}

func (d *Directory) answeredBy(f *fact) (out []*question) {
	for _, n := range f.names {
		if q := d.questions[n]; q != nil && q.fact == f {
			out = append(out, q)
		}
	}
	return out
}
