// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

// defaultIdle is enough for what interactive commands ask between two changes, and little beside
// what proxies hold.
const defaultIdle = 16384

// evictSkips bounds how many idle results that are in use or were used again one eviction passes over,
// beyond twice what it has to evict.
const evictSkips = 64

// An idleList holds the results that nobody needs, in the order in which they became so.
type idleList struct {
	first, last uint32 // oldest and newest
	length      int
	limit       int
}

// KeepIdle sets how many results that nobody needs are kept for the next reader; 16,384 unless it is called.
func (g *Graph) KeepIdle(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle.limit = max(n, 0)
	g.evict()
}

// push puts e into the list, as the newest, or as the oldest if stale.
func (l *idleList) push(g *Graph, e entry, stale bool) {
	n := e.head()
	n.idle = true
	n.used.Store(false)
	if stale {
		n.prev, n.next = 0, l.first
	} else {
		n.prev, n.next = l.last, 0
	}
	l.join(g, n.prev, n.id)
	l.join(g, n.id, n.next)
	l.length++
	e.count().idle++
}

// join makes a and b neighbours; 0 is the end of the list.
func (l *idleList) join(g *Graph, a, b uint32) {
	if a != 0 {
		g.nodes[a].head().next = b
	} else {
		l.first = b
	}
	if b != 0 {
		g.nodes[b].head().prev = a
	} else {
		l.last = a
	}
}

// unidle takes e out of the list.
func (g *Graph) unidle(e entry) {
	l, n := &g.idle, e.head()
	l.join(g, n.prev, n.next)
	n.idle, n.prev, n.next = false, 0, 0
	l.length--
	e.count().idle--
}

// evict forgets the oldest idle results until no more than the limit remain. What was read since it
// became idle gets a second turn.
func (g *Graph) evict() {
	for skips := evictSkips + 2*(g.idle.length-g.idle.limit); g.idle.length > g.idle.limit && skips > 0; {
		e := g.nodes[g.idle.first]
		n := e.head()
		g.unidle(e)
		if n.pins.Load() != 0 || n.running {
			skips-- // release is called again when that ends
			continue
		}
		if n.used.Load() {
			skips--
			g.idle.push(g, e, false)
			continue
		}
		deps := g.unlink(n, 0)
		g.forget(e)
		for _, id := range deps {
			g.settle(g.nodes[id], true) // or what is used would be evicted before what only that had needed
		}
	}
}
