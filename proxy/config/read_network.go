// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacnetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter/stock"
)

// The types of network filters, without the prefix of type URLs.
const (
	typeHCM         = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	typeTCPProxy    = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
	typeNetworkRBAC = "envoy.extensions.filters.network.rbac.v3.RBAC"
	typeStats       = "stats.PluginConfig"
	typeOnDemand    = "meltemi.io.OnDemand"
)

// networkFilters reads the filters of a chain: some that look on, then the one
// that takes the connection. After a filter OnDemand come two that take it, one
// for HTTP and one for everything else.
func (b *builder) networkFilters(c *FilterChain, list []*listenerv3.Filter) error {
	for i, f := range list {
		if err := b.networkFilter(c, i, f); err != nil {
			return fmt.Errorf("filters[%d] %q: %w", i, f.GetName(), err)
		}
	}
	if od := c.OnDemand; od != nil {
		if od.HTTP == nil || od.TCP == nil {
			return errors.New("filters: OnDemand needs an HTTP connection manager and a TCP proxy after it")
		}
		c.TCP = nil
		return nil
	}
	if c.HTTP == nil && c.TCP == nil {
		return errors.New("filters: the last one must be an HTTP connection manager or a TCP proxy")
	}
	return nil
}

func (b *builder) networkFilter(c *FilterChain, i int, f *listenerv3.Filter) error {
	if f.GetTypedConfig() == nil {
		return errors.New("typed_config is missing")
	}
	name, object, err := strict.TypeOf(f.GetTypedConfig())
	if err != nil {
		return err
	}
	if c.HTTP != nil || c.TCP != nil {
		return errors.New("nothing can come after the filter that takes the connection")
	}
	switch name {
	case typeOnDemand:
		if i != 0 {
			return errors.New("it must be the first")
		}
		c.OnDemand = &OnDemand{}
		return strict.NewObject(object).Done()
	case typeHCM:
		h, err := b.http(c, f.GetTypedConfig())
		if c.OnDemand != nil {
			if c.OnDemand.HTTP != nil {
				return errors.New("a second HTTP connection manager")
			}
			c.OnDemand.HTTP = h
		} else {
			c.HTTP = h
		}
		return err
	case typeTCPProxy:
		t, err := b.tcp(f.GetTypedConfig())
		if c.OnDemand != nil {
			c.OnDemand.TCP = t
		}
		c.TCP = t
		return err
	}
	nf, err := b.lookingOn(name, f.GetTypedConfig(), object)
	if err != nil {
		return err
	}
	nf.Name = f.GetName()
	c.Network = append(c.Network, nf)
	return nil
}

// lookingOn is the table of network filters that do not take the connection.
func (b *builder) lookingOn(name string, a *anypb.Any, object *structpb.Struct) (nf NetworkFilter, err error) {
	switch name {
	case typeNetworkRBAC:
		nf.RBAC, err = networkRBAC(a)
	case typeStats:
		nf.Stats, err = b.stats(a, object)
	case decode.TypePeerExchange:
		var labels []string
		if labels, err = decode.PeerExchange(object); err == nil {
			nf.PeerExchange = b.preamble(labels)
		}
	default:
		err = fmt.Errorf("type %q is not supported", name)
	}
	return nf, err
}

// preamble is what istio-peer-exchange says of us.
func (b *builder) preamble(labels []string) []byte { return b.cfg.Self.Telling(labels).Preamble() }

func networkRBAC(a *anypb.Any) (*NetworkRBAC, error) {
	var m rbacnetv3.RBAC
	if err := strict.Unmarshal(a, &m); err != nil {
		return nil, err
	}
	if m.GetEnforcementType() == rbacnetv3.RBAC_CONTINUOUS {
		return nil, errors.New("enforcement_type CONTINUOUS is not supported")
	}
	out := &NetworkRBAC{
		StatPrefix: strings.TrimSuffix(m.GetStatPrefix(), "."), ShadowPrefix: m.GetShadowRulesStatPrefix(),
	}
	var err error
	if out.Rules, err = decode.Rules(m.GetRules(), authz.Network); err != nil {
		return nil, fmt.Errorf("rules.%w", err)
	}
	if out.Shadow, err = decode.Rules(m.GetShadowRules(), authz.Network); err != nil {
		return nil, fmt.Errorf("shadow_rules.%w", err)
	}
	return out, nil
}

