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

	known    map[string]held   // accepted, by the resource's own name
	aliases  map[string]string // of those: alias to own name
	answered bool              // the Handler has seen a first answer

	// The present stream.
	begun   bool
	add     map[string]struct{} // not yet told
	drop    map[string]struct{}
	nonce   string              // state-of-the-world: the newest
	version string              // state-of-the-world: the newest that was accepted
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
	version string
	sum     uint64
	aliases []string
}

func newTopic(typeURL string) *topic {
	return &topic{
		typeURL: typeURL, names: map[string]struct{}{}, known: map[string]held{}, aliases: map[string]string{},
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
}

// accept remembers that r is in force.
func (t *topic) accept(r Resource) {
	t.forget(r.Name)
	t.known[r.Name] = held{version: r.Version, sum: sum(r), aliases: r.Aliases}
	for _, a := range r.Aliases {
		t.aliases[a] = r.Name
	}
	delete(t.absent, r.Name)
}

// same reports whether r is in force already.
func (t *topic) same(r Resource) bool {
	h, ok := t.known[r.Name]
	return ok && h.sum == sum(r) && slices.Equal(h.aliases, r.Aliases)
}

func sum(r Resource) uint64 { return xxhash.Sum64(r.Body.GetValue()) }

// reopen prepares the topic for a new stream.
func (t *topic) reopen() {
	t.begun, t.nonce, t.waiting = false, "", nil
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
