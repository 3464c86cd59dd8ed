// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

// A Kind is one row of the table of filters.
type Kind struct {
	Name     string // as Istio configures it
	Category string // CategoryHTTP or CategoryNetwork
	TypeURL  string // of its configuration; for a TypedStruct, of what it wraps
	Summary  string
}

// The categories of filters, as Envoy names them.
const (
	CategoryHTTP    = "envoy.filters.http"
	CategoryNetwork = "envoy.filters.network"
)

// Table lists the filters, for whoever tells a control plane what the proxy can do.
// Package config holds the decoder for each.
func Table() []Kind {
	return []Kind{
		{"istio.metadata_exchange", CategoryHTTP, "type.googleapis.com/io.istio.http.peer_metadata.Config", "tells who we are, learns who the other is"},
		{"envoy.filters.http.rbac", CategoryHTTP, "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "who may pass"},
		{"envoy.filters.http.grpc_stats", CategoryHTTP, "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", "counts messages, for istio.stats"},
		{"istio.alpn", CategoryHTTP, "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", "names offered upstream, by HTTP version"},
		{"envoy.filters.http.fault", CategoryHTTP, "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "delays and aborts on purpose"},
		{"envoy.filters.http.cors", CategoryHTTP, "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors", "cross-origin requests"},
		{"istio.stats", CategoryHTTP, "type.googleapis.com/stats.PluginConfig", "the istio_* metrics"},
		{"envoy.filters.http.router", CategoryHTTP, "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "the end of the chain: forwards"},
		{"istio.metadata_exchange", CategoryNetwork, "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", "the same for TCP (istio-peer-exchange)"},
	}
}
