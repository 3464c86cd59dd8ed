// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/peerexchange"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// Envoy's defaults.
const (
	connectTimeout   = 5 * time.Second
	upstreamIdle     = time.Hour
	dnsRefresh       = 5 * time.Second
	defaultBreaker   = 1024
	defaultRetries   = 3
	defaultPanic     = 50
	defaultRingMin   = 1024
	defaultRingMax   = 8 << 20
	defaultMaglev    = 65537
	maxMaglev        = 5000011
	defaultChoices   = 2
	defaultEjectPct  = 10
	defaultEjectBase = 30 * time.Second
	defaultEjectMax  = 300 * time.Second
	sweepInterval    = 10 * time.Second
)

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Clusters reads clusters.
type Clusters struct {
	Transports Transports
	// Preamble is what istio-peer-exchange says of us, with labels of these names.
	Preamble func(labels []string) []byte
}

// A Cluster is what a Cluster resource became.
type Cluster struct {
	Spec *upstream.Spec
	// EDS is true if endpoints have to be subscribed to, for Timeout at most (0:
	// forever) before the cluster is used without.
	EDS     bool
	Timeout time.Duration
	Wants   []secrets.Want
}

// Cluster reads m, whose bytes have the given hash.
func (d *Clusters) Cluster(m *clusterv3.Cluster, hash uint64) (*Cluster, error) {
	s := &upstream.Spec{
		Name: m.GetName(), StatName: strings.TrimSuffix(m.GetAltStatName(), ";"), Hash: hash, Source: Source(m.GetMetadata()),
		ConnectTimeout: connectTimeout, IdleTimeout: upstreamIdle, DNSRefresh: dnsRefresh,
	}
	if s.StatName == "" {
		s.StatName = s.Name
	}
	if t := m.GetConnectTimeout(); t != nil {
		s.ConnectTimeout = t.AsDuration()
	}
	out := &Cluster{Spec: s}
	facts(s, m.GetMetadata())
	for _, step := range [...]func(*Cluster, *clusterv3.Cluster) error{
		discovery, balancing, commonLB, breakers, outlier, connections, protocol, d.upstreamFilters,
	} {
		if err := step(out, m); err != nil {
			return nil, err
		}
	}
	if err := d.transports(out, m); err != nil {
		return nil, err
	}
	s.ConnHash = connHash(m)
	return out, nil
}

// facts are what telemetry and metadata exchange want to know.
func facts(s *upstream.Spec, md *corev3.Metadata) {
	f := md.GetFilterMetadata()["istio"].GetFields()
	if list := f["services"].GetListValue().GetValues(); len(list) > 0 {
		get := func(key string) string { return list[0].GetStructValue().GetFields()[key].GetStringValue() }
		s.Service = upstream.ServiceFact{Host: get("host"), Name: get("name"), Namespace: get("namespace")}
	}
	s.External = f["external"].GetBoolValue()
	s.NoMX = f["disable_mx"].GetBoolValue()
	s.NoALPN = f["alpn_override"].GetStringValue() == "false"
}

func discovery(c *Cluster, m *clusterv3.Cluster) error {
	s := c.Spec
	kind := m.GetType()
	la := m.GetLoadAssignment()
	switch kind {
	case clusterv3.Cluster_EDS:
		s.Discovery, c.EDS = upstream.EDS, true
		s.ServiceName = m.GetEdsClusterConfig().GetServiceName()
		if s.ServiceName == "" {
			s.ServiceName = s.Name
		}
		cfg := m.GetEdsClusterConfig().GetEdsConfig()
		if cfg.GetAds() == nil {
			return errors.New("eds_cluster_config.eds_config: only ads is supported")
		}
		c.Timeout = 15 * time.Second
		if t := cfg.GetInitialFetchTimeout(); t != nil {
			c.Timeout = t.AsDuration()
		}
	case clusterv3.Cluster_STATIC:
		s.Discovery = upstream.Static
	case clusterv3.Cluster_STRICT_DNS:
		s.Discovery = upstream.StrictDNS
	case clusterv3.Cluster_LOGICAL_DNS:
		s.Discovery = upstream.LogicalDNS
		n := 0
		for _, l := range la.GetEndpoints() {
			n += len(l.GetLbEndpoints())
		}
		if n != 1 {
			return fmt.Errorf("a LOGICAL_DNS cluster has exactly one endpoint, not %d", n)
		}
	case clusterv3.Cluster_ORIGINAL_DST:
		s.Discovery = upstream.OriginalDst
		if len(la.GetEndpoints()) > 0 {
			return errors.New("an ORIGINAL_DST cluster has no load_assignment")
		}
		port := m.GetOriginalDstLbConfig().GetUpstreamPortOverride().GetValue()
		if port > math.MaxUint16 {
			return fmt.Errorf("original_dst_lb_config.upstream_port_override: %d is no port", port)
		}
		s.PortOverride = uint16(port)
	default:
		return fmt.Errorf("type %s is not supported", kind)
	}
	if r := m.GetDnsRefreshRate(); r != nil {
		s.DNSRefresh = r.AsDuration()
	}
	s.DNSFamily = map[clusterv3.Cluster_DnsLookupFamily]upstream.Family{
		clusterv3.Cluster_V4_ONLY: upstream.OnlyIPv4, clusterv3.Cluster_V6_ONLY: upstream.OnlyIPv6, clusterv3.Cluster_V4_PREFERRED: upstream.PreferIPv4,
	}[m.GetDnsLookupFamily()]
	if la == nil || c.EDS {
		return nil
	}
	var err error
	if s.Endpoints, err = endpoints(la, s.Discovery == upstream.StrictDNS || s.Discovery == upstream.LogicalDNS); err != nil {
		return fmt.Errorf("load_assignment.%w", err)
	}
	return nil
}

