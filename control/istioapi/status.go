// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"fmt"
	"maps"
	"slices"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A Status is what is to be said about an object.
type Status struct {
	// Accepted: the newest version has passed its check.
	Accepted bool
	// InForce: a version of it is in force, if not the newest then the last good one. What stands in for it is none.
	InForce bool
	// Partial: it has fields that are not in force, as they are not supported yet.
	Partial bool
	// Idle: nothing of it has an effect, as others go first.
	Idle     bool
	Problems []source.Problem // with places, in order
}

// Statuses answer what is to be said about objects.
type Statuses struct {
	// Of is the status of one object.
	Of *derive.Query[source.Key, *Status]
	// Problems are all there are, of objects and of files, by place.
	Problems *derive.Query[struct{}, []source.Problem]
}

// reviewer looks at objects in the light of all others. What it finds are warnings: another object may
// mend them at any time.
type reviewer struct {
	objects *source.Objects
	facts   *registry.Facts
	wishes  *intent.Wishes
	compiler
	review *derive.Query[source.Key, []source.Problem]
	about  *derive.Index[source.Key, string] // which problems are of an object: files, too, report them
}

// Review adds the queries to g.
func Review(g *derive.Graph, o *source.Objects, s intent.Settings, facts *registry.Facts, wishes *intent.Wishes) *Statuses {
	r := &reviewer{objects: o, facts: facts, wishes: wishes, compiler: compilerFor(s)}
	r.about = derive.NewIndex(o.Problems, "problems by object", func(_ string, all []source.Problem) []source.Key {
		var keys []source.Key
		for i := range all {
			if k := all[i].Object; !k.IsZero() && !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
		return keys
	})
	r.review = derive.NewQuery(g, "review", slices.Equal[[]source.Problem], r.one)
	return &Statuses{
		Of: derive.NewQuery(g, "status", func(a, b *Status) bool {
			return a.Accepted == b.Accepted && a.InForce == b.InForce && a.Partial == b.Partial && a.Idle == b.Idle && slices.Equal(a.Problems, b.Problems)
		}, r.status),
		Problems: derive.NewQuery(g, "problems", slices.Equal[[]source.Problem], r.all),
	}
}

func (r *reviewer) status(c *derive.Context, k source.Key) *Status {
	s := &Status{Accepted: true, InForce: r.exists(c, k)}
	for _, about := range r.about.Get(c, k) {
		known, _ := r.objects.Problems.Get(c, about)
		for _, p := range known {
			if p.Object == k {
				s.Problems = append(s.Problems, p)
				s.Accepted = s.Accepted && (p.Severity != source.Error || p.Beside)
				s.Partial = s.Partial || p.Partial && !p.Beside
			}
		}
	}
	s.Accepted = s.Accepted && s.InForce
	if s.InForce {
		for _, p := range r.located(c, k) {
			s.Problems = append(s.Problems, p)
			s.Idle = s.Idle || p.Idle
		}
	}
	slices.SortStableFunc(s.Problems, source.Problem.Compare)
	return s
}

// located are the findings of a review with their places.
func (r *reviewer) located(c *derive.Context, k source.Key) []source.Problem {
	found := slices.Clone(r.review.Get(c, k))
	for i := range found {
		found[i].Place = r.objects.Where(c, source.Origin{Object: k, Field: found[i].Field})
	}
	return found
}

func (r *reviewer) all(c *derive.Context, _ struct{}) []source.Problem {
	var all []source.Problem
	for _, about := range r.objects.Problems.Keys(c) {
		problems, _ := r.objects.Problems.Get(c, about)
		all = append(all, problems...)
	}
	o := r.objects
	for _, keys := range [][]source.Key{
		o.VirtualServices.Keys(c), o.DestinationRules.Keys(c), o.Gateways.Keys(c), o.ServiceEntries.Keys(c),
		o.Sidecars.Keys(c), o.PeerAuthentications.Keys(c), o.Telemetries.Keys(c),
	} {
		for _, k := range keys {
			all = append(all, r.located(c, k)...)
		}
	}
	slices.SortStableFunc(all, source.Problem.Compare)
	return slices.Compact(all)
}

func (r *reviewer) exists(c *derive.Context, k source.Key) bool {
	o := r.objects
	switch k.Kind {
	case source.KindService:
		return has(c, o.Services, k)
	case source.KindWorkload:
		return has(c, o.Workloads, k)
	case source.KindVirtualService:
		return has(c, o.VirtualServices, k)
	case source.KindDestinationRule:
		return has(c, o.DestinationRules, k)
	case source.KindGateway:
		return has(c, o.Gateways, k)
	case source.KindServiceEntry:
		return has(c, o.ServiceEntries, k)
	case source.KindWorkloadEntry:
		return has(c, o.WorkloadEntries, k)
	case source.KindSidecar:
		return has(c, o.Sidecars, k)
	case source.KindPeerAuthentication:
		return has(c, o.PeerAuthentications, k)
	case source.KindAuthorizationPolicy:
		return has(c, o.AuthorizationPolicies, k)
	case source.KindTelemetry:
		return has(c, o.Telemetries, k)
	}
	return false
}

func has[T any](c *derive.Context, t *source.Table[T], k source.Key) bool {
	o, ok := t.Get(c, k)
	return ok && !o.StandIn
}

// findings are what a review has to say about an object.
type findings struct{ list []source.Problem }

func (f *findings) warnf(field, format string, args ...any) {
	f.list = append(f.list, source.Problem{Field: field, Severity: source.Warning, Message: fmt.Sprintf(format, args...)})
}

// one reviews one object.
func (r *reviewer) one(c *derive.Context, k source.Key) []source.Problem {
	var out findings
	o := r.objects
	switch k.Kind {
	case source.KindVirtualService:
		if row, ok := o.VirtualServices.Get(c, k); ok {
			r.virtualService(c, &out, row)
		}
	case source.KindDestinationRule:
		if row, ok := o.DestinationRules.Get(c, k); ok {
			r.destinationRule(c, &out, row)
		}
	case source.KindGateway:
		if row, ok := o.Gateways.Get(c, k); ok {
			r.gateway(c, &out, row)
		}
	case source.KindServiceEntry:
		if row, ok := o.ServiceEntries.Get(c, k); ok {
			r.serviceEntry(c, &out, row)
		}
	case source.KindSidecar:
		first(c, &out, o.Sidecars, k, func(o sidecarObject) mesh.Labels { return o.Spec.GetWorkloadSelector().GetLabels() })
	case source.KindPeerAuthentication:
		first(c, &out, o.PeerAuthentications, k, func(o peerObject) mesh.Labels { return o.Spec.GetSelector().GetMatchLabels() })
	case source.KindTelemetry:
		first(c, &out, o.Telemetries, k, func(o telemetryObject) mesh.Labels { return o.Spec.GetSelector().GetMatchLabels() })
	}
	for i := range out.list {
		out.list[i].Object = k
	}
	return out.list
}

// first warns where another object of the same scope goes first.
func first[T any](c *derive.Context, out *findings, t *source.Table[T], k source.Key, selector func(*source.Object[T]) mesh.Labels) {
	own, ok := t.Get(c, k)
	if !ok {
		return
	}
	for _, other := range t.Keys(c) {
		if other == k {
			return
		}
		if other.Namespace != k.Namespace {
			continue
		}
		if o, ok := t.Get(c, other); ok && maps.Equal(selector(o), selector(own)) {
			out.warnf("spec", "is for the same workloads as %s, which goes first; this one has no effect", other)
			return
		}
	}
}
