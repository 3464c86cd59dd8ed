// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

// A Table is a compiled Config; immutable.
type Table struct {
	cfg      *Config
	clusters []string
	formats  []string
	slots    int
	hosts    []Host
}

// A Host is a virtual host of a Table.
type Host struct {
	*VirtualHost
	entries []Entry
}

// An Entry is a route of a Table.
type Entry struct {
	*Route
	// Mirrors are the slots in Table.Clusters of the mirrors' clusters, in the
	// order of Forward.Mirrors.
	Mirrors []int
	slot    int   // of its first choice
	choices []int // cluster slots
}
