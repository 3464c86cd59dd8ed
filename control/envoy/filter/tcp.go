// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// A Target takes a share of connections.
type Target struct {
	Cluster string
	Weight  uint32
}

// To is the only target.
func To(cluster string) []Target { return []Target{{Cluster: cluster}} }

// A TCP is what becomes of a connection whose bytes are passed on.
type TCP struct {
	StatPrefix string // the first target's cluster, if empty
	Targets    []Target
	Inbound    bool
	Policy     intent.ClusterPolicy // of the first target: idle times, stickiness
	AccessLog  []*accesslogv3.AccessLog
}

// Filters are those of the chain, behind before: the peer first, then who may pass, then what is counted, then where it goes.
func (t TCP) Filters(f Features, before ...*listenerv3.Filter) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	if f.PeerExchange && t.Inbound {
		out = append(out, Exchange())
	}
	out = append(out, before...)
	if f.Stats {
		out = append(out, stats(t.Inbound))
	}
	return append(out, Network(NameTCPProxy, t.proxy()))
}

func (t TCP) proxy() *tcpproxyv3.TcpProxy {
	targets := t.Targets
	if len(targets) > 1 {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.Weight == 0 })
	}
	if len(targets) == 0 {
		targets = To(mesh.ClusterBlackHole)
	}
	p := &tcpproxyv3.TcpProxy{StatPrefix: t.StatPrefix, AccessLog: t.AccessLog}
	if p.StatPrefix == "" {
		p.StatPrefix = targets[0].Cluster
	}
	if len(targets) == 1 {
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: targets[0].Cluster}
	} else {
		w := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, t := range targets {
			w.Clusters = append(w.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.Cluster, Weight: t.Weight})
		}
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	t.pool(p)
	if lb := t.Policy.LoadBalancer; lb != nil && lb.Hash != nil && lb.Hash.SourceIP {
		p.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return p
}

func (t TCP) pool(p *tcpproxyv3.TcpProxy) {
	pool := t.Policy.Pool
	if pool == nil {
		return
	}
	if pool.TCPIdle != nil {
		p.IdleTimeout = durationpb.New(*pool.TCPIdle)
	}
	if pool.MaxDuration >= time.Millisecond {
		p.MaxDownstreamConnectionDuration = durationpb.New(pool.MaxDuration)
	}
}

// Network is a network filter.
func Network(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: emit.Any(m)}}
}

// OnDemand makes a chain one that asks what a destination is, before it goes on with one of the two filters that
// follow: the HTTP connection manager or the TCP proxy. It is Meltemi's own, and first in its chain.
func OnDemand() *listenerv3.Filter {
	return Network("meltemi.on_demand", emit.TypedStruct("meltemi.io.OnDemand", map[string]any{}))
}

// exchangeConfig: each side tells the other who it is before the first byte, where both have agreed to.
func exchangeConfig() proto.Message {
	return emit.TypedStruct(typePeerExchange, map[string]any{"protocol": "istio-peer-exchange", "enable_discovery": true})
}

// Exchange learns who calls from the connection itself.
func Exchange() *listenerv3.Filter { return Network(namePeer, exchangeConfig()) }

// ExchangeUpstream tells the called who calls.
func ExchangeUpstream() *clusterv3.Filter {
	return &clusterv3.Filter{Name: namePeer, TypedConfig: emit.Any(exchangeConfig())}
}

func stats(noHost bool) *listenerv3.Filter { return Network(nameStats, statsConfig(noHost)) }

// statsConfig: who is called is told by the Host header only where that is all that is known.
func statsConfig(noHost bool) proto.Message {
	value := map[string]any{}
	if noHost {
		value["disable_host_header_fallback"] = true
	}
	return emit.TypedStruct(typeStats, value)
}
