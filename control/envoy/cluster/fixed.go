// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

const options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// forever is the longest duration that Envoy's clocks hold: nothing is ever cleaned up.
const forever = 9223372035

// New begins a cluster, of a type that SetType sets.
func New(name string, s *intent.Settings) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: name + ";", ConnectTimeout: durationpb.New(s.ConnectTimeout)}
}

// SetType sets how endpoints are found.
func SetType(m *clusterv3.Cluster, t clusterv3.Cluster_DiscoveryType) {
	m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: t}
}

// BlackHole is where connections go that may go nowhere.
func BlackHole(s *intent.Settings) *clusterv3.Cluster {
	m := New(mesh.ClusterBlackHole, s)
	SetType(m, clusterv3.Cluster_STATIC)
	return m
}

// Original goes wherever the client wanted to.
func Original(name string, s *intent.Settings) *clusterv3.Cluster {
	m := New(name, s)
	SetType(m, clusterv3.Cluster_ORIGINAL_DST)
	m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	m.CircuitBreakers = NoLimits()
	return m
}

// Passthrough is for destinations that the mesh does not know.
func Passthrough(s *intent.Settings) *clusterv3.Cluster {
	m := Original(mesh.ClusterPassthrough, s)
	m.TypedExtensionProtocolOptions = asClient(5 * time.Minute)
	return m
}

// InboundPassthrough is for ports of the workload that no service names. The connection comes from source, so that it
// is not captured again.
func InboundPassthrough(s *intent.Settings, source string) *clusterv3.Cluster {
	m := Original(mesh.ClusterInboundPassthrough, s)
	m.TypedExtensionProtocolOptions = asClient(0)
	BindFrom(m, source)
	return m
}

// BindFrom makes connections come from an address of this machine.
func BindFrom(m *clusterv3.Cluster, addr string) {
	m.UpstreamBindConfig = &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{}}}
}

// KeepHosts keeps addresses once dialled, and their connections with them.
func KeepHosts(m *clusterv3.Cluster) { m.CleanupInterval = &durationpb.Duration{Seconds: forever} }

// Fix gives a cluster one endpoint.
func Fix(m *clusterv3.Cluster, a *corev3.Address) {
	SetType(m, clusterv3.Cluster_STATIC)
	m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	m.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: m.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}}}},
	}}}
}

// NoLimits takes away Envoy's default limits.
func NoLimits() *clusterv3.CircuitBreakers {
	most := func() *wrapperspb.UInt32Value { return wrapperspb.UInt32(math.MaxUint32) }
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: most(), MaxPendingRequests: most(), MaxRequests: most(), MaxRetries: most(),
	}}}
}

// asClient speaks to the endpoint what the client spoke.
func asClient(idle time.Duration) map[string]*anypb.Any {
	o := &httpv3.HttpProtocolOptions{UpstreamProtocolOptions: likeClient(&corev3.Http2ProtocolOptions{})}
	if idle > 0 {
		o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(idle)}
	}
	return map[string]*anypb.Any{options: emit.Any(o)}
}

func likeClient(http2 *corev3.Http2ProtocolOptions) *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig {
	return &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: http2,
	}}
}
