// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"reflect"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A Front is what one front end understands: for each sort of wish the rows that hold it. A sort that
// it does not have is left zero.
type Front struct {
	Routes     RouteRows
	Rules      RuleRows
	Gateways   GatewayRows
	Peers      NamespaceRows[PeerRule]
	Policies   NamespaceRows[Policy]
	Sidecars   NamespaceRows[Sidecar]
	AccessLogs NamespaceRows[LogRule]
}

// A LogRule is one object's wish for access logs.
type LogRule struct {
	Object   source.Key
	Origin   source.Origin
	Selector mesh.Labels // empty: the namespace, or in the root namespace the mesh
	Disabled bool
}

// RouteHead is the part of a RouteSet that it is found by. It must be cheap to make.
type RouteHead struct {
	Hosts    []mesh.Hostname
	Gateways []GatewayName // all that the set or one of its matches names; empty for a delegate
	ExportTo registry.Visibility
}

// RouteRows are the rows of a table that hold route sets.
type RouteRows struct {
	kind      source.Kind
	compile   *derive.Query[source.Key, *RouteSet]
	byHost    *derive.Index[mesh.Hostname, source.Key]    // bound to sidecars
	byGateway *derive.Index[GatewayName, source.Key]      // bound to it
	byClient  *derive.Index[registry.Clients, source.Key] // bound to sidecars
	head      *derive.Query[source.Key, *RouteHead]
}

// RuleRows are the rows of a table that hold traffic rules.
type RuleRows struct {
	compile *derive.Query[source.Key, *TrafficRule]
	byHost  *derive.Index[hostOf, source.Key]
}

// hostOf is a host in the rules of a namespace.
type hostOf struct {
	ns   mesh.Namespace
	host mesh.Hostname
}

// GatewayRows are the rows of a table that hold gateways.
type GatewayRows struct {
	kind    source.Kind
	compile *derive.Query[source.Key, *Gateway]
	byLabel *derive.Index[registry.Label, source.Key]
}

// NamespaceRows are the rows of a table that are found by their namespace.
type NamespaceRows[W any] struct {
	compile *derive.Query[source.Key, *W]
	byNS    *derive.Index[mesh.Namespace, source.Key]
}

// Routes makes RouteRows of a table whose rows are of one kind. head and compile must be pure; head may return nil for a
// row that holds none.
func Routes[T any](g *derive.Graph, t *derive.Table[source.Key, T], kind source.Kind, head func(source.Key, T) *RouteHead, compile func(source.Key, T) *RouteSet) RouteRows {
	name := string(kind)
	bound := func(h *RouteHead, to GatewayName) bool {
		for _, g := range h.Gateways {
			if g == to {
				return true
			}
		}
		return false
	}
	return RouteRows{
		kind:    kind,
		compile: compiled(g, t, name+".routes", compile),
		head:    compiled(g, t, name+".head", head),
		byHost: index(t, name+".host", head, func(h *RouteHead) []mesh.Hostname {
			if !bound(h, GatewayMesh) {
				return nil
			}
			return h.Hosts
		}),
		byGateway: index(t, name+".gateway", head, func(h *RouteHead) []GatewayName { return h.Gateways }),
		byClient: index(t, name+".client", head, func(h *RouteHead) []registry.Clients {
			if !bound(h, GatewayMesh) {
				return nil
			}
			return h.ExportTo.Clients()
		}),
	}
}

// TrafficRules makes RuleRows of a table. host and compile must be pure.
func TrafficRules[T any](g *derive.Graph, t *derive.Table[source.Key, T], kind source.Kind, host func(source.Key, T) mesh.Hostname, compile func(source.Key, T) *TrafficRule) RuleRows {
	name := string(kind)
	return RuleRows{
		compile: compiled(g, t, name+".rule", compile),
		byHost: derive.NewIndex(t, name+".host", func(k source.Key, row T) []hostOf {
			return []hostOf{{k.Namespace, host(k, row)}}
		}),
	}
}

// Gateways makes GatewayRows of a table. selector and compile must be pure.
func Gateways[T any](g *derive.Graph, t *derive.Table[source.Key, T], kind source.Kind, selector func(source.Key, T) mesh.Labels, compile func(source.Key, T) *Gateway) GatewayRows {
	name := string(kind)
	return GatewayRows{
		kind:    kind,
		compile: compiled(g, t, name+".gateway", compile),
		byLabel: derive.NewIndex(t, name+".selector", func(k source.Key, row T) []registry.Label {
			return []registry.Label{registry.Telling("", selector(k, row))}
		}),
	}
}

// PerNamespace makes NamespaceRows of a table. compile must be pure, and may return nil for a row that holds nothing.
func PerNamespace[T, W any](g *derive.Graph, t *derive.Table[source.Key, T], kind source.Kind, compile func(source.Key, T) *W) NamespaceRows[W] {
	name := string(kind)
	return NamespaceRows[W]{
		compile: compiled(g, t, name+".wish", compile),
		byNS: derive.NewIndex(t, name+".namespace", func(k source.Key, _ T) []mesh.Namespace {
			return []mesh.Namespace{k.Namespace}
		}),
	}
}

// in lists the wishes of a namespace, by key.
func (r NamespaceRows[W]) in(c *derive.Context, ns mesh.Namespace) []*W {
	if r.byNS == nil {
		return nil
	}
	var all []*W
	for _, k := range r.byNS.Get(c, ns) {
		if w := r.compile.Get(c, k); w != nil {
			all = append(all, w)
		}
	}
	return all
}

func compiled[T, W any](g *derive.Graph, t *derive.Table[source.Key, T], name string, compile func(source.Key, T) *W) *derive.Query[source.Key, *W] {
	return derive.NewQuery(g, name, deepEqual[*W], func(c *derive.Context, k source.Key) *W {
		row, ok := t.Get(c, k)
		if !ok {
			return nil
		}
		return compile(k, row)
	})
}

// index indexes what head says of each row; entries are made distinct.
func index[T any, I comparable](t *derive.Table[source.Key, T], name string, head func(source.Key, T) *RouteHead, of func(*RouteHead) []I) *derive.Index[I, source.Key] {
	return derive.NewIndex(t, name, func(k source.Key, row T) []I {
		h := head(k, row)
		if h == nil {
			return nil
		}
		var distinct []I
		seen := map[I]bool{}
		for _, i := range of(h) {
			if !seen[i] {
				seen[i] = true
				distinct = append(distinct, i)
			}
		}
		return distinct
	})
}

func deepEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }
