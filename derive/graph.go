// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import (
	"slices"
	"sync"
)

// A Version numbers the states of a graph's rows. The empty graph has version 0.
type Version uint64

// A Graph owns tables, indexes and queries, and the results computed from them. Tables, indexes and
// queries are added before the first Update or Read.
type Graph struct {
	writer sync.Mutex // held through an Update; taken before mu

	// mu guards what follows, and all nodes. Query functions, equal functions and index functions
	// never run under it.
	mu      sync.RWMutex
	version Version
	nodes   []entry  // by id; id 0 is nobody
	free    []uint32 // ids to use again
	readers []reading
	history []replaced // oldest first
	idle    idleList
	stack   []uint32 // of mark
	tables  []interface{ stats() TableStats }
	queries []*tally
}

// reading counts the readers of one version.
type reading struct {
	version Version
	readers int
}

// replaced says that e's value from before version at is kept for an older reader.
type replaced struct {
	at Version
	e  entry
}

// NewGraph returns an empty graph.
func NewGraph() *Graph {
	return &Graph{nodes: make([]entry, 1), idle: idleList{limit: defaultIdle}}
}

// Update applies all that fn writes to tx as one version, and returns it. A batch that changes
// nothing makes no version. Writers are serialised; fn must not call Update. If fn panics nothing is applied.
func (g *Graph) Update(fn func(tx *Tx)) Version {
	g.writer.Lock()
	defer g.writer.Unlock()
	tx := &Tx{g: g}
	tx.fill(fn)
	changes := false
	for _, b := range tx.batches {
		changes = b.prepare() || changes
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !changes {
		return g.version
	}
	next := g.version + 1
	for _, b := range tx.batches {
		b.apply(next)
	}
	g.version = next
	return next
}

// Version is the newest version.
func (g *Graph) Version() Version {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.version
}

// Read lets fn read the newest version.
func (g *Graph) Read(fn func(c *Context)) {
	c := g.begin()
	defer c.end()
	fn(c)
}

func (g *Graph) begin() *Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.beginLocked()
}

func (g *Graph) beginLocked() *Context {
	if n := len(g.readers); n > 0 && g.readers[n-1].version == g.version {
		g.readers[n-1].readers++
	} else {
		g.readers = append(g.readers, reading{g.version, 1})
	}
	return &Context{g: g, version: g.version}
}

// end says that c's reader is done, and forgets old values that were kept only for it.
func (c *Context) end() {
	g := c.g
	g.mu.Lock()
	defer g.mu.Unlock()
	c.over = true
	i := slices.IndexFunc(g.readers, func(r reading) bool { return r.version == c.version })
	if g.readers[i].readers--; g.readers[i].readers > 0 {
		return
	}
	g.readers = slices.Delete(g.readers, i, i+1)
	oldest := g.version
	if len(g.readers) > 0 {
		oldest = g.readers[0].version
	}
	n := 0
	for n < len(g.history) && g.history[n].at <= oldest {
		n++
	}
	for _, r := range g.history[:n] {
		r.e.trim(oldest)
		g.release(r.e)
	}
	g.history = slices.Delete(g.history, 0, n)
}

// keep reports whether values replaced now may still be read; if so it notes that e has one.
func (g *Graph) keep(e entry, at Version) bool {
	if len(g.readers) == 0 {
		return false
	}
	g.history = append(g.history, replaced{at, e})
	return true
}

// A Tx is one batch of changes. It is valid until the function it was passed to returns.
type Tx struct {
	g       *Graph
	done    bool
	batches []batch
	byTable map[any]batch
}

// A batch is what a Tx writes to one table.
type batch interface {
	prepare() bool // finds what really changes; under the graph's writer lock alone
	apply(at Version)
	overlay(o *overlay)
}

func (tx *Tx) fill(fn func(tx *Tx)) {
	defer func() { tx.done = true }()
	fn(tx)
}
