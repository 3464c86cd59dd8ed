// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// Config is what Build needs to know about the mesh. The zero value is the default.
type Config struct {
	Domain   string   // DNS suffix of Kubernetes services; empty: cluster.local
	ExportTo []string // visibility of services that do not say; empty: everywhere
}

// Entries are the facts that front ends find in their objects.
type Entries struct {
	Services  []ServiceRows
	Workloads []WorkloadRows
}

// builder holds what the queries share. It does not change once Build has returned.
type builder struct {
	services  []ServiceRows  // Kubernetes first: in one namespace they go before others
	workloads []WorkloadRows // pods first
	domain    string
	facts     *Facts

	brief    *derive.Query[ServiceKey, brief]
	vipHosts *derive.Query[source.Key, []ServiceKey]
	vips     *derive.Query[vipGroup, vips]
	lengths  *derive.Query[struct{}, []bits]
	labels   *derive.Query[source.Key, mesh.Labels]
	offers   *derive.Query[source.Key, []ServiceKey]
}

// Build adds the queries to g. Kubernetes services and reported workloads are in objects; what else
// declares services or describes workloads is in entries. It must be called before rows are written.
func Build(g *derive.Graph, objects *source.Objects, cfg Config, entries Entries) *Facts {
	b := &builder{
		services:  append([]ServiceRows{kubeServices(g, objects, cfg.Domain, cfg.ExportTo)}, entries.Services...),
		workloads: append([]WorkloadRows{podWorkloads(g, objects)}, entries.Workloads...),
		domain:    cfg.Domain,
		facts:     &Facts{},
	}
	f := b.facts
	f.Service = derive.NewQuery(g, "service", deepEqual[*Service], b.service)
	f.Hosts = derive.NewQuery(g, "hosts", slices.Equal[[]ServiceKey], b.hosts)
	f.Visible = derive.NewQuery(g, "visible", slices.Equal[[]ServiceKey], b.visible)
	f.Resolve = derive.NewQuery(g, "resolve", same[ServiceKey], b.resolve)
	f.ByAddr = derive.NewQuery(g, "byAddr", same[ServiceKey], b.byAddr)
	f.Members = derive.NewQuery(g, "members", slices.Equal[[]source.Key], b.members)
	f.Endpoints = derive.NewQuery(g, "endpoints", deepEqual[*Endpoints], b.endpoints)
	f.Workload = derive.NewQuery(g, "workload", same[*Workload], b.workload)
	f.WorkloadsAt = derive.NewQuery(g, "workloadsAt", slices.Equal[[]source.Key], b.workloadsAt)
	f.WorkloadKeys = derive.NewQuery(g, "workloadKeys", slices.Equal[[]source.Key], b.workloadKeys)
	f.Served = derive.NewQuery(g, "served", deepEqual[[]ServicePort], b.served)
	f.Names = derive.NewQuery(g, "names", deepEqual[[]Name], b.names)
	f.Name = derive.NewQuery(g, "name", deepEqual[*Name], b.name)

	b.brief = derive.NewQuery(g, "service.brief", deepEqual[brief], b.briefOf)
	b.vipHosts = derive.NewQuery(g, "vip.hosts", slices.Equal[[]ServiceKey], func(c *derive.Context, k source.Key) []ServiceKey {
		return wantVIP(k, b.declaration(c, k))
	})
	b.vips = derive.NewQuery(g, "vip.group", func(x, y vips) bool { return maps.Equal(x.addr, y.addr) }, b.vipsOf)
	b.lengths = derive.NewQuery(g, "vip.lengths", slices.Equal[[]bits], b.lengthsInUse)
	b.labels = derive.NewQuery(g, "workload.labels", maps.Equal[mesh.Labels, mesh.Labels], func(c *derive.Context, k source.Key) mesh.Labels {
		if w := b.workload(c, k); w != nil {
			return w.Labels
		}
		return nil
	})
	b.offers = derive.NewQuery(g, "service.offers", slices.Equal[[]ServiceKey], b.offersTo)
	return f
}

// declaration is what the object k declares, nil for none. Tables have disjoint keys, for the kind is part of a key.
func (b *builder) declaration(c *derive.Context, k source.Key) *Declaration {
	for _, rows := range b.services {
		if d := rows.declare(c, k); d != nil {
			return d
		}
	}
	return &Declaration{}
}

func (b *builder) workload(c *derive.Context, k source.Key) *Workload {
	for _, rows := range b.workloads {
		if rows.kind == k.Kind {
			return rows.describe(c, k)
		}
	}
	return nil
}

func (b *builder) workloadsAt(c *derive.Context, a netip.Addr) []source.Key {
	var all []source.Key
	for _, rows := range b.workloads {
		all = append(all, rows.byAddr.Get(c, a)...)
	}
	return all
}

func (b *builder) workloadKeys(c *derive.Context, _ struct{}) []source.Key {
	var all []source.Key
	for _, rows := range b.workloads {
		all = append(all, rows.keys(c)...)
	}
	slices.SortFunc(all, source.Key.Compare)
	return all
}

func same[T comparable](a, b T) bool { return a == b }

func deepEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }
