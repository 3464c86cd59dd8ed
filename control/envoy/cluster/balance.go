// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
)

// SetBalancer sets how an endpoint is chosen. It may turn the cluster into one that goes where the client wanted.
func SetBalancer(m *clusterv3.Cluster, lb *intent.LoadBalancer) {
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
		SetType(m, clusterv3.Cluster_ORIGINAL_DST)
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
}

// WeighLocalities makes the weights count that endpoints' localities have.
func WeighLocalities(m *clusterv3.Cluster) {
	if m.GetType() != clusterv3.Cluster_ORIGINAL_DST {
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
	s.Aggression = &corev3.RuntimeDouble{DefaultValue: aggression, RuntimeKey: "("} // a key that no runtime layer can have
	s.MinWeightPercent = &typev3.Percent{Value: 10}
	if w.MinimumPercent > 0 {
		s.MinWeightPercent.Value = w.MinimumPercent
	}
	return s
}

// SetOutliers sets when an endpoint is set aside. What a rule leaves out keeps Envoy's default, which for
// consecutive 5xx is 5, enforced.
func SetOutliers(m *clusterv3.Cluster, o *intent.Outliers) {
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
