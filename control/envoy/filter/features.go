// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Features are filters that not every proxy has. Istio's own go only to proxies that say they have them.
type Features struct {
	Stats        bool // istio.stats
	ALPN         bool // istio.alpn
	PeerMetadata bool // istio.metadata_exchange for HTTP
	PeerExchange bool // the same for TCP
	GRPCWeb      bool
}

// Names of filters, which per-route settings and people refer to.
const (
	NameHCM      = "envoy.filters.network.http_connection_manager"
	NameTCPProxy = "envoy.filters.network.tcp_proxy"
	NameFault    = "envoy.filters.http.fault"
	NameCORS     = "envoy.filters.http.cors"
	NameRBAC     = "envoy.filters.http.rbac"
	nameRouter   = "envoy.filters.http.router"
	nameGRPCWeb  = "envoy.filters.http.grpc_web"
	nameStats    = "istio.stats"
	nameALPN     = "istio.alpn"
	namePeer     = "istio.metadata_exchange"
)

// Types of Istio's configurations.
const (
	typeStats        = "stats.PluginConfig"
	typeALPN         = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
	typePeerMetadata = "io.istio.http.peer_metadata.Config"
	typePeerExchange = "envoy.tcp.metadataexchange.config.MetadataExchange"
)

const categoryNetwork = "envoy.filters.network"

// FeaturesOf reads what a proxy lists in its node. Our proxies list filters by the names that configurations
// bear, Istio's Envoys by those under which they were compiled in; what either takes is told by its type.
func FeaturesOf(list []*corev3.Extension) Features {
	var f Features
	for _, e := range list {
		is := func(typeName string, names ...string) bool {
			return slices.Contains(names, e.GetName()) ||
				slices.ContainsFunc(e.GetTypeUrls(), func(t string) bool { return t == typeName || t == "type.googleapis.com/"+typeName })
		}
		f.Stats = f.Stats || is(typeStats, nameStats, "envoy.filters.http.istio_stats")
		f.ALPN = f.ALPN || is(typeALPN, nameALPN)
		f.PeerMetadata = f.PeerMetadata || is(typePeerMetadata, "envoy.filters.http.peer_metadata") ||
			e.GetName() == namePeer && e.GetCategory() != categoryNetwork
		f.PeerExchange = f.PeerExchange || is(typePeerExchange, "envoy.filters.network.metadata_exchange") ||
			e.GetName() == namePeer && e.GetCategory() == categoryNetwork
		f.GRPCWeb = f.GRPCWeb || is("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", nameGRPCWeb)
	}
	return f
}