func balancing(c *Cluster, m *clusterv3.Cluster) error {
	b := &c.Spec.Balance
	b.ChoiceCount, b.RingMin, b.RingMax, b.MaglevSize = defaultChoices, defaultRingMin, defaultRingMax, defaultMaglev
	original := c.Spec.Discovery == upstream.OriginalDst
	if provided := m.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED; provided != original {
		return fmt.Errorf("lb_policy %s does not go with type %s", m.GetLbPolicy(), m.GetType())
	}
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		b.Policy = balance.RoundRobin
		return slowStart(b, m.GetRoundRobinLbConfig().GetSlowStartConfig())
	case clusterv3.Cluster_LEAST_REQUEST:
		b.Policy = balance.LeastRequest
		if n := m.GetLeastRequestLbConfig().GetChoiceCount(); n != nil {
			b.ChoiceCount = n.GetValue()
		}
		return slowStart(b, m.GetLeastRequestLbConfig().GetSlowStartConfig())
	case clusterv3.Cluster_RANDOM:
		b.Policy = balance.Random
	case clusterv3.Cluster_RING_HASH:
		b.Policy = balance.RingHash
		cfg := m.GetRingHashLbConfig()
		if cfg.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH {
			return fmt.Errorf("ring_hash_lb_config.hash_function %s is not supported", cfg.GetHashFunction())
		}
		b.RingMin, b.RingMax = u64(cfg.GetMinimumRingSize(), b.RingMin), u64(cfg.GetMaximumRingSize(), b.RingMax)
		if b.RingMin > b.RingMax {
			return fmt.Errorf("ring_hash_lb_config: minimum_ring_size %d is above the maximum %d", b.RingMin, b.RingMax)
		}
	case clusterv3.Cluster_MAGLEV:
		b.Policy = balance.Maglev
		b.MaglevSize = u64(m.GetMaglevLbConfig().GetTableSize(), b.MaglevSize)
		if b.MaglevSize > maxMaglev || !prime(b.MaglevSize) {
			return fmt.Errorf("maglev_lb_config.table_size %d is no prime up to %d", b.MaglevSize, maxMaglev)
		}
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		b.Policy = balance.ClusterProvided
	default:
		return fmt.Errorf("lb_policy %s is not supported", m.GetLbPolicy())
	}
	return nil
}

func slowStart(b *balance.Config, m *clusterv3.Cluster_SlowStartConfig) error {
	if m.GetSlowStartWindow().AsDuration() <= 0 {
		return nil
	}
	b.SlowStart = &balance.SlowStart{Window: m.GetSlowStartWindow().AsDuration(), Aggression: 1, MinPercent: 10}
	if a := m.GetAggression(); a != nil {
		if b.SlowStart.Aggression = a.GetDefaultValue(); b.SlowStart.Aggression <= 0 {
			return fmt.Errorf("slow_start_config.aggression %v is not positive", b.SlowStart.Aggression)
		}
	}
	if p := m.GetMinWeightPercent(); p != nil {
		b.SlowStart.MinPercent = p.GetValue()
	}
	return nil
}

func commonLB(c *Cluster, m *clusterv3.Cluster) error {
	b := &c.Spec.Balance
	b.PanicThreshold = defaultPanic
	cfg := m.GetCommonLbConfig()
	if p := cfg.GetHealthyPanicThreshold(); p != nil {
		b.PanicThreshold = uint32(math.Round(p.GetValue()))
	}
	b.LocalityWeighted = cfg.GetLocalityWeightedLbConfig() != nil
	return nil
}

