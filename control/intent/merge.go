// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"slices"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// merger holds what the queries share. It does not change once Merge has returned.
type merger struct {
	facts  *registry.Facts
	fronts []Front
	root   mesh.Namespace
	wishes *Wishes

	resolved  *derive.Query[source.Key, *RouteSet] // delegates filled in
	peers     *derive.Query[mesh.Namespace, []*PeerRule]
	policies  *derive.Query[mesh.Namespace, []*Policy]
	sidecars  *derive.Query[mesh.Namespace, []*Sidecar]
	logs      *derive.Query[mesh.Namespace, []*LogRule]
	general   *derive.Query[rulesOf, []*TrafficRule]
	bindings  *derive.Query[boundTo, []binding]
	plans     *derive.Query[Table, map[mesh.Hostname]hostPlan]
	atGateway *derive.Query[hostAt, *VirtualHost]
}

// Merge adds the queries to g. It must be called before rows are written.
func Merge(g *derive.Graph, settings Settings, facts *registry.Facts, fronts ...Front) *Wishes {
	w := &Wishes{settings: derive.NewTable[struct{}](g, "settings", deepEqual[*Settings])}
	m := &merger{facts: facts, fronts: fronts, root: settings.RootNamespace, wishes: w}

	w.Settings = derive.NewQuery(g, "settings", deepEqual[*Settings], func(c *derive.Context, k struct{}) *Settings {
		s, _ := w.settings.Get(c, k)
		return s
	})
	w.Sidecar = derive.NewQuery(g, "sidecar", deepEqual[*Sidecar], m.sidecar)
	w.Visible = derive.NewQuery(g, "scope.visible", slices.Equal[[]registry.ServiceKey], m.visible)
	w.Sees = derive.NewQuery(g, "scope.sees", same[registry.ServiceKey], m.sees)
	w.RouteHosts = derive.NewQuery(g, "routes.hosts", slices.Equal[[]mesh.Hostname], m.routeHosts)
	w.Routes = derive.NewQuery(g, "routes.mesh", deepEqual[*HostRoutes], m.routes)
	w.RoutedBy = derive.NewQuery(g, "routes.by", slices.Equal[[]source.Key], m.routedBy)
	w.Rules = derive.NewQuery(g, "rules", deepEqual[*Rules], m.rules)
	w.Listeners = derive.NewQuery(g, "gateway.listeners", deepEqual[[]Listener], m.listeners)
	w.VirtualHosts = derive.NewQuery(g, "gateway.hosts", slices.Equal[[]*VirtualHost], m.virtualHosts)
	w.L4Routes = derive.NewQuery(g, "gateway.l4", deepEqual[*L4Routes], m.l4Routes)
	w.PeerAuth = derive.NewQuery(g, "peerAuth", deepEqual[*PeerAuth], m.peerAuth)
	w.Authorization = derive.NewQuery(g, "authorization", deepEqual[*Authorization], m.authorization)
	w.AccessLog = derive.NewQuery(g, "accessLog", deepEqual[*AccessLog], m.accessLog)

	m.resolved = derive.NewQuery(g, "routes.resolved", deepEqual[*RouteSet], m.resolve)
	m.peers = perNamespace(g, "peers", m, func(f Front) NamespaceRows[PeerRule] { return f.Peers })
	m.policies = perNamespace(g, "policies", m, func(f Front) NamespaceRows[Policy] { return f.Policies })
	m.sidecars = perNamespace(g, "sidecars", m, func(f Front) NamespaceRows[Sidecar] { return f.Sidecars })
	m.logs = perNamespace(g, "logs", m, func(f Front) NamespaceRows[LogRule] { return f.AccessLogs })
	m.general = derive.NewQuery(g, "rules.merged", deepEqual[[]*TrafficRule], m.rulesFor)
	m.bindings = derive.NewQuery(g, "gateway.bindings", deepEqual[[]binding], m.boundTo)
	m.plans = derive.NewQuery(g, "gateway.plan", deepEqual[map[mesh.Hostname]hostPlan], m.plan)
	m.atGateway = derive.NewQuery(g, "gateway.host", deepEqual[*VirtualHost], m.virtualHost)

	g.Update(func(tx *derive.Tx) { w.Set(tx, settings) })
	return w
}

// perNamespace lists the wishes of one sort in a namespace over all fronts, by key.
func perNamespace[W any](g *derive.Graph, name string, m *merger, of func(Front) NamespaceRows[W]) *derive.Query[mesh.Namespace, []*W] {
	return derive.NewQuery(g, name, slices.Equal[[]*W], func(c *derive.Context, ns mesh.Namespace) []*W {
		var all []*W
		for _, f := range m.fronts {
			all = append(all, of(f).in(c, ns)...)
		}
		return all
	})
}

func same[T comparable](a, b T) bool { return a == b }
