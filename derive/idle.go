// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

// defaultIdle is enough for what interactive commands ask between two changes, and little beside
// what proxies hold.
const defaultIdle = 16384

// evictSkips bounds how many idle results that are in use or were used again one eviction passes over.
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

func (l *idleList) push(g *Graph, e entry) {
	n := e.head()
	n.idle, n.prev, n.next = true, l.last, 0
	n.used.Store(false)
	if l.last != 0 {
		g.nodes[l.last].head().next = n.id
	} else {
		l.first = n.id
	}
	l.last = n.id
	l.length++
	e.count().idle++
}

// unidle takes e out of the list.
func (g *Graph) unidle(e entry) {
	l, n := &g.idle, e.head()
	if n.prev != 0 {
		g.nodes[n.prev].head().next = n.next
	} else {
		l.first = n.next
	}
	if n.next != 0 {
		g.nodes[n.next].head().prev = n.prev
	} else {
		l.last = n.prev
	}
	n.idle, n.prev, n.next = false, 0, 0
	l.length--
	e.count().idle--
}

// evict forgets the oldest idle results until no more than the limit remain. What was read since it
// became idle gets a second turn.
func (g *Graph) evict() {
	for skips := 0; g.idle.length > g.idle.limit && skips < evictSkips; {
		e := g.nodes[g.idle.first]
		n := e.head()
		g.unidle(e)
		if n.pins.Load() != 0 || n.running {
			skips++ // release is called again when that ends
			continue
		}
		if n.used.Load() {
			skips++
			g.idle.push(g, e)
			continue
		}
		deps := g.unlink(n, 0)
		g.forget(e)
		for _, id := range deps {
			g.settle(g.nodes[id])
		}
	}
}
