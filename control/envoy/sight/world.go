// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package sight knows what a proxy is and what it sees of the mesh: the services it may call,
// by which names, and what rules say of them.
//
//	client.go  Client: what a proxy says of itself
//	world.go   World: the queries
//	sight.go   Sight: what proxies of one namespace and Sidecar see alike; Target: what routes ask about destinations
//	policy.go  Policy: what rules say of one cluster, merged
package sight

import (
	"reflect"
	"slices"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/derive"
)

// A World answers what proxies see.
type World struct {
	Facts  *registry.Facts
	Wishes *intent.Wishes

	// Services lists what a proxy sees behind any listener, and what routes lead it to.
	Services *derive.Query[Sight, []registry.ServiceKey]
	// OnPort lists what a proxy sees behind the listener that takes a port, and that has the port.
	OnPort *derive.Query[OnPort, []registry.ServiceKey]
	// Policies are what rules say of one cluster; never nil.
	Policies *derive.Query[PolicyKey, *Policy]
}

// New adds the queries to g.
func New(g *derive.Graph, facts *registry.Facts, wishes *intent.Wishes) *World {
	w := &World{Facts: facts, Wishes: wishes}
	w.Services = derive.NewQuery(g, "sight.services", slices.Equal[[]registry.ServiceKey], w.services)
	w.OnPort = derive.NewQuery(g, "sight.port", slices.Equal[[]registry.ServiceKey], w.servicesOn)
	w.Policies = derive.NewQuery(g, "sight.policy", func(a, b *Policy) bool { return reflect.DeepEqual(a, b) }, w.policyOf)
	return w
}

// Settings are those of the mesh.
func (w *World) Settings(c *derive.Context) *intent.Settings {
	return w.Wishes.Settings.Get(c, struct{}{})
}