// tcpReporting is how often istio.stats counts the bytes of open connections
// unless told otherwise.
const tcpReporting = 5 * time.Second

// stats reads stats.PluginConfig, which comes as a TypedStruct.
func (b *builder) stats(a *anypb.Any, object *structpb.Struct) (*stock.Stats, error) {
	if object == nil && len(a.GetValue()) > 0 {
		return nil, errors.New("only a TypedStruct is understood")
	}
	o := strict.NewObject(object)
	cfg := stock.StatsConfig{NoHostFallback: o.Bool("disable_host_header_fallback", false)}
	switch r := o.String("reporter"); r {
	case "", "UNSPECIFIED":
	case "SERVER_GATEWAY":
		cfg.Reporter = stock.ReporterWaypoint
	default:
		return nil, fmt.Errorf("reporter %q is not known", r)
	}
	cfg.Interval = o.Duration("tcp_reporting_duration", tcpReporting)
	o.Each("metrics", func(m *strict.Object) error {
		ov, err := override(m)
		cfg.Overrides = append(cfg.Overrides, ov)
		return err
	})
	if err := o.Done(); err != nil {
		return nil, err
	}
	return stock.NewStats(cfg, b.cfg.Metrics), nil
}

func override(m *strict.Object) (stock.Override, error) {
	ov := stock.Override{Metric: m.String("name"), Drop: m.Bool("drop", false), Remove: m.Strings("tags_to_remove")}
	dims := m.Map("dimensions")
	for _, tag := range sortedKeys(dims) {
		v, err := stock.ParseAttribute(dims[tag])
		if err != nil {
			return ov, fmt.Errorf("dimensions[%q]: %w", tag, err)
		}
		ov.Set = append(ov.Set, stock.Dimension{Tag: tag, Value: v})
	}
	return ov, nil
}

// tcp reads a TcpProxy.
func (b *builder) tcp(a *anypb.Any) (*TCP, error) {
	var m tcpproxyv3.TcpProxy
	if err := strict.Unmarshal(a, &m); err != nil {
		return nil, err
	}
	t := &TCP{
		StatPrefix: strings.TrimSuffix(m.GetStatPrefix(), ";"), IdleTimeout: time.Hour, MaxAttempts: 1,
		MaxDuration:  m.GetMaxDownstreamConnectionDuration().AsDuration(),
		LogOnConnect: m.GetFlushAccessLogOnConnected(),
	}
	if d := m.GetIdleTimeout(); d != nil {
		t.IdleTimeout = d.AsDuration()
	}
	if n := m.GetMaxConnectAttempts(); n != nil {
		t.MaxAttempts = n.GetValue()
	}
	if o := m.GetAccessLogOptions(); o != nil {
		t.LogOnConnect = o.GetFlushAccessLogOnConnected()
	}
	for _, h := range m.GetHashPolicy() {
		if h.GetSourceIp() == nil {
			return nil, errors.New("hash_policy: only source_ip is supported")
		}
		t.HashSourceIP = true
	}
	if err := b.tcpClusters(t, &m); err != nil {
		return nil, err
	}
	var err error
	if t.AccessLogs, err = b.accessLogs(m.GetAccessLog()); err != nil {
		return nil, err
	}
	if m.GetTunnelingConfig() != nil {
		return nil, errors.New("tunneling_config is not supported")
	}
	return t, nil
}

func (b *builder) tcpClusters(t *TCP, m *tcpproxyv3.TcpProxy) error {
	add := func(name string, weight uint32) {
		t.Clusters = append(t.Clusters, Weighted{Cluster: name, Ref: b.cfg.Clusters.Ref(name), Weight: weight})
	}
	switch s := m.GetClusterSpecifier().(type) {
	case *tcpproxyv3.TcpProxy_Cluster:
		if s.Cluster == "" {
			return errors.New("cluster is empty")
		}
		add(s.Cluster, 0)
	case *tcpproxyv3.TcpProxy_WeightedClusters:
		for _, w := range s.WeightedClusters.GetClusters() {
			add(w.GetName(), w.GetWeight())
			t.Total += uint64(w.GetWeight())
		}
		if t.Total == 0 {
			return errors.New("weighted_clusters: the weights sum to 0")
		}
	default:
		return errors.New("the cluster specifier is missing")
	}
	return nil
}
