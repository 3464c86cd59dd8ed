// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"math"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Metadata namespaces that the data plane reads.
const (
	metaIstio   = "istio"
	metaSocket  = "envoy.transport_socket_match"
	metaMeltemi = "meltemi.io"
)

// A clusterKey asks for an outbound cluster as a client sees it.
type clusterKey struct {
	View
	Name mesh.ClusterName
}

// clusterNames lists the clusters of a client that asks for all: fixed ones,
// then a cluster for each port and subset of each service it sees.
func (b *Backend) clusterNames(c *derive.Context, cl Client) []string {
	names := []string{mesh.ClusterBlackHole}
	if !cl.Traits.Router {
		names = append(names, mesh.ClusterPassthrough, mesh.ClusterInboundPassthrough)
		for _, p := range b.inboundPorts(c, cl) {
			names = append(names, inboundCluster(p.Target))
		}
	}
	if !cl.Traits.OnDemand {
		for _, key := range b.allVisible(c, cl.View) {
			names = append(names, b.namesOf(c, cl.View, key)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// allVisible lists the services that v sees behind any of its egress listeners.
func (b *Backend) allVisible(c *derive.Context, v View) []registry.ServiceKey {
	if v.Traits.Router {
		return b.facts.Visible.Get(c, v.namespace())
	}
	s := b.wishes.Sidecar.Get(c, v.Subject)
	var all []registry.ServiceKey
	for i := range s.Egress {
		all = append(all, b.wishes.Visible.Get(c, intent.Scope{Namespace: v.namespace(), Sidecar: s.Object, Egress: i})...)
	}
	slices.SortFunc(all, registry.ServiceKey.Compare)
	return slices.Compact(all)
}

func (b *Backend) namesOf(c *derive.Context, v View, key registry.ServiceKey) []string {
	s := b.facts.Service.Get(c, key)
	if s == nil || s.Resolution == registry.Alias || s.Resolution == registry.DynamicDNS {
		return nil
	}
	subsets := []string{""}
	if rule := b.wishes.Rules.Get(c, intent.RuleFor{Client: v.namespace(), Service: key}).For(v.Subject.Labels()); rule != nil {
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

// cluster is one cluster by name.
func (b *Backend) cluster(c *derive.Context, n Named) *xds.Resource {
	var m *clusterv3.Cluster
	switch n.Name {
	case mesh.ClusterBlackHole:
		m = blackHole(b.settings(c))
	case mesh.ClusterPassthrough:
		m = passthrough(b.settings(c))
	case mesh.ClusterInboundPassthrough:
		m = inboundPassthrough(b.settings(c), n.Client.Traits)
	default:
		name, err := mesh.ParseClusterName(n.Name)
		if err != nil {
			return nil
		}
		if name.Direction == mesh.Inbound {
			m = b.inboundClusterFor(c, n.Client, name.Port)
		} else if name.Direction == mesh.Outbound {
			m = b.outCluster.Get(c, clusterKey{n.Client.View, name})
		}
	}
	if m == nil {
		return nil
	}
	return resource(n.Name, m)
}

func (b *Backend) clusterFor(c *derive.Context, k clusterKey) *clusterv3.Cluster {
	key := b.visible(c, k.View, k.Name.Host, k.Name.Port)
	s := b.facts.Service.Get(c, key)
	if s == nil || s.Host != k.Name.Host {
		return nil
	}
	port, ok := s.Port(k.Name.Port)
	if !ok || port.Protocol == mesh.UDP {
		return nil
	}
	policy := b.policies.Get(c, policyKey{k.View.Subject, key, k.Name.Port, k.Name.Subset})
	if policy.Missing {
		return nil
	}
	settings := b.settings(c)
	name := k.Name.String()
	m := &clusterv3.Cluster{
		Name: name, AltStatName: name + ";",
		ConnectTimeout:  durationpb.New(settings.ConnectTimeout),
		CircuitBreakers: noLimits(),
		CommonLbConfig:  &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
		LbPolicy:        clusterv3.Cluster_LEAST_REQUEST,
		Metadata:        clusterMetadata(s, k.Name.Subset, policy),
		DnsLookupFamily: clusterv3.Cluster_V4_ONLY,
	}
	if k.View.Traits.IPv6 {
		m.DnsLookupFamily = clusterv3.Cluster_V6_ONLY
	}
	b.discovery(c, m, k, s, settings)
	h2 := applyProtocol(m, port.Protocol, policy.Pool, settings)
	applyPool(m, policy.ClusterPolicy, settings)
	applyBalancer(m, policy.LoadBalancer)
	applyOutliers(m, policy.Outliers)
	b.secure(c, m, k, s, port, policy, settings, h2)
	return m
}

// discovery sets how the cluster finds its endpoints.
func (b *Backend) discovery(c *derive.Context, m *clusterv3.Cluster, k clusterKey, s *registry.Service, settings *intent.Settings) {
	setType := func(t clusterv3.Cluster_DiscoveryType) { m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: t} }
	switch {
	case s.Resolution == registry.DNS || s.Resolution == registry.DNSRoundRobin:
		setType(clusterv3.Cluster_STRICT_DNS)
		if s.Resolution == registry.DNSRoundRobin {
			setType(clusterv3.Cluster_LOGICAL_DNS)
		}
		m.DnsRefreshRate = durationpb.New(settings.DNSRefresh)
		m.RespectDnsTtl = true
		m.LoadAssignment = b.assignment(c, k)
	case s.Resolution == registry.OriginalDst && !k.View.Traits.Router && !k.View.Traits.NoCapture && k.View.Traits.HTTPProxyPort == 0:
		setType(clusterv3.Cluster_ORIGINAL_DST)
		m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	default:
		setType(clusterv3.Cluster_EDS)
		m.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{ServiceName: m.Name, EdsConfig: ads()}
	}
}

func noLimits() *clusterv3.CircuitBreakers {
	most := func() *wrapperspb.UInt32Value { return wrapperspb.UInt32(math.MaxUint32) }
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: most(), MaxPendingRequests: most(), MaxRequests: most(), MaxRetries: most(),
	}}}
}

// clusterMetadata names the service for telemetry, and the objects that had a
// part in the cluster for whoever asks why it is as it is.
func clusterMetadata(s *registry.Service, subset string, p *clusterPolicy) *corev3.Metadata {
	istio := &structpb.Struct{Fields: map[string]*structpb.Value{
		"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{
			structpb.NewStructValue(stringStruct(map[string]string{"host": string(s.Host), "name": s.Name, "namespace": string(s.Namespace)})),
		}}),
	}}
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
	md := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metaIstio: istio}}
	if len(p.Origins) > 0 {
		istio.Fields["config"] = structpb.NewStringValue(configPath(p.Origins[0].Object))
	}
	md.FilterMetadata[metaMeltemi] = provenance(append(slices.Clone(p.Origins), source.Origin{Object: s.Object}))
	return md
}

