// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
)

// applyPool sets limits, timeouts and keep-alive.
func applyPool(m *clusterv3.Cluster, p intent.ClusterPolicy, settings *intent.Settings) {
	t := m.CircuitBreakers.Thresholds[0]
	keepalive := settings.Keepalive
	if pool := p.Pool; pool != nil {
		if pool.ConnectTimeout > 0 {
			m.ConnectTimeout = durationpb.New(pool.ConnectTimeout)
		}
		setLimit(&t.MaxConnections, pool.MaxConnections)
		setLimit(&t.MaxPendingRequests, pool.MaxPending)
		setLimit(&t.MaxRequests, pool.MaxRequests)
		setLimit(&t.MaxRetries, pool.MaxRetries)
		if pool.Keepalive != nil {
			keepalive = pool.Keepalive
		}
	}
	if keepalive != nil {
		k := &corev3.TcpKeepalive{}
		if keepalive.Probes > 0 {
			k.KeepaliveProbes = wrapperspb.UInt32(uint32(keepalive.Probes))
		}
		if keepalive.Time > 0 {
			k.KeepaliveTime = wrapperspb.UInt32(uint32(keepalive.Time / time.Second))
		}
		if keepalive.Interval > 0 {
			k.KeepaliveInterval = wrapperspb.UInt32(uint32(keepalive.Interval / time.Second))
		}
		m.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: k}
	}
	if r := p.RetryBudget; r != nil {
		budget := &clusterv3.CircuitBreakers_Thresholds_RetryBudget{MinRetryConcurrency: wrapperspb.UInt32(3), BudgetPercent: &typev3.Percent{Value: 20}}
		if r.MinConcurrency > 0 {
			budget.MinRetryConcurrency = wrapperspb.UInt32(r.MinConcurrency)
		}
		if r.Percent != nil {
			budget.BudgetPercent.Value = *r.Percent
		}
		t.RetryBudget, t.MaxRetries = budget, nil
	}
}

func setLimit(to **wrapperspb.UInt32Value, n int) {
	if n > 0 {
		*to = wrapperspb.UInt32(uint32(n))
	}
}

// applyBalancer sets how an endpoint is chosen.
func applyBalancer(m *clusterv3.Cluster, lb *intent.LoadBalancer) {
	if lb == nil || m.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return
	}
	slow := slowStart(lb.Warmup)
	switch lb.Algorithm {
	case intent.LeastRequest:
		if slow != nil {
			m.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
		}
	case intent.RoundRobin:
		m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if slow != nil {
			m.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
	case intent.Random:
		m.LbPolicy = clusterv3.Cluster_RANDOM
	case intent.Passthrough:
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		m.LbPolicy, m.LoadAssignment, m.EdsClusterConfig = clusterv3.Cluster_CLUSTER_PROVIDED, nil, nil
	case intent.RingHash:
		m.LbPolicy = clusterv3.Cluster_RING_HASH
		size := uint64(1024)
		if lb.TableSize > 0 {
			size = lb.TableSize
		}
		m.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)}}
	case intent.Maglev:
		m.LbPolicy = clusterv3.Cluster_MAGLEV
		if lb.TableSize > 0 {
			m.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(lb.TableSize)}}
		}
	}
	if l := lb.Locality; l != nil && len(l.Distribute) > 0 && (l.Enabled == nil || *l.Enabled) {
		m.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	}
}

func slowStart(w *intent.Warmup) *clusterv3.Cluster_SlowStartConfig {
	if w == nil || w.Duration <= 0 {
		return nil
	}
	s := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(w.Duration)}
	aggression := w.Aggression
	if aggression <= 0 {
		aggression = 1
	}
	s.Aggression = &corev3.RuntimeDouble{DefaultValue: aggression, RuntimeKey: "("}
	s.MinWeightPercent = &typev3.Percent{Value: 10}
	if w.MinimumPercent > 0 {
		s.MinWeightPercent.Value = w.MinimumPercent
	}
	return s
}

// applyOutliers sets when an endpoint is set aside. What a rule leaves out keeps
// Envoy's default, which for consecutive 5xx is 5, enforced.
func applyOutliers(m *clusterv3.Cluster, o *intent.Outliers) {
	if o == nil || m.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return
	}
	d := &clusterv3.OutlierDetection{EnforcingSuccessRate: wrapperspb.UInt32(0)}
	threshold := func(count, enforcing **wrapperspb.UInt32Value, v *uint32) {
		if v == nil {
			return
		}
		*count, *enforcing = wrapperspb.UInt32(*v), wrapperspb.UInt32(100)
		if *v == 0 {
			*enforcing = wrapperspb.UInt32(0)
		}
	}
	threshold(&d.Consecutive_5Xx, &d.EnforcingConsecutive_5Xx, o.Consecutive5xx)
	threshold(&d.ConsecutiveGatewayFailure, &d.EnforcingConsecutiveGatewayFailure, o.ConsecutiveGateway)
	if o.SplitLocal {
		d.SplitExternalLocalOriginErrors = true
		d.EnforcingLocalOriginSuccessRate = wrapperspb.UInt32(0)
		threshold(&d.ConsecutiveLocalOriginFailure, &d.EnforcingConsecutiveLocalOriginFailure, o.ConsecutiveLocal)
	}
	if o.Interval > 0 {
		d.Interval = durationpb.New(o.Interval)
	}
	if o.BaseEjection > 0 {
		d.BaseEjectionTime = durationpb.New(o.BaseEjection)
	}
	if o.MaxEjectionPercent > 0 {
		d.MaxEjectionPercent = wrapperspb.UInt32(uint32(o.MaxEjectionPercent))
	}
	m.OutlierDetection = d
	m.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: float64(o.MinHealthPercent)}
}
