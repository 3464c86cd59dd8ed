// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"sync/atomic"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// A RouteTable is a compiled table with its names resolved. Immutable.
type RouteTable struct {
	*route.Table
	// Refs are the clusters, by the slots of Table.Clusters.
	Refs []*upstream.Ref
	// Formats are the values with %COMMANDS%, by the slots of Table.Formats.
	Formats []*accesslog.Format
	// Settings is what routes say to filters, by Decision.Slot.
	Settings [][]filter.Setting

	Hash    uint64
	Version string // of the update that brought it
}

// A RouteRef is a route table by name, resolved once: whoever holds it sees each
// new version of the table without asking for it.
type RouteRef struct {
	name     string
	table    atomic.Pointer[RouteTable]
	answered atomic.Bool
	why      *fault.Fault // of NoRoutes
}

// Answered says whether the control plane has answered: with a table, or with
// that there is none (then Load returns nil).
func (r *RouteRef) Answered() bool { return r.answered.Load() }

// FixedRoutes returns a RouteRef whose table never changes: inline routes.
func FixedRoutes(name string, t *RouteTable) *RouteRef {
	r := &RouteRef{name: name}
	r.table.Store(t)
	r.answered.Store(true)
	return r
}

// NoRoutes returns a RouteRef that has no table, and never will: f says why.
func NoRoutes(f *fault.Fault) *RouteRef {
	r := &RouteRef{name: f.Object, why: f}
	r.answered.Store(true)
	return r
}

// Why says why there is no table, if that is known; else nil.
func (r *RouteRef) Why() *fault.Fault { return r.why }

// Name returns the name of the table.
func (r *RouteRef) Name() string { return r.name }

// Load returns the table of the moment; nil while it has not arrived (404, NR).
func (r *RouteRef) Load() *RouteTable { return r.table.Load() }
