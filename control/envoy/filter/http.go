// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
)

// A Side is how a connection manager stands to the workload.
type Side uint8

// The sides.
const (
	ToWorkload   Side = iota // who calls the workload
	FromWorkload             // what the workload calls
	AtGateway
)

// An HTTP is what differs between connection managers.
type HTTP struct {
	Side       Side
	StatPrefix string                      // without the ";" that ends it
	RDS        string                      // name of the route table, or
	Inline     *routev3.RouteConfiguration // the table itself
	RBAC       []*hcmv3.HttpFilter
	HTTP2      bool // the port is known to speak HTTP/2
	HTTP10     bool // callers may speak HTTP/1.0
	GRPCWeb    bool // the port carries gRPC-Web
	Forward    bool // a forward proxy, which applications dial
	AccessLog  []*accesslogv3.AccessLog
}

// Manager builds a connection manager with its filters in order.
func Manager(f Features, h HTTP) *listenerv3.Filter {
	m := &hcmv3.HttpConnectionManager{
		CodecType:         hcmv3.HttpConnectionManager_AUTO,
		StatPrefix:        h.StatPrefix + ";",
		HttpFilters:       httpFilters(f, h),
		AccessLog:         h.AccessLog,
		UseRemoteAddress:  wrapperspb.Bool(h.Side == AtGateway),
		StreamIdleTimeout: durationpb.New(0), // Envoy's default would end streams after 5 minutes
		UpgradeConfigs:    []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		NormalizePath:     wrapperspb.Bool(true),
		Proxy_100Continue: true,
		GenerateRequestId: wrapperspb.Bool(true),
	}
	if h.RDS != "" {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: emit.ADS(), RouteConfigName: h.RDS}}
	} else {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: h.Inline}
	}
	switch h.Side {
	case ToWorkload:
		m.ServerName = "istio-envoy"
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Uri: true, Dns: true}
	case AtGateway:
		m.ServerName = "istio-envoy"
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Cert: true, Uri: true, Dns: true}
	}
	if h.Forward {
		m.UpgradeConfigs = append(m.UpgradeConfigs, &hcmv3.HttpConnectionManager_UpgradeConfig{UpgradeType: "CONNECT"})
	}
	if h.HTTP10 || h.Forward {
		m.HttpProtocolOptions = &corev3.Http1ProtocolOptions{AcceptHttp_10: h.HTTP10}
		if h.Forward {
			m.HttpProtocolOptions.AllowAbsoluteUrl = wrapperspb.Bool(true)
		}
	}
	if h.HTTP2 {
		m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{}
	}
	return Network(NameHCM, m)
}

// httpFilters is the order in which a request meets the filters, and why.
func httpFilters(f Features, h HTTP) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	if f.PeerMetadata { // first: policies, logs and metrics speak of the peer
		out = append(out, HTTPFilter(namePeer, emit.TypedStruct(typePeerMetadata, peerMetadata(h.Side))))
	}
	out = append(out, h.RBAC...) // before any work is done for the caller
	if h.GRPCWeb && f.GRPCWeb {  // what follows sees gRPC
		out = append(out, HTTPFilter(nameGRPCWeb, &grpcwebv3.GrpcWeb{}))
	}
	out = append(out, HTTPFilter("envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{
		EmitFilterState: true, PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(false)},
	}))
	if f.ALPN && h.Side != ToWorkload { // before the router chooses a connection
		out = append(out, HTTPFilter(nameALPN, emit.TypedStruct(typeALPN, alpnOverrides())))
	}
	out = append(out, HTTPFilter(NameFault, &faultv3.HTTPFault{}), HTTPFilter(NameCORS, &corsv3.Cors{}))
	if f.Stats { // last before the router: sees what is really sent
		out = append(out, HTTPFilter(nameStats, statsConfig(h.Side != FromWorkload)))
	}
	return append(out, HTTPFilter(nameRouter, &routerv3.Router{}))
}

// HTTPFilter is an HTTP filter.
func HTTPFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: emit.Any(m)}}
}

func peerMetadata(s Side) map[string]any {
	discover := []any{map[string]any{"istio_headers": map[string]any{}}, map[string]any{"workload_discovery": map[string]any{}}}
	propagate := []any{map[string]any{"istio_headers": map[string]any{}}}
	if s == ToWorkload {
		return map[string]any{"downstream_discovery": discover, "downstream_propagation": propagate}
	}
	return map[string]any{"upstream_discovery": discover, "upstream_propagation": propagate}
}

func alpnOverrides() map[string]any {
	list := func(names ...any) []any { return names }
	return map[string]any{"alpn_override": []any{
		map[string]any{"upstream_protocol": "HTTP10", "alpn_override": list("istio-http/1.0", "istio", "http/1.0")},
		map[string]any{"upstream_protocol": "HTTP11", "alpn_override": list("istio-http/1.1", "istio", "http/1.1")},
		map[string]any{"upstream_protocol": "HTTP2", "alpn_override": list("istio-h2", "istio", "h2")},
	}}
}
