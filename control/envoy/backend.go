// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
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
	Client sight.Client
	Name   string
}

// A Kind is one resource type: which names a client that asks for everything
// gets, and each resource by name. Get yields nil for a name that means nothing.
type Kind struct {
	TypeURL string
	Names   *derive.Query[sight.Client, []string] // nil: clients ask by name alone
	Get     *derive.Query[Named, *xds.Resource]
}

// A Backend holds the queries. Those of Kinds are per client, and hardly more than the keys of the others, which
// clients share.
type Backend struct {
	*sight.World

	identities *derive.Query[registry.PortKey, []string]
	peerOf     *derive.Query[source.Key, *intent.PeerAuth]

	outCluster   *derive.Query[clusterKey, *xds.Resource]
	outEnds      *derive.Query[endpointKey, *xds.Resource]
	outNames     *derive.Query[listenKey, []string]
	outListen    *derive.Query[listenKey, *xds.Resource]
	portPersonal *derive.Query[sight.OnPort, bool]
	outRoute     *derive.Query[tableKey, *xds.Resource]
	hosts        *derive.Query[tableKey, *hostList]
	outHost      *derive.Query[hostKey, *route.Host]
	hostPersonal *derive.Query[hostKey, bool]
	edgeHost     *derive.Query[edgeKey, *route.Host]
	tables       *derive.Query[sight.Sight, *xds.Resource]

	kinds []Kind
}

// New adds the back end's queries to g.
func New(g *derive.Graph, facts *registry.Facts, wishes *intent.Wishes) *Backend {
	b := &Backend{World: sight.New(g, facts, wishes)}
	b.identities = derive.NewQuery(g, "envoy.identities", slices.Equal[[]string], b.identitiesOf)
	b.peerOf = derive.NewQuery(g, "envoy.peerauth", func(x, y *intent.PeerAuth) bool { return reflect.DeepEqual(x, y) }, b.peerAuthOf)

	b.outCluster = derive.NewQuery(g, "envoy.cluster", sameResource, b.clusterFor)
	b.outEnds = derive.NewQuery(g, "envoy.endpoints", sameResource, b.endpointsFor)
	b.outNames = derive.NewQuery(g, "envoy.listener.names", slices.Equal[[]string], b.outboundNames)
	b.outListen = derive.NewQuery(g, "envoy.listener", sameResource, b.outboundFor)
	b.portPersonal = derive.NewQuery(g, "envoy.listener.personal", same[bool], b.isPortPersonal)
	b.outRoute = derive.NewQuery(g, "envoy.routes", sameResource, b.routesFor)
	b.hosts = derive.NewQuery(g, "envoy.routes.hosts", sameHosts, b.listHosts)
	b.outHost = derive.NewQuery(g, "envoy.host", route.Equal, b.hostFor)
	b.hostPersonal = derive.NewQuery(g, "envoy.host.personal", same[bool], b.isHostPersonal)
	b.edgeHost = derive.NewQuery(g, "envoy.host.edge", route.Equal, b.edgeHostFor)
	b.tables = derive.NewQuery(g, "envoy.names", sameResource, b.tableFor)

	b.kinds = []Kind{
		b.kind(g, TypeCluster, b.clusterNames, b.clusterNamed),
		b.kind(g, TypeEndpoint, nil, b.endpointsNamed),
		b.kind(g, TypeListener, b.listenerNames, b.listenerNamed),
		b.kind(g, TypeRoute, nil, b.routesNamed),
		b.kind(g, TypeNames, b.tableNames, b.nameTable),
		b.kind(g, TypeAddress, nil, b.address),
	}
	return b
}

// Kinds lists the types in the order in which they must be pushed.
func (b *Backend) Kinds() []Kind { return b.kinds }

func (b *Backend) kind(g *derive.Graph, typeURL string, names func(*derive.Context, sight.Client) []string, get func(*derive.Context, Named) *xds.Resource) Kind {
	short := typeURL[len("type.googleapis.com/"):]
	k := Kind{TypeURL: typeURL, Get: derive.NewQuery(g, "resource "+short, sameResource, func(c *derive.Context, n Named) *xds.Resource {
		n.Client = b.placed(c, n.Client)
		return get(c, n)
	})}
	if names != nil {
		k.Names = derive.NewQuery(g, "names "+short, slices.Equal[[]string], func(c *derive.Context, cl sight.Client) []string {
			return names(c, b.placed(c, cl))
		})
	}
	return k
}

// placed is the client where its workload is said to be, if it does not say so itself.
func (b *Backend) placed(c *derive.Context, cl sight.Client) sight.Client {
	if cl.Locality.IsZero() {
		if w := b.Facts.Workload.Get(c, b.workloadKey(c, cl)); w != nil {
			cl.Locality = w.Locality
		}
	}
	return cl
}

func sameResource(a, b *xds.Resource) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return a.Name == b.Name && slices.Equal(a.Aliases, b.Aliases) && string(a.Body.GetValue()) == string(b.Body.GetValue())
}

func same[T comparable](a, b T) bool { return a == b }

// resource packs m, with a version that follows from its contents.
func (b *Backend) resource(name string, m proto.Message) *xds.Resource {
	return packed(name, emit.Any(m))
}

func packed(name string, body *anypb.Any) *xds.Resource {
	return &xds.Resource{Name: name, Version: strconv.FormatUint(xxhash.Sum64(body.Value), 16), Body: body}
}