func breakers(c *Cluster, m *clusterv3.Cluster) error {
	b := upstream.Breakers{MaxConnections: defaultBreaker, MaxPending: defaultBreaker, MaxRequests: defaultBreaker, MaxRetries: defaultRetries}
	for _, t := range m.GetCircuitBreakers().GetThresholds() {
		if t.GetPriority() != corev3.RoutingPriority_DEFAULT {
			continue // no route has another priority
		}
		b.MaxConnections, b.MaxPending = u32(t.GetMaxConnections(), b.MaxConnections), u32(t.GetMaxPendingRequests(), b.MaxPending)
		b.MaxRequests, b.MaxRetries = u32(t.GetMaxRequests(), b.MaxRequests), u32(t.GetMaxRetries(), b.MaxRetries)
		if r := t.GetRetryBudget(); r != nil {
			b.BudgetPercent, b.BudgetMin = 20, u32(r.GetMinRetryConcurrency(), defaultRetries)
			if p := r.GetBudgetPercent(); p != nil {
				b.BudgetPercent = p.GetValue()
			}
		}
	}
	c.Spec.Breakers = b
	return nil
}

func outlier(c *Cluster, m *clusterv3.Cluster) error {
	o := m.GetOutlierDetection()
	if o == nil {
		return nil
	}
	// Without enforcing_success_rate Envoy would also compare success rates. Ejecting
	// for failures in a row alone is what every control plane of Istio's kind asks
	// for, so only who asks for more is refused.
	for _, e := range [...]struct {
		field   string
		percent *wrapperspb.UInt32Value
	}{
		{"enforcing_success_rate", o.GetEnforcingSuccessRate()}, {"enforcing_local_origin_success_rate", o.GetEnforcingLocalOriginSuccessRate()},
		{"enforcing_failure_percentage", o.GetEnforcingFailurePercentage()},
		{"enforcing_failure_percentage_local_origin", o.GetEnforcingFailurePercentageLocalOrigin()},
	} {
		if e.percent.GetValue() > 0 {
			return fmt.Errorf("outlier_detection.%s: only 0 is supported: endpoints are ejected for failures in a row alone", e.field)
		}
	}
	out := &upstream.Outlier{
		Consecutive5xx: u32(o.GetConsecutive_5Xx(), 5), EnforcingConsecutive5xx: u32(o.GetEnforcingConsecutive_5Xx(), 100),
		ConsecutiveGateway: u32(o.GetConsecutiveGatewayFailure(), 5), EnforcingConsecutiveGateway: u32(o.GetEnforcingConsecutiveGatewayFailure(), 0),
		SplitLocal:       o.GetSplitExternalLocalOriginErrors(),
		ConsecutiveLocal: u32(o.GetConsecutiveLocalOriginFailure(), 5), EnforcingConsecutiveLocal: u32(o.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		Interval: sweepInterval, BaseEjection: defaultEjectBase, MaxEjectionPercent: u32(o.GetMaxEjectionPercent(), defaultEjectPct),
	}
	if d := o.GetInterval(); d != nil {
		out.Interval = d.AsDuration()
	}
	if d := o.GetBaseEjectionTime(); d != nil {
		out.BaseEjection = d.AsDuration()
	}
	out.MaxEjection = max(defaultEjectMax, out.BaseEjection)
	if d := o.GetMaxEjectionTime(); d != nil {
		if out.MaxEjection = d.AsDuration(); out.MaxEjection < out.BaseEjection {
			return errors.New("outlier_detection: max_ejection_time is below base_ejection_time")
		}
	}
	c.Spec.Outlier = out
	return nil
}

func connections(c *Cluster, m *clusterv3.Cluster) error {
	if a := m.GetUpstreamBindConfig().GetSourceAddress(); a != nil {
		addr, err := netip.ParseAddr(a.GetAddress())
		if err != nil {
			return fmt.Errorf("upstream_bind_config.source_address: %w", err)
		}
		if a.GetPortValue() != 0 {
			return errors.New("upstream_bind_config.source_address: a port is not supported")
		}
		if !addr.IsUnspecified() {
			c.Spec.BindSource = addr
		}
	}
	if k := m.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		c.Spec.TCPKeepalive = &upstream.Keepalive{
			Probes: k.GetKeepaliveProbes().GetValue(),
			Time:   time.Duration(k.GetKeepaliveTime().GetValue()) * time.Second, Interval: time.Duration(k.GetKeepaliveInterval().GetValue()) * time.Second,
		}
	}
	return nil
}

