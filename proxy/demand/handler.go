// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"github.com/meltemi/meltemi/xds"
)

// Handler brings addresses to d and everything else to next, after which those
// destinations are looked at that waited for something.
func (d *Directory) Handler(next xds.Handler) xds.Handler { return handler{d, next} }

type handler struct {
	d    *Directory
	next xds.Handler
}

func (h handler) Apply(u xds.Update) []xds.Rejection {
	if u.TypeURL == TypeAddress {
		return h.d.Apply(u)
	}
	rejected := h.next.Apply(u)
	h.d.Advance()
	return rejected
}

// Apply takes answers in: resources of TypeAddress.
func (d *Directory) Apply(u xds.Update) (rejected []xds.Rejection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	touched := map[*entry]struct{}{}
	touch := func(list []*question) {
		for _, q := range list {
			for e := range q.entries {
				touched[e] = struct{}{}
			}
		}
	}
	for _, name := range u.Removed {
		touch(d.unlearnLocked(name))
	}
	for _, r := range u.Resources {
		f, err := newFact(r)
		if err != nil {
			rejected = append(rejected, xds.Rejection{Name: r.Name, Err: err})
			continue
		}
		list, wanted := d.learnLocked(f)
		touch(list)
		if !wanted { // it was under way when it was unsubscribed, or nobody asked
			d.cfg.Subscriptions.Unsubscribe(TypeAddress, r.Name)
		}
	}
	for e := range touched {
		if d.entries[e.target] == e {
			d.advanceLocked(e)
		}
	}
	return rejected
}

// Advance looks at destinations that wait for something in the store: for who
// changes the store otherwise than through Handler.
func (d *Directory) Advance() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := range d.busy {
		d.advanceLocked(e)
	}
}
