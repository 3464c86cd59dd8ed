// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"maps"
	"reflect"
	"slices"

	"github.com/meltemi/meltemi/derive"
	"google.golang.org/protobuf/proto"
)

// A Table holds the objects of one kind, ordered by [Key.Compare].
type Table[T any] = derive.Table[Key, *Object[T]]

// Objects are what all sources report, one table per kind.
type Objects struct {
	Services              *Table[Service]
	Workloads             *Table[Workload]
	VirtualServices       *Table[*VirtualService]
	DestinationRules      *Table[*DestinationRule]
	Gateways              *Table[*Gateway]
	ServiceEntries        *Table[*ServiceEntry]
	WorkloadEntries       *Table[*WorkloadEntry]
	Sidecars              *Table[*Sidecar]
	PeerAuthentications   *Table[*PeerAuthentication]
	AuthorizationPolicies *Table[*AuthorizationPolicy]
	Telemetries           *Table[*Telemetry]

	// Places are those of the objects in force that stand in files.
	Places *derive.Table[Key, *Places]
	// Problems are what sources and Admit have to say, by object (Key.String) or by what else a
	// source reports about. Objects in force may be among them, with warnings.
	Problems *derive.Table[string, []Problem]
}

// NewObjects adds empty tables to g.
func NewObjects(g *derive.Graph) *Objects {
	return &Objects{
		Services:              structs[Service](g, KindService),
		Workloads:             structs[Workload](g, KindWorkload),
		VirtualServices:       messages[*VirtualService](g, KindVirtualService),
		DestinationRules:      messages[*DestinationRule](g, KindDestinationRule),
		Gateways:              messages[*Gateway](g, KindGateway),
		ServiceEntries:        messages[*ServiceEntry](g, KindServiceEntry),
		WorkloadEntries:       messages[*WorkloadEntry](g, KindWorkloadEntry),
		Sidecars:              messages[*Sidecar](g, KindSidecar),
		PeerAuthentications:   messages[*PeerAuthentication](g, KindPeerAuthentication),
		AuthorizationPolicies: messages[*AuthorizationPolicy](g, KindAuthorizationPolicy),
		Telemetries:           messages[*Telemetry](g, KindTelemetry),

		Places: derive.NewTable[Key](g, "places", func(a, b *Places) bool {
			return a.File == b.File && a.Line == b.Line && slices.Equal(a.Fields, b.Fields)
		}).WithOrder(Key.Compare),
		Problems: derive.NewTable[string](g, "problems", slices.Equal[[]Problem]).WithOrder(compareStrings),
	}
}

// Where is the place at which o was written; the zero Place for an object that no file holds.
// A result that asks for it depends on where the object stands in its file.
func (o *Objects) Where(c *derive.Context, origin Origin) Place {
	p, _ := o.Places.Get(c, origin.Object)
	return p.Of(origin.Field)
}

func structs[T any](g *derive.Graph, kind Kind) *Table[T] {
	return table(g, kind, func(a, b T) bool { return reflect.DeepEqual(a, b) })
}

func messages[T proto.Message](g *derive.Graph, kind Kind) *Table[T] {
	return table(g, kind, func(a, b T) bool { return proto.Equal(a, b) })
}

func table[T any](g *derive.Graph, kind Kind, equal func(a, b T) bool) *Table[T] {
	return derive.NewTable[Key](g, string(kind), func(a, b *Object[T]) bool {
		return a == b || a.Key == b.Key && a.Generation == b.Generation && a.StandIn == b.StandIn &&
			maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
			equal(a.Spec, b.Spec)
	}).WithOrder(Key.Compare)
}

// set writes an object into the table of its type: the one place where types are told apart.
func (o *Objects) set(tx *derive.Tx, e Entry) {
	switch e := e.(type) {
	case *Object[Service]:
		o.Services.Set(tx, e.Key, e)
	case *Object[Workload]:
		o.Workloads.Set(tx, e.Key, e)
	case *Object[*VirtualService]:
		o.VirtualServices.Set(tx, e.Key, e)
	case *Object[*DestinationRule]:
		o.DestinationRules.Set(tx, e.Key, e)
	case *Object[*Gateway]:
		o.Gateways.Set(tx, e.Key, e)
	case *Object[*ServiceEntry]:
		o.ServiceEntries.Set(tx, e.Key, e)
	case *Object[*WorkloadEntry]:
		o.WorkloadEntries.Set(tx, e.Key, e)
	case *Object[*Sidecar]:
		o.Sidecars.Set(tx, e.Key, e)
	case *Object[*PeerAuthentication]:
		o.PeerAuthentications.Set(tx, e.Key, e)
	case *Object[*AuthorizationPolicy]:
		o.AuthorizationPolicies.Set(tx, e.Key, e)
	case *Object[*Telemetry]:
		o.Telemetries.Set(tx, e.Key, e)
	}
}

// remove deletes the row of k, whose kind names the table.
func (o *Objects) remove(tx *derive.Tx, k Key) {
	switch k.Kind {
	case KindService:
		o.Services.Delete(tx, k)
	case KindWorkload:
		o.Workloads.Delete(tx, k)
	case KindVirtualService:
		o.VirtualServices.Delete(tx, k)
	case KindDestinationRule:
		o.DestinationRules.Delete(tx, k)
	case KindGateway:
		o.Gateways.Delete(tx, k)
	case KindServiceEntry:
		o.ServiceEntries.Delete(tx, k)
	case KindWorkloadEntry:
		o.WorkloadEntries.Delete(tx, k)
	case KindSidecar:
		o.Sidecars.Delete(tx, k)
	case KindPeerAuthentication:
		o.PeerAuthentications.Delete(tx, k)
	case KindAuthorizationPolicy:
		o.AuthorizationPolicies.Delete(tx, k)
	case KindTelemetry:
		o.Telemetries.Delete(tx, k)
	}
}