// protocol reads which HTTP to speak.
func protocol(c *Cluster, m *clusterv3.Cluster) error {
	for name := range m.GetTypedExtensionProtocolOptions() {
		if name != httpOptions {
			return fmt.Errorf("typed_extension_protocol_options[%q] is not supported", name)
		}
	}
	c.Spec.MaxRequestsPerConn = m.GetMaxRequestsPerConnection().GetValue()
	a, ok := m.GetTypedExtensionProtocolOptions()[httpOptions]
	if !ok {
		return nil
	}
	var o httpv3.HttpProtocolOptions
	if err := strict.Unmarshal(a, &o); err != nil {
		return fmt.Errorf("typed_extension_protocol_options[%q]: %w", httpOptions, err)
	}
	var http2 *corev3.Http2ProtocolOptions
	switch u := o.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		if http2 = u.ExplicitHttpConfig.GetHttp2ProtocolOptions(); http2 != nil {
			c.Spec.Protocol = upstream.HTTP2
		}
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		c.Spec.Protocol = upstream.SameAsClient
		http2 = u.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions()
	}
	c.Spec.MaxConcurrentStreams = http2.GetMaxConcurrentStreams().GetValue()
	keepalive := http2.GetConnectionKeepalive()
	c.Spec.PingAfter, c.Spec.PingTimeout = keepalive.GetInterval().AsDuration(), keepalive.GetTimeout().AsDuration()
	common := o.GetCommonHttpProtocolOptions()
	if err := ofServersOnly(common); err != nil {
		return fmt.Errorf("typed_extension_protocol_options[%q].common_http_protocol_options.%w", httpOptions, err)
	}
	if t := common.GetIdleTimeout(); t != nil {
		c.Spec.IdleTimeout, c.Spec.KeepIdle = t.AsDuration(), true
	}
	c.Spec.MaxConnDuration = common.GetMaxConnectionDuration().AsDuration()
	c.Spec.MaxRequestsPerConn = u32(common.GetMaxRequestsPerConnection(), c.Spec.MaxRequestsPerConn)
	c.Spec.AutoSNI = o.GetUpstreamHttpProtocolOptions().GetAutoSni()
	return nil
}

// ofServersOnly refuses what is honoured for clients' connections, not for
// those to endpoints.
func ofServersOnly(m *corev3.HttpProtocolOptions) error {
	switch {
	case m.GetMaxStreamDuration() != nil:
		return errors.New("max_stream_duration is not supported in a cluster; set the route's")
	case m.GetMaxHeadersCount() != nil:
		return errors.New("max_headers_count is not supported in a cluster")
	case m.GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW:
		return errors.New("headers_with_underscores_action is not supported in a cluster")
	}
	return nil
}

// upstreamFilters reads the only one there is, Istio's metadata exchange.
func (d *Clusters) upstreamFilters(c *Cluster, m *clusterv3.Cluster) error {
	for i, f := range m.GetFilters() {
		name, object, err := strict.TypeOf(f.GetTypedConfig())
		if err != nil {
			return fmt.Errorf("filters[%d]: %w", i, err)
		}
		if name != TypePeerExchange {
			return fmt.Errorf("filters[%d] %q: %q is not supported", i, f.GetName(), name)
		}
		labels, err := PeerExchange(object)
		if err != nil {
			return fmt.Errorf("filters[%d] %q: %w", i, f.GetName(), err)
		}
		c.Spec.PeerExchange = d.Preamble(labels)
	}
	return nil
}

// TypePeerExchange is the configuration of Istio's metadata exchange for TCP.
const TypePeerExchange = "envoy.tcp.metadataexchange.config.MetadataExchange"

// PeerExchange reads it, and returns the names of labels to tell besides the usual ones. Whoever tells nothing stays
// unknown: nobody is looked up by address (enable_discovery).
func PeerExchange(object *structpb.Struct) (labels []string, err error) {
	if object == nil {
		return nil, errors.New("only a TypedStruct is understood")
	}
	o := strict.NewObject(object)
	if p := o.String("protocol"); p != peerexchange.ALPN {
		return nil, fmt.Errorf("protocol %q is not supported: it is %s", p, peerexchange.ALPN)
	}
	_ = o.Bool("enable_discovery", false)
	labels = o.Strings("additional_labels")
	return labels, o.Done()
}

func prime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func u32(v *wrapperspb.UInt32Value, missing uint32) uint32 {
	if v == nil {
		return missing
	}
	return v.GetValue()
}

func u64(v *wrapperspb.UInt64Value, missing uint64) uint64 {
	if v == nil {
		return missing
	}
	return v.GetValue()
}

// connHash is of what an open connection depends on.
func connHash(m *clusterv3.Cluster) uint64 {
	part := &clusterv3.Cluster{
		TransportSocket: m.GetTransportSocket(), TransportSocketMatches: m.GetTransportSocketMatches(),
		TypedExtensionProtocolOptions: m.GetTypedExtensionProtocolOptions(), UpstreamBindConfig: m.GetUpstreamBindConfig(),
		UpstreamConnectionOptions: m.GetUpstreamConnectionOptions(),
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(part)
	if err != nil {
		return 0 // not reached: the message came from the wire
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}
