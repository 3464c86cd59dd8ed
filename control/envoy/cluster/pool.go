// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
)

// Envoy's own retry budget, where a rule asks for one without saying how large.
const (
	budgetPercent = 20
	budgetLeast   = 3
)

// SetPool sets limits, timeouts and keep-alive.
func SetPool(m *clusterv3.Cluster, p intent.ClusterPolicy, settings *intent.Settings) {
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
		k.KeepaliveTime, k.KeepaliveInterval = seconds(keepalive.Time), seconds(keepalive.Interval)
		m.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: k}
	}
	if r := p.RetryBudget; r != nil {
		budget := &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			MinRetryConcurrency: wrapperspb.UInt32(budgetLeast), BudgetPercent: &typev3.Percent{Value: budgetPercent},
		}
		if r.MinConcurrency > 0 {
			budget.MinRetryConcurrency = wrapperspb.UInt32(r.MinConcurrency)
		}
		if r.Percent != nil {
			budget.BudgetPercent.Value = *r.Percent
		}
		t.RetryBudget, t.MaxRetries = budget, nil
	}
}

// seconds are whole ones, at least one; nil for none.
func seconds(d time.Duration) *wrapperspb.UInt32Value {
	if d <= 0 {
		return nil
	}
	return wrapperspb.UInt32(uint32(max(d, time.Second) / time.Second))
}

func setLimit(to **wrapperspb.UInt32Value, n int) {
	if n > 0 {
		*to = wrapperspb.UInt32(uint32(n))
	}
}