// applyProtocol chooses the HTTP version; h2 says that it is always HTTP/2.
func applyProtocol(m *clusterv3.Cluster, p mesh.Protocol, pool *intent.ConnectionPool, settings *intent.Settings) (h2 bool) {
	if p == mesh.TCP || p == mesh.TLS || p == mesh.HTTPS || p == mesh.Mongo || p == mesh.MySQL || p == mesh.Redis {
		return false
	}
	upgrade := settings.H2Upgrade
	client := false
	opt := &httpv3.HttpProtocolOptions{}
	http2 := &corev3.Http2ProtocolOptions{}
	if pool != nil {
		switch pool.H2Upgrade {
		case intent.H2Always:
			upgrade = true
		case intent.H2Never:
			upgrade = false
		}
		client = pool.ClientProtocol
		common := &corev3.HttpProtocolOptions{}
		idle := pool.HTTPIdle
		if idle == nil {
			idle = pool.TCPIdle
		}
		if idle != nil {
			common.IdleTimeout = durationpb.New(*idle)
		}
		if pool.MaxPerConnection > 0 {
			common.MaxRequestsPerConnection = wrapperspb.UInt32(uint32(pool.MaxPerConnection))
		}
		if pool.MaxDuration > 0 {
			common.MaxConnectionDuration = durationpb.New(pool.MaxDuration)
		}
		opt.CommonHttpProtocolOptions = common
		if pool.MaxStreams > 0 {
			http2.MaxConcurrentStreams = wrapperspb.UInt32(uint32(pool.MaxStreams))
		}
		if pool.PingInterval > 0 {
			http2.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: durationpb.New(pool.PingInterval), Timeout: durationpb.New(max(pool.PingTimeout, time.Second))}
		}
	}
	h2 = p == mesh.HTTP2 || p == mesh.GRPC || p == mesh.GRPCWeb || upgrade && p == mesh.HTTP
	switch {
	case client || p == mesh.Unset && !h2:
		opt.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: http2,
		}}
	case h2:
		opt.UpstreamProtocolOptions = explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2},
		})
	case opt.CommonHttpProtocolOptions != nil:
		opt.UpstreamProtocolOptions = explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		})
	default:
		return false
	}
	m.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: pack(opt)}
	return h2 && !client
}

