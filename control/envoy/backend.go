// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// Type URLs of the resources made here.
const (
	TypeCluster  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeListener = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeRoute    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeNames    = "type.googleapis.com/istio.networking.nds.v1.NameTable"
	TypeAddress  = "type.googleapis.com/istio.workload.Address"
)

// A Named is one resource of a type as one client sees it.
type Named struct {
	Client Client
	Name   string
}

// A Kind is one resource type: which names a client that asks for everything
// gets, and each resource by name. Get yields nil for a name that means nothing.
type Kind struct {
	TypeURL string
	Names   *derive.Query[Client, []string] // nil: clients ask by name alone
	Get     *derive.Query[Named, *xds.Resource]
}

// A Backend holds the queries.
type Backend struct {
	facts  *registry.Facts
	wishes *intent.Wishes

	identities *derive.Query[registry.PortKey, []string]
	policies   *derive.Query[policyKey, *clusterPolicy]
	services   *derive.Query[portView, []registry.ServiceKey]
	outCluster *derive.Query[clusterKey, *clusterv3.Cluster]
	vhost      *derive.Query[vhostKey, *routev3.VirtualHost]
	outRoute   *derive.Query[routeKey, *routev3.RouteConfiguration]
	outNames   *derive.Query[View, []string]
	outListen  *derive.Query[listenKey, *listenerv3.Listener]
	peerOf     *derive.Query[source.Key, *intent.PeerAuth]

	kinds []Kind
}

// New adds the back end's queries to g.
func New(g *derive.Graph, facts *registry.Facts, wishes *intent.Wishes) *Backend {
	b := &Backend{facts: facts, wishes: wishes}
	b.identities = derive.NewQuery(g, "envoy.identities", slices.Equal[[]string], b.identitiesOf)
	b.policies = derive.NewQuery(g, "envoy.policy", deepEqual[*clusterPolicy], b.policyOf)
	b.services = derive.NewQuery(g, "envoy.services", slices.Equal[[]registry.ServiceKey], b.servicesOn)
	b.outCluster = derive.NewQuery(g, "envoy.cluster", equalProto[*clusterv3.Cluster], b.clusterFor)
	b.vhost = derive.NewQuery(g, "envoy.vhost", equalProto[*routev3.VirtualHost], b.vhostFor)
	b.outRoute = derive.NewQuery(g, "envoy.routes", equalProto[*routev3.RouteConfiguration], b.routesFor)
	b.outNames = derive.NewQuery(g, "envoy.listener.names", slices.Equal[[]string], b.outboundNames)
	b.outListen = derive.NewQuery(g, "envoy.listener.out", equalProto[*listenerv3.Listener], b.outboundListener)
	b.peerOf = derive.NewQuery(g, "envoy.peerauth", deepEqual[*intent.PeerAuth], b.peerAuthOf)

	b.kinds = []Kind{
		b.kind(g, TypeCluster, b.clusterNames, b.cluster),
		b.kind(g, TypeEndpoint, nil, b.endpoints),
		b.kind(g, TypeListener, b.listenerNames, b.listener),
		b.kind(g, TypeRoute, nil, b.routes),
		b.kind(g, TypeNames, b.tableNames, b.nameTable),
		b.kind(g, TypeAddress, nil, b.address),
	}
	return b
}

// Kinds lists the types in the order in which they must be pushed.
func (b *Backend) Kinds() []Kind { return b.kinds }

func (b *Backend) kind(g *derive.Graph, typeURL string, names func(*derive.Context, Client) []string, get func(*derive.Context, Named) *xds.Resource) Kind {
	short := typeURL[len("type.googleapis.com/"):]
	k := Kind{TypeURL: typeURL, Get: derive.NewQuery(g, "resource "+short, sameResource, get)}
	if names != nil {
		k.Names = derive.NewQuery(g, "names "+short, slices.Equal[[]string], names)
	}
	return k
}

func sameResource(a, b *xds.Resource) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && string(a.Body.GetValue()) == string(b.Body.GetValue())
}

func equalProto[M interface {
	comparable
	proto.Message
}](a, b M) bool {
	var none M
	if a == none || b == none {
		return a == b
	}
	return proto.Equal(a, b)
}

// resource packs m, with a version that follows from its contents.
func resource(name string, m proto.Message) *xds.Resource {
	body := pack(m)
	return &xds.Resource{Name: name, Version: strconv.FormatUint(xxhash.Sum64(body.Value), 16), Body: body}
}

// pack marshals deterministically, so that what did not change has the same bytes.
func pack(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("control/envoy: " + err.Error()) // only invalid UTF-8, which front ends refuse
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func (b *Backend) settings(c *derive.Context) *intent.Settings {
	return b.wishes.Settings.Get(c, struct{}{})
}

// scope is what a client sees behind the egress listener that takes port: one
// written for that port, else the one for all.
func (b *Backend) scope(c *derive.Context, v View, port int) intent.Scope {
	s := b.wishes.Sidecar.Get(c, v.Subject)
	if v.Traits.Router {
		return intent.Scope{Namespace: v.namespace()}
	}
	scope := intent.Scope{Namespace: v.namespace(), Sidecar: s.Object}
	for i := range s.Egress {
		if s.Egress[i].Port == port && port != 0 {
			scope.Egress = i
			return scope
		}
		if s.Egress[i].Port == 0 {
			scope.Egress = i
		}
	}
	return scope
}

// visible is the service that host means to v, zero if it may not see it.
func (b *Backend) visible(c *derive.Context, v View, host mesh.Hostname, port int) registry.ServiceKey {
	if v.Traits.Router {
		return b.facts.Resolve.Get(c, registry.HostFrom{Namespace: v.namespace(), Host: host})
	}
	return b.wishes.Sees.Get(c, intent.HostIn{Scope: b.scope(c, v, port), Host: host})
}

// A portView asks for the services that have a port, as v sees them.
type portView struct {
	View View
	Port int
}

func (b *Backend) servicesOn(c *derive.Context, k portView) []registry.ServiceKey {
	var out []registry.ServiceKey
	for _, key := range b.wishes.Visible.Get(c, b.scope(c, k.View, k.Port)) {
		if s := b.facts.Service.Get(c, key); s != nil {
			if _, ok := s.Port(k.Port); ok {
				out = append(out, key)
			}
		}
	}
	return out
}
