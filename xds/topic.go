// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A topic is what a Subscriber wants of one type, and what it holds.
type topic struct {
	typeURL  string
	wildcard bool
	names    map[string]struct{} // asked for

	known    map[string]held    // accepted, by the resource's own name
	bad      map[string]badness // the newest is refused, or accepted and of no use; by the resource's own name
	aliases  map[string]string  // of those: alias to own name
	answered bool               // the Handler has seen a first answer
	failing  map[string]error   // what the Handler said with Review

	// The present stream.
	begun   bool
	heard   bool                // a response has come
	newest  string              // its nonce
	add     map[string]struct{} // not yet told
	drop    map[string]struct{}
	nonce   string              // state-of-the-world: the newest
	version string              // state-of-the-world: the newest that was accepted
	before  string              // state-of-the-world: the one that was accepted before that
	absent  map[string]struct{} // state-of-the-world: asked for, and reported as missing
	refused string              // version and reason of the last refusal
	repeats int                 // how often the same has come again
	waiting *Update             // refused again; it is said later
}

// A server may answer a refusal with what was refused, at once and for ever
// (go-control-plane's snapshot cache does, in state-of-the-world). These are the waits
// before the same thing is refused again. Longer ones would keep the mended
// version away, which such a server sends when it is asked the next time.
const (
	firstPatience = 100 * time.Millisecond
	lastPatience  = 2 * time.Second
)

// patience is how long to wait before saying that this version is refused for
// this reason; a reason of "" is none.
func (t *topic) patience(version, reason string) time.Duration {
	what := version + "\x00" + reason
	switch {
	case reason == "":
		t.refused, t.repeats = "", 0
		return 0
	case what != t.refused:
		t.refused, t.repeats = what, 0
		return 0
	}
	t.repeats++
	return min(firstPatience<<min(t.repeats-1, 8), lastPatience)
}

// held is what is remembered of an accepted resource.
type held struct {
	from    *Update // the response it came in, without its resources; nil: an earlier stream
	version string
	sum     uint64
	aliases []string
}

// badness is what is wrong with the newest version of a resource.
type badness struct {
	from *Update // as of held
	err  error
	held *held // nil: the Handler has refused it; else it took it, and said later that it fails
}

func newTopic(typeURL string) *topic {
	return &topic{
		typeURL: typeURL, names: map[string]struct{}{}, known: map[string]held{}, aliases: map[string]string{}, bad: map[string]badness{},
		add: map[string]struct{}{}, drop: map[string]struct{}{}, absent: map[string]struct{}{},
	}
}

func (t *topic) subscribe(names []string) {
	if len(names) == 0 {
		names = []string{wildcardName}
	}
	for _, n := range names {
		if n == wildcardName {
			if t.wildcard {
				continue
			}
			t.wildcard = true
		} else {
			t.names[n] = struct{}{}
		}
		t.add[n] = struct{}{}
		delete(t.drop, n)
	}
}

func (t *topic) unsubscribe(names []string) {
	if len(names) == 0 {
		names = []string{wildcardName}
	}
	for _, n := range names {
		delete(t.add, n)
		delete(t.absent, n)
		if n == wildcardName {
			if t.wildcard {
				t.wildcard = false
				t.drop[n] = struct{}{}
				t.forgetUnwanted()
			}
			continue
		}
		delete(t.names, n)
		if !t.wants(n, held{}) {
			delete(t.bad, n)
		}
		t.drop[n] = struct{}{}
		own := n
		if _, ok := t.known[n]; !ok {
			if o, ok := t.aliases[n]; ok {
				own = o
			}
		}
		if h, ok := t.known[own]; ok && !t.wants(own, h) {
			t.forget(own)
			t.drop[own] = struct{}{} // the server may have subscribed us by its own name
		}
	}
}

// wants reports whether a known resource is still asked for, by any of its names.
func (t *topic) wants(name string, h held) bool {
	if t.wildcard {
		return true
	}
	if _, ok := t.names[name]; ok {
		return true
	}
	return slices.ContainsFunc(h.aliases, func(a string) bool { _, ok := t.names[a]; return ok })
}

func (t *topic) forgetUnwanted() {
	for n, h := range t.known {
		if !t.wants(n, h) {
			t.forget(n)
		}
	}
}

func (t *topic) forget(name string) {
	for _, a := range t.known[name].aliases {
		if t.aliases[a] == name {
			delete(t.aliases, a)
		}
	}
	delete(t.known, name)
	delete(t.bad, name)
}

// accept remembers that r is in force.
func (t *topic) accept(r Resource, from *Update) {
	t.hold(r.Name, held{from: from, version: r.Version, sum: sum(r), aliases: r.Aliases})
	delete(t.absent, r.Name)
}

func (t *topic) hold(name string, h held) {
	t.forget(name)
	t.known[name] = h
	for _, a := range h.aliases {
		t.aliases[a] = name
	}
}

// refuse remembers that the newest version of a resource is not in force. What was accepted before stays known.
func (t *topic) refuse(name string, from *Update, err error) {
	t.bad[name] = badness{from: from, err: err}
}

// review compares what the Handler says of resources that it took with what it said before. It returns the responses
// of which something else is to be said now.
func (t *topic) review() (changed []*Update) {
	touch := func(from *Update) {
		if from != nil && !slices.Contains(changed, from) {
			changed = append(changed, from)
		}
	}
	for name, b := range t.bad {
		if _, still := t.failing[name]; b.held != nil && !still {
			t.hold(name, *b.held)
			touch(b.from)
		}
	}
	for name, err := range t.failing {
		if h, ok := t.known[name]; ok && t.bad[name].err == nil {
			// As if it had been refused: on the next stream it is asked for again, and answered again.
			t.forget(name)
			t.bad[name] = badness{from: h.from, err: err, held: &h}
			touch(h.from)
		}
	}
	return changed
}

// wrong lists what is wrong with what came in a response.
func (t *topic) wrong(from *Update) (bad []Rejection) {
	for _, name := range sortedKeys(t.bad) {
		if b := t.bad[name]; b.from == from {
			bad = append(bad, Rejection{Name: name, Err: b.err})
		}
	}
	return bad
}

// same reports whether r is in force already.
func (t *topic) same(r Resource) bool {
	h, ok := t.known[r.Name]
	return ok && h.sum == sum(r) && slices.Equal(h.aliases, r.Aliases)
}

func sum(r Resource) uint64 { return xxhash.Sum64(r.Body.GetValue()) }

// reopen prepares the topic for a new stream.
func (t *topic) reopen() {
	t.begun, t.heard, t.newest, t.nonce, t.waiting = false, false, "", "", nil
	for n, h := range t.known {
		h.from = nil
		t.known[n] = h
	}
	for n, b := range t.bad {
		b.from = nil
		t.bad[n] = b
	}
	clear(t.add)
	clear(t.drop)
}

// list is the whole subscription as a first request writes it: nothing means
// everything, where the type allows it.
func (t *topic) list() []string {
	names := sortedKeys(t.names)
	if t.wildcard && (len(names) > 0 || namedOnly(t.typeURL)) {
		names = slices.Insert(names, 0, wildcardName)
	}
	return names
}

// idle reports whether there is nothing to ask.
func (t *topic) idle() bool { return !t.wildcard && len(t.names) == 0 }
