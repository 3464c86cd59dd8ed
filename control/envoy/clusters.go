// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// clusterNames lists the clusters of a client that asks for all: fixed ones,
// then a cluster for each port and subset of each service it sees.
func (b *Backend) clusterNames(c *derive.Context, cl sight.Client) []string {
	names := []string{mesh.ClusterBlackHole}
	if !cl.Traits.Router {
		names = append(names, mesh.ClusterPassthrough, mesh.ClusterInboundPassthrough)
		for _, p := range b.inboundPorts(c, cl) {
			names = append(names, inboundCluster(p.Target))
		}
	}
	if !cl.Traits.OnDemand {
		for _, key := range b.Services.Get(c, b.Of(c, cl.View)) {
			names = append(names, b.clustersOf(c, cl.View, key)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *Backend) clustersOf(c *derive.Context, v sight.View, key registry.ServiceKey) []string {
	s := b.Facts.Service.Get(c, key)
	if s == nil || s.Resolution == registry.Alias || s.Resolution == registry.DynamicDNS {
		return nil
	}
	subsets := []string{""}
	if rule := b.Wishes.Rules.Get(c, intent.RuleFor{Client: v.Namespace(), Service: key}).For(v.Subject.Labels()); rule != nil {
		for i := range rule.Subsets {
			subsets = append(subsets, rule.Subsets[i].Name)
		}
	}
	var names []string
	for _, p := range s.Ports {
		if p.Protocol == mesh.UDP {
			continue
		}
		for _, subset := range subsets {
			names = append(names, mesh.ClusterName{Direction: mesh.Outbound, Port: p.Number, Subset: subset, Host: key.Host}.String())
		}
	}
	return names
}

// clusterNamed is one cluster by name.
func (b *Backend) clusterNamed(c *derive.Context, n Named) *xds.Resource {
	switch n.Name {
	case mesh.ClusterBlackHole:
		return b.resource(n.Name, cluster.BlackHole(b.Settings(c)))
	case mesh.ClusterPassthrough:
		return b.resource(n.Name, cluster.Passthrough(b.Settings(c)))
	case mesh.ClusterInboundPassthrough:
		return b.resource(n.Name, cluster.InboundPassthrough(b.Settings(c), n.Client.Traits.PassthroughSource()))
	}
	name, err := mesh.ParseClusterName(n.Name)
	if err != nil {
		return nil
	}
	switch name.Direction {
	case mesh.Inbound:
		return b.inboundClusterFor(c, n.Client, name.Port)
	case mesh.Outbound:
		return b.outCluster.Get(c, b.clusterKey(c, n.Client.View, name))
	}
	return nil
}

// A clusterKey is all that an outbound cluster depends on.
type clusterKey struct {
	endpointKey // where endpoints are part of the cluster; else of it only what rules ask for
	IPv6        bool
	// Original: connections keep the address that the client wanted.
	Original     bool
	PeerExchange bool
	Own          bool // one of our proxies
}

func (b *Backend) clusterKey(c *derive.Context, v sight.View, name mesh.ClusterName) clusterKey {
	k := clusterKey{
		endpointKey: b.endpointKey(c, v, name), IPv6: v.Traits.IPv6, PeerExchange: v.Traits.PeerExchange, Own: v.Traits.Own,
		Original: !v.Traits.Router && !v.Traits.NoCapture && v.Traits.HTTPProxyPort == 0,
	}
	key := b.Knows(c, k.Sight, name.Host)
	if s := b.Facts.Service.Get(c, key); s == nil || !resolves(s) {
		k.Client, k.Locality = b.Asked(c, v.Subject, key), mesh.Locality{}
	}
	return k
}

// resolves says whether proxies find endpoints by DNS.
func resolves(s *registry.Service) bool {
	return s.Resolution == registry.DNS || s.Resolution == registry.DNSRoundRobin
}

func (b *Backend) clusterFor(c *derive.Context, k clusterKey) *xds.Resource {
	key := b.Knows(c, k.Sight, k.Name.Host)
	s := b.Facts.Service.Get(c, key)
	if s == nil || s.Host != k.Name.Host || s.Resolution == registry.Alias || s.Resolution == registry.DynamicDNS {
		return nil
	}
	port, ok := s.Port(k.Name.Port)
	if !ok || port.Protocol == mesh.UDP {
		return nil
	}
	policy := b.Policies.Get(c, sight.PolicyKey{Client: b.Asked(c, k.Client, key), Service: key, Port: k.Name.Port, Subset: k.Name.Subset})
	if policy.Missing {
		return nil
	}
	settings := b.Settings(c)
	m := cluster.New(k.Name.String(), settings)
	m.CircuitBreakers = cluster.NoLimits()
	m.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}}
	m.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	m.Metadata = clusterMetadata(s, k.Name.Subset, policy)
	b.discovery(c, m, k, s, policy)
	cluster.SetPool(m, policy.ClusterPolicy, settings)
	cluster.SetBalancer(m, policy.LoadBalancer)
	if b.nearness(c, s, policy).Weighs() {
		cluster.WeighLocalities(m)
	}
	cluster.SetOutliers(m, policy.Outliers)
	version := cluster.VersionOf(port.Protocol, policy.Pool, settings.H2Upgrade)
	verifies := b.secure(c, m, k, s, port, policy, version)
	if cluster.CarriesHTTP(port.Protocol) || verifies.NameBySNI {
		cluster.SetHTTP(m, version, cluster.HTTP{Pool: policy.Pool, Outliers: policy.Outliers, Verifies: verifies})
	}
	return b.resource(m.Name, m)
}

// discovery sets how the cluster finds its endpoints.
func (b *Backend) discovery(c *derive.Context, m *clusterv3.Cluster, k clusterKey, s *registry.Service, p *sight.Policy) {
	settings := b.Settings(c)
	switch {
	case resolves(s):
		list := b.endpointList(c, s, k.Name.Port, p, true)
		m.LoadAssignment = assignment(m.Name, cluster.Client{Locality: k.Locality, Labels: k.Client.Labels()}, b.nearness(c, s, p), list)
		cluster.SetType(m, clusterv3.Cluster_STRICT_DNS)
		if s.Resolution == registry.DNSRoundRobin && len(list) == 1 { // which is all that Envoy can do so
			cluster.SetType(m, clusterv3.Cluster_LOGICAL_DNS)
		}
		m.DnsRefreshRate = durationpb.New(settings.DNSRefresh)
		m.RespectDnsTtl = true
		m.DnsLookupFamily = clusterv3.Cluster_V4_ONLY
		if k.IPv6 {
			m.DnsLookupFamily = clusterv3.Cluster_V6_ONLY
		}
	case s.Resolution == registry.OriginalDst && k.Original:
		cluster.SetType(m, clusterv3.Cluster_ORIGINAL_DST)
		m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	default:
		cluster.SetType(m, clusterv3.Cluster_EDS)
		m.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{ServiceName: m.Name, EdsConfig: emit.ADS()}
	}
}

// clusterMetadata names the service for telemetry, and the objects that had a
// part in the cluster for whoever asks why it is as it is.
func clusterMetadata(s *registry.Service, subset string, p *sight.Policy) *corev3.Metadata {
	istio := &structpb.Struct{Fields: map[string]*structpb.Value{"services": emit.Services(s)}}
	if subset != "" {
		istio.Fields["subset"] = structpb.NewStringValue(subset)
	}
	if s.External {
		istio.Fields["external"] = structpb.NewBoolValue(true)
		istio.Fields["disable_mx"] = structpb.NewBoolValue(true)
	}
	if p.TLS != nil && (p.TLS.Mode == intent.TLSSimple || p.TLS.Mode == intent.TLSMutual) {
		istio.Fields["alpn_override"] = structpb.NewStringValue("false")
	}
	if len(p.Origins) > 0 {
		istio.Fields["config"] = structpb.NewStringValue(emit.ConfigPath(p.Origins[0].Object))
	}
	md := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{emit.Istio: istio}}
	emit.AddFrom(md, append(slices.Clone(p.Origins), source.Origin{Object: s.Object})...)
	return md
}
