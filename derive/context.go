// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"slices"
	"strings"
)

// A Context is what readers and query functions read through. It is valid until the function it
// was passed to returns, and only on that goroutine.
type Context struct {
	g       *Graph
	version Version
	over    bool // the reader has returned
	task    *task
	reads   []uint32 // what the unfinished tasks have read so far; each has its own stretch
	waiting *task    // another reader's; guarded by g.mu

	// What cannot be remembered in the graph is remembered here, for this reader or for the fork.
	private *space
	fork    *overlay // nil: the base
	trace   *tracer  // nil: nobody asks where the result is from
}

// Version is the version that c reads.
func (c *Context) Version() Version { return c.version }

// A task is a result being verified or computed by one reader. The tasks of a reader form a chain.
type task struct {
	c       *Context
	parent  *task
	subject interface{ label() string }
	version Version

	base     int     // where its stretch of c.reads begins
	from     Version // since when all it has read has been as it is
	seen     map[uint32]struct{}
	private  bool // takes no notes: the result is not for the graph
	detached bool // has read what the graph does not hold; the result is not for the graph either

	// Guarded by g.mu.
	done     chan struct{} // made by the first who waits
	finished bool          // with a value
	ended    bool          // with or without
}

// seenFrom is how many reads are searched one by one before a set is made of them.
const seenFrom = 16

func (c *Context) check() {
	if c.over {
		panic("derive: Context used after its reader returned")
	}
}

// notes reports whether what is read now is noted as a dependency.
func (c *Context) notes() bool { return c.task != nil && !c.task.private }

// note makes n, valid since from, a dependency of the current task, once, and pins it. Under g.mu, for reading at least.
func (c *Context) note(n *node, from Version) {
	if !c.notes() {
		return
	}
	t := c.task
	if t.seen != nil {
		if _, again := t.seen[n.id]; again {
			return
		}
		t.seen[n.id] = struct{}{}
	} else {
		reads := c.reads[t.base:]
		if slices.Contains(reads, n.id) {
			return
		}
		if len(reads) == seenFrom {
			t.seen = make(map[uint32]struct{}, 4*seenFrom)
			for _, id := range reads {
				t.seen[id] = struct{}{}
			}
			t.seen[n.id] = struct{}{}
		}
	}
	c.reads = append(c.reads, n.id)
	n.pins.Add(1)
	t.from = max(t.from, from)
}

// push makes t the current task.
func (c *Context) push(t *task) {
	t.c, t.parent, t.version, t.base = c, c.task, c.version, len(c.reads)
	c.task = t
}

// pop ends the current task, forgets what it read, and wakes who waits for it. Under g.mu.
func (c *Context) pop(t *task) {
	c.g.unpin(c.reads[t.base:])
	c.reads = c.reads[:t.base]
	c.task = t.parent
	t.ended = true
	if t.done != nil {
		close(t.done)
	}
}

// wait blocks until t, of another reader, has ended. It is called and returns under g.mu; if waiting would
// close a cycle it panics, without g.mu.
func (c *Context) wait(t *task) {
	for other := t; other != nil && !other.ended; other = other.c.waiting { // ended: about to wake
		if other.c == c {
			chain := c.chain(t)
			c.g.mu.Unlock()
			panic(chain)
		}
	}
	if t.done == nil {
		t.done = make(chan struct{})
	}
	c.waiting = t
	c.g.mu.Unlock()
	<-t.done
	c.g.mu.Lock()
	c.waiting = nil
}

// chain describes the cycle that closes if c waits for t. Readers that wait do not change their tasks.
func (c *Context) chain(t *task) string {
	var names []string
	for ; ; t = t.c.waiting {
		var stretch []string
		for u := t.c.task; u != nil; u = u.parent {
			stretch = append(stretch, u.subject.label())
			if u == t {
				break
			}
		}
		slices.Reverse(stretch)
		names = append(names, stretch...)
		if t.c == c {
			return cycle(names)
		}
	}
}

func cycle(names []string) string {
	return "derive: a query needs itself: " + strings.Join(append(names, names[0]), " → ")
}