func explicit(c *httpv3.HttpProtocolOptions_ExplicitHttpConfig) *httpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c}
}

// secure sets the transport: what the rule says, else mutual TLS towards
// endpoints that are known to speak it.
func (b *Backend) secure(c *derive.Context, m *clusterv3.Cluster, k clusterKey, s *registry.Service, port registry.Port, p *clusterPolicy, settings *intent.Settings, h2 bool) {
	t := p.TLS
	sni := k.Name.SNI()
	alpn := alpnMeshHTTP1
	switch {
	case port.Protocol == mesh.TCP || port.Protocol == mesh.TLS || port.Protocol == mesh.HTTPS || port.Protocol == mesh.Unset ||
		port.Protocol == mesh.Mongo || port.Protocol == mesh.MySQL || port.Protocol == mesh.Redis:
		alpn = alpnMeshTCP // an HTTP filter that knows better overrides it per request
	case h2:
		alpn = alpnMeshHTTP2
	}
	switch {
	case t == nil:
		if !settings.AutoMTLS || s.External || m.GetType() == clusterv3.Cluster_ORIGINAL_DST {
			return
		}
		names := append(slices.Clone(s.SubjectAltNames), b.identities.Get(c, registry.PortKey{Service: s.ServiceKey, Port: port.Number})...)
		m.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
			{Name: "tlsMode-istio", Match: stringStruct(map[string]string{"tlsMode": "istio"}), TransportSocket: meshClient(names, sni, alpn)},
			{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: socketPlain()},
		}
	case t.Mode == intent.TLSMesh:
		names := t.SubjectAltNames
		if len(names) == 0 {
			names = append(slices.Clone(s.SubjectAltNames), b.identities.Get(c, registry.PortKey{Service: s.ServiceKey, Port: port.Number})...)
		}
		if t.SNI != "" {
			sni = t.SNI
		}
		m.TransportSocket = meshClient(names, sni, alpn)
	case t.Mode == intent.TLSSimple, t.Mode == intent.TLSMutual:
		m.TransportSocket = ownClient(t, h2)
	}
}

// identitiesOf lists who may answer for a service port.
func (b *Backend) identitiesOf(c *derive.Context, k registry.PortKey) []string {
	td := b.settings(c).TrustDomain
	var all []string
	for _, e := range b.facts.Endpoints.Get(c, k).List {
		if e.MTLS {
			id := e.Identity
			id.TrustDomain = td
			all = append(all, id.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func blackHole(s *intent.Settings) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: mesh.ClusterBlackHole, AltStatName: mesh.ClusterBlackHole + ";", ConnectTimeout: durationpb.New(s.ConnectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
	}
}

func original(name string, s *intent.Settings) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, AltStatName: name + ";", ConnectTimeout: durationpb.New(s.ConnectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		CircuitBreakers:      noLimits(),
	}
}

func sameProtocol(idle time.Duration) map[string]*anypb.Any {
	o := &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}},
	}
	if idle > 0 {
		o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(idle)}
	}
	return map[string]*anypb.Any{httpOptions: pack(o)}
}

func passthrough(s *intent.Settings) *clusterv3.Cluster {
	m := original(mesh.ClusterPassthrough, s)
	m.TypedExtensionProtocolOptions = sameProtocol(5 * time.Minute)
	return m
}

func inboundPassthrough(s *intent.Settings, t Traits) *clusterv3.Cluster {
	m := original(mesh.ClusterInboundPassthrough, s)
	m.TypedExtensionProtocolOptions = sameProtocol(0)
	m.UpstreamBindConfig = bindFrom(t.passthroughSource())
	return m
}

func bindFrom(addr string) *corev3.BindConfig {
	return &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0}}}
}

func socketAddress(addr string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func staticAssignment(cluster string, a *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}}}},
	}}}
}
