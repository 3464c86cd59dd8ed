// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"time"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// TCP is the settings of a TCP proxy (TcpProxy), with Envoy's defaults filled in.
type TCP struct {
	StatPrefix string // without a trailing ";"
	// Clusters has one entry, or several with weights.
	Clusters []Weighted
	Total    uint64 // of the weights; 0 for one cluster

	IdleTimeout time.Duration // default 1 h; 0: none
	MaxDuration time.Duration // 0: none
	// HashSourceIP balances by the client's address.
	HashSourceIP bool
	MaxAttempts  uint32 // of connecting; default 1
	AccessLogs   []AccessLog
	LogOnConnect bool // flush_access_log_on_connected
}

// Weighted is one choice of a TCP proxy.
type Weighted struct {
	Cluster string
	Ref     *upstream.Ref
	Weight  uint32
}

// Pick returns the cluster for a random number.
func (t *TCP) Pick(random uint64) *upstream.Ref {
	if t.Total == 0 {
		return t.Clusters[0].Ref
	}
	at := random % t.Total
	for i := range t.Clusters {
		w := uint64(t.Clusters[i].Weight)
		if at < w {
			return t.Clusters[i].Ref
		}
		at -= w
	}
	return t.Clusters[len(t.Clusters)-1].Ref
}

// For returns the settings with another cluster, for a destination that was found
// on demand.
func (t *TCP) For(cluster *upstream.Ref) *TCP {
	c := *t
	c.Clusters, c.Total = []Weighted{{Cluster: cluster.Name(), Ref: cluster}}, 0
	return &c
}

// PeerExchange is what the chain says of us by istio-peer-exchange; nil: it does not speak it. Peers that
// speak HTTP tell of themselves in headers.
func (c *FilterChain) PeerExchange() []byte {
	if c.HTTP != nil {
		return nil
	}
	for i := range c.Network {
		if p := c.Network[i].PeerExchange; p != nil {
			return p
		}
	}
	return nil
}

// A NetworkFilter runs before the last filter of a chain: exactly one of RBAC,
// Stats and PeerExchange is set.
type NetworkFilter struct {
	Name string
	RBAC *NetworkRBAC
	// Stats counts istio_tcp_* metrics (istio.stats).
	Stats *stock.Stats
	// PeerExchange is istio.metadata_exchange: what is said of us ahead of a connection's
	// bytes, where TLS has agreed on istio-peer-exchange.
	PeerExchange []byte
}

// NetworkRBAC authorizes a connection (envoy.filters.network.rbac).
type NetworkRBAC struct {
	Rules, Shadow *authz.Rules // either may be nil
	StatPrefix    string
	ShadowPrefix  string // of metadata and statistics
}
