// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// A topic is what one client wants of one type, and what it was sent.
type topic struct {
	bound
	rank    int
	watcher *derive.Watcher

	begun    bool
	touched  bool // what is wanted or was sent has changed
	full     bool // everything is to be sent, as a complete set
	wildcard bool

	wild      *derive.Hold    // on the list of everything, where wildcard
	wildDirty bool            // it has changed
	list      []*xds.Resource // as it was last sent, sorted by name

	spares  func(name string) bool // whether a change is withheld for now; may be nil
	items   map[string]*item       // asked for by name
	todo    []*item
	orphans []string // sent by name, not asked for by name any more, and only wanted if listed
}

// An item is a name that was asked for.
type item struct {
	t      *topic
	name   string
	hold   *derive.Hold
	last   *xds.Resource // what was sent; nil if it was said not to exist
	queued bool          // in todo
	forced bool          // to be sent even if it is what was sent
	spared bool          // a change was withheld
}

// A tag is what a hold is on.
type tag interface {
	changed()
	on() (*topic, *item)
}

func (t *topic) changed()            { t.wildDirty = true }
func (t *topic) on() (*topic, *item) { return t, nil }

func (it *item) on() (*topic, *item) { return it.t, it }
func (it *item) changed() {
	if !it.queued {
		it.queued = true
		it.t.todo = append(it.t.todo, it)
	}
}

func (it *item) force() {
	it.forced = true
	it.changed()
}

// is reports whether the item asks for the resource with that name and those aliases.
func (it *item) is(name string, aliases []string) bool {
	return it.name == name || slices.Contains(aliases, it.name)
}

// force has a name sent again, if it is asked for.
func (t *topic) force(name string) {
	if it := t.items[name]; it != nil {
		it.force()
	}
}

// forceSpared sends a change that was withheld.
func (t *topic) forceSpared(name string) bool {
	it := t.items[name]
	if it == nil || !it.spared {
		return false
	}
	it.force()
	return true
}

func (t *topic) forceAll() {
	for _, it := range t.items {
		it.force()
	}
}

// ask changes what is wanted.
func (t *topic) ask(a *ask) {
	t.full = t.full || a.full
	t.begun, t.touched = true, true
	if t.wild != nil && (a.cut || !a.wildcard) {
		t.wild.Release()
		t.wild, t.wildDirty, t.list = nil, false, nil
	}
	if a.wildcard && t.wild == nil && t.watchAll != nil {
		t.wild = t.watchAll(t.watcher, t)
	}
	t.wildcard = a.wildcard
	for n, wanted := range a.names {
		if wanted {
			t.add(n)
		} else {
			t.remove(n)
		}
	}
}

func (t *topic) add(name string) {
	it := t.items[name]
	if it == nil {
		it = &item{t: t, name: name}
		if t.watch != nil {
			it.hold = t.watch(t.watcher, name, it)
		}
		t.items[name] = it
	}
	it.force()
}

func (t *topic) remove(name string) {
	it := t.items[name]
	if it == nil {
		return
	}
	if it.hold != nil {
		it.hold.Release()
	}
	delete(t.items, name)
	if it.last != nil && t.wildcard {
		t.orphans = append(t.orphans, it.last.Name)
	}
}

// A draft is an update being made.
type draft struct {
	xds.Update
	later []string // Removed, but not yet

	has  map[string]struct{} // of Resources
	gone map[string]bool     // what to remove; true: the client has it
}

func (d *draft) put(r *xds.Resource) {
	if _, again := d.has[r.Name]; !again {
		d.has[r.Name] = struct{}{}
		d.Resources = append(d.Resources, *r)
	}
}

func (d *draft) drop(name string, sent bool) { d.gone[name] = d.gone[name] || sent }

// build makes the update that brings the client from what it was sent to what c shows; nil if nothing may have changed.
func (t *topic) build(c *derive.Context) *draft {
	if !t.full && !t.wildDirty && len(t.todo) == 0 && len(t.orphans) == 0 {
		return nil
	}
	d := &draft{
		Update: xds.Update{TypeURL: t.typeURL, Version: strconv.FormatUint(uint64(c.Version()), 10), Full: t.full},
		has:    map[string]struct{}{}, gone: map[string]bool{},
	}
	if t.wild != nil && (t.full || t.wildDirty) {
		t.buildWild(c, d)
	}
	if t.full {
		t.forceAll()
	}
	slices.SortFunc(t.todo, func(a, b *item) int { return cmp.Compare(a.name, b.name) })
	for _, it := range t.todo {
		if t.items[it.name] == it {
			t.buildItem(c, d, it)
		}
		it.queued, it.forced = false, false
	}
	for _, n := range t.orphans {
		d.drop(n, true)
	}
	t.full, t.wildDirty, t.todo, t.orphans = false, false, nil, nil
	t.touched = true
	t.removals(d)
	return d
}

// buildWild compares the list of everything with the one last sent. Unchanged resources are the same pointers.
func (t *topic) buildWild(c *derive.Context, d *draft) {
	was, is := t.list, t.all(c)
	t.list = is
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].Name < is[0].Name:
			d.drop(was[0].Name, true)
			was = was[1:]
		case len(was) == 0 || is[0].Name < was[0].Name:
			d.put(is[0])
			is = is[1:]
		default:
			if was[0] != is[0] || d.Full {
				d.put(is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
}

// buildItem compares a resource asked for by name with what was last said of it. Its own name may be another than the one
// by which it was asked for.
func (t *topic) buildItem(c *derive.Context, d *draft, it *item) {
	var r *xds.Resource
	if t.get != nil {
		r = t.get(c, it.name)
	}
	was := it.last
	if it.spared = !it.forced && r != nil && was != nil && r != was && t.spares != nil && t.spares(it.name); it.spared {
		return
	}
	it.last = r
	if was != nil && (r == nil || r.Name != was.Name) {
		d.drop(was.Name, true)
	}
	switch {
	case r != nil && (it.forced || r != was):
		d.put(r)
	case r == nil && (it.forced || was != nil):
		d.drop(it.name, false)
	}
}

// removals fills in what is gone and not there under another name either.
func (t *topic) removals(d *draft) {
	if len(d.gone) == 0 || neverRemoved(t.typeURL) {
		return
	}
	for _, it := range t.items {
		if it.last != nil {
			delete(d.gone, it.last.Name)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(d.gone)) {
		switch {
		case t.listed(n):
		case d.gone[n] && removedLast(t.typeURL):
			d.later = append(d.later, n)
		default:
			d.Removed = append(d.Removed, n)
		}
	}
}

// listed reports whether name is in the list of everything.
func (t *topic) listed(name string) bool {
	_, ok := slices.BinarySearchFunc(t.list, name, func(r *xds.Resource, n string) int { return cmp.Compare(r.Name, n) })
	return ok
}

// resources are those the client has, by name, with their aliases.
func (t *topic) resources() map[string][]string {
	all := make(map[string][]string, len(t.list)+len(t.items))
	for _, r := range t.list {
		all[r.Name] = r.Aliases
	}
	for _, it := range t.items {
		if it.last != nil {
			all[it.last.Name] = it.last.Aliases
		}
	}
	return all
}

// size is how many resources the client has.
func (t *topic) size() int {
	n := len(t.list)
	for _, it := range t.items {
		if it.last != nil && !t.listed(it.last.Name) {
			n++
		}
	}
	return n
}
