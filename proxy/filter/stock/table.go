// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

// A Kind is one row of the table of filters.
type Kind struct {
	Name    string // as Istio configures it
	TypeURL string // of its configuration; for a TypedStruct, of what it wraps
	Summary string
}

// Table lists the filters, for whoever tells a control plane what it can do.
// Package config holds the decoder for each.
func Table() []Kind {
	return []Kind{
		{"istio.metadata_exchange", "type.googleapis.com/io.istio.http.peer_metadata.Config", "tells who we are, learns who the other is"},
		{"envoy.filters.http.rbac", "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "who may pass"},
		{"envoy.filters.http.grpc_stats", "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", "accepted; counts nothing of its own"},
		{"istio.alpn", "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", "names offered upstream, by HTTP version"},
		{"envoy.filters.http.fault", "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "delays and aborts on purpose"},
		{"envoy.filters.http.cors", "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors", "cross-origin requests"},
		{"istio.stats", "type.googleapis.com/stats.PluginConfig", "the istio_* metrics"},
		{"envoy.filters.http.router", "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "the end of the chain: forwards"},
	}
}
