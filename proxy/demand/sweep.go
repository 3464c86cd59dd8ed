// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	tick = time.Second
	// sweepEvery is how often all destinations are looked at.
	sweepEvery = 5 * time.Second
	// forgetAfter is how long a destination is kept that has not become ready and that
	// nobody calls any more; askAgainAfter is how long one that is called. The next
	// connection then asks anew.
	forgetAfter   = 10 * time.Second
	askAgainAfter = time.Minute
)

// Run drops what is not used and follows the template, until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.refresh:
			d.mu.Lock()
			for _, e := range d.entries {
				d.advanceLocked(e)
			}
			d.mu.Unlock()
		case now := <-t.C:
			d.sweep(now)
		}
	}
}

func (d *Directory) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock.Store(now.UnixNano())
	for e := range d.busy { // some things in the store become ready by time alone
		d.advanceLocked(e)
	}
	d.retired = slices.DeleteFunc(d.retired, func(old *Destination) bool {
		if !old.giveUp() {
			if cur := old.entry.cur.Load(); cur != nil { // connections that are older than a change use the destination all the same
				cur.used.Store(now.UnixNano())
			}
			return false
		}
		d.releaseLocked(old)
		return true
	})
	if now.Sub(d.swept) < min(sweepEvery, d.cfg.Unknown) {
		return
	}
	d.swept = now
	for _, e := range d.entries {
		if cur := e.cur.Load(); cur != nil && cur.Known && !d.link.up {
			continue // who calls it next could not be told anew what it is
		}
		if d.staleLocked(e, now) && d.removeLocked(e) {
			d.stats.Dropped++
		}
	}
}

func (d *Directory) staleLocked(e *entry, now time.Time) bool {
	cur := e.cur.Load()
	if cur == nil {
		return e.waiting == 0 && (now.Sub(e.called) >= forgetAfter || now.Sub(e.begun) >= askAgainAfter)
	}
	keep := d.cfg.Idle
	if !cur.Known {
		keep = d.cfg.Unknown
	}
	return cur.idle() && now.UnixNano()-cur.used.Load() >= int64(keep)
}

// evictLocked makes room: of what is not used, the tenth that was used longest
// ago. It reports false if everything is in use.
func (d *Directory) evictLocked(known bool) bool {
	var idle []*entry
	for _, e := range d.entries {
		if cur := e.cur.Load(); cur != nil && cur.Known == known && cur.idle() {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(a, b *entry) int { return cmp.Compare(a.cur.Load().used.Load(), b.cur.Load().used.Load()) })
	room := false
	for _, e := range idle[:min(len(idle), max(1, len(idle)/10))] {
		if d.removeLocked(e) {
			d.stats.Evicted++
			room = true
		}
	}
	return room
}

// Keys lists the mesh's destinations in force, as Warm reads them.
func (d *Directory) Keys() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var keys []string
	for t, e := range d.entries {
		if cur := e.cur.Load(); cur != nil && cur.Known {
			keys = append(keys, t.String())
		}
	}
	slices.Sort(keys)
	return keys
}

// Warm finds out about destinations before anybody calls them: those that an
// earlier process used. What it does not understand it leaves out.
func (d *Directory) Warm(keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range keys {
		t, ok := parseTarget(k)
		if ok && d.entries[t] == nil && len(d.entries) < d.cfg.MaxDestinations {
			d.enterLocked(t)
		}
	}
}

// parseTarget reads what target.String wrote.
func parseTarget(s string) (target, bool) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return target{addr: a}, true
	}
	host, port := s, "0"
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return target{host: host, port: uint16(n)}, err == nil && host != "" && !strings.ContainsAny(host, ":/")
}
