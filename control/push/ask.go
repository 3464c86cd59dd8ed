// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

// An ask is what a client asked of one type since its topic was last changed: the net result of all its requests. A client
// that asks and never reads thus costs no more than the names that it wants and those that it wanted when it last read.
type ask struct {
	typeURL  string
	names    map[string]bool // true: wanted, to be sent again if it was; false: not wanted any more
	wildcard bool
	full     bool // everything is to be sent
	cut      bool // for a while the client did not want everything
}

// newAsk is no change to t, which is nil if the type was never asked for.
func newAsk(t *topic, typeURL string) *ask {
	a := &ask{typeURL: typeURL, names: map[string]bool{}, full: t == nil}
	a.wildcard = t != nil && t.wildcard
	return a
}

// merge adds one more request to what is to be done to t.
func (a *ask) merge(t *topic, add, remove []string, wildcard bool) {
	again := wildcard && a.wildcard && len(add) == 0 && len(remove) == 0
	a.full = a.full || again || wildcard && !a.wildcard
	a.cut = a.cut || !wildcard
	a.wildcard = wildcard
	for _, n := range add {
		a.names[n] = true
	}
	for _, n := range remove {
		if t != nil && t.items[n] != nil {
			a.names[n] = false
		} else {
			delete(a.names, n)
		}
	}
}
