// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package derive

import "sync/atomic"

// Stats counts what a graph holds and did.
type Stats struct {
	Version Version
	Tables  []TableStats // tables and indexes, in the order in which they were added
	Queries []QueryStats // likewise
}

// TableStats is about one table or index.
type TableStats struct {
	Name string
	Rows int // of an index: entries
}

// QueryStats is about one query. Counts of work are since the graph was made, forks' included.
type QueryStats struct {
	Name     string
	Results  int    // in memory
	Held     int    // of these, or still to be computed, under a Hold
	Idle     int    // of these, needed by nobody
	Computed uint64 // runs of the function
	Verified uint64 // results found unchanged without running the function
	CutOff   uint64 // runs that gave an equal result
}

// A tally counts for one query.
type tally struct {
	name                       string
	computed, verified, cutOff atomic.Uint64
	results, held, idle        int // guarded by the graph's mu
}

// Stats returns the current counts.
func (g *Graph) Stats() Stats {
	g.mu.RLock()
	defer g.mu.RUnlock()
	s := Stats{Version: g.version}
	for _, t := range g.tables {
		s.Tables = append(s.Tables, t.stats())
	}
	for _, q := range g.queries {
		s.Queries = append(s.Queries, QueryStats{
			Name: q.name, Results: q.results, Held: q.held, Idle: q.idle,
			Computed: q.computed.Load(), Verified: q.verified.Load(), CutOff: q.cutOff.Load(),
		})
	}
	return s
}
