// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"slices"
)

// maxUnanswered is how many responses of a type may wait for acknowledgement
// before the oldest is forgotten; a later acknowledgement of it is then ignored.
const maxUnanswered = 256

// A watch is what one stream wants of one type, and what it was sent.
type watch struct {
	typeURL  string
	begun    bool // a request was seen
	gone     bool // the client wants nothing more; its next request is a first one
	wildcard bool
	named    bool // some request held names, so an empty one no longer means everything
	names    map[string]struct{}

	unanswered []string // nonces, oldest first
	last       string   // the newest nonce
	version    string   // that went with it
	refused    []string // nonces of responses that were refused, oldest first

	// Delta: the versions a reconnecting client holds, until each was compared once. Comparing
	// once only lets a Feed send an unchanged resource again, for which a warming cluster waits.
	initial map[string]string
	// Delta: those of names that were asked for since. What the client held of them it may have let go meanwhile.
	again map[string]struct{}

	// State-of-the-world: all that the client has, for types where a response must be complete.
	state map[string]Resource
}

// A change is what a Feed is told.
type change struct {
	add, remove []string
	wildcard    bool
}

func newWatch(typeURL string) *watch {
	return &watch{typeURL: typeURL, names: map[string]struct{}{}}
}

// size counts against the limit of names.
func (w *watch) size() int { return len(w.names) + len(w.initial) }

func (w *watch) askedAgain(names []string) {
	if w.again == nil {
		w.again = map[string]struct{}{}
	}
	for _, n := range names {
		w.again[n] = struct{}{}
	}
}

// isAskedAgain reports whether r was, by any of its names.
func (w *watch) isAskedAgain(r *Resource) bool {
	has := func(n string) bool { _, ok := w.again[n]; return ok }
	return has(r.Name) || slices.ContainsFunc(r.Aliases, has)
}

func (w *watch) sent(nonce, version string) {
	if len(w.unanswered) >= maxUnanswered {
		w.unanswered = slices.Delete(w.unanswered, 0, 1)
	}
	w.unanswered = append(w.unanswered, nonce)
	w.last, w.version = nonce, version
}

// acknowledged reports whether nonce was waited for. It is no longer.
func (w *watch) acknowledged(nonce string) bool {
	i := slices.Index(w.unanswered, nonce)
	if i < 0 {
		return false
	}
	w.unanswered = slices.Delete(w.unanswered, i, i+1)
	return true
}

// answered notes what the answer was.
func (w *watch) answered(nonce string, nack bool) {
	w.refused = slices.DeleteFunc(w.refused, func(n string) bool { return n == nonce })
	if !nack {
		return
	}
	if len(w.refused) >= maxUnanswered {
		w.refused = slices.Delete(w.refused, 0, 1)
	}
	w.refused = append(w.refused, nonce)
}

// strip takes "*", doubles and what is in except out of names.
func strip(names []string, except map[string]struct{}) (rest []string, star bool) {
	seen := make(map[string]struct{}, len(names))
	for _, n := range names {
		if n == wildcardName {
			star = true
			continue
		}
		if _, ok := except[n]; ok {
			continue
		}
		if _, ok := seen[n]; !ok {
			seen[n] = struct{}{}
			rest = append(rest, n)
		}
	}
	return rest, star
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
