// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	typedstructv1 "github.com/cncf/xds/go/udpa/type/v1"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
)

// Names of filters, which per-route settings and people refer to.
const (
	nameHCM      = "envoy.filters.network.http_connection_manager"
	nameTCPProxy = "envoy.filters.network.tcp_proxy"
	nameFault    = "envoy.filters.http.fault"
	nameCORS     = "envoy.filters.http.cors"
	nameRBAC     = "envoy.filters.http.rbac"
	nameRouter   = "envoy.filters.http.router"
)

// A side is how a connection manager stands to the workload.
type side uint8

const (
	inbound side = iota
	outbound
	gateway
)

// An hcm is what differs between connection managers.
type hcm struct {
	side       side
	statPrefix string
	rds        string                      // name of the route table, or
	inline     *routev3.RouteConfiguration // the table itself
	rbac       []*hcmv3.HttpFilter         // inbound and gateways
	http2      bool                        // the port is known to speak HTTP/2
	absolute   bool                        // a forward proxy
}

// manager builds a connection manager with its filters in order.
func (b *Backend) manager(c *derive.Context, cl Client, h hcm) *listenerv3.Filter {
	t := cl.Traits
	m := &hcmv3.HttpConnectionManager{
		CodecType:         hcmv3.HttpConnectionManager_AUTO,
		StatPrefix:        h.statPrefix + ";",
		HttpFilters:       httpFilters(t, h),
		AccessLog:         b.accessLog(c, cl.Subject),
		UseRemoteAddress:  wrapperspb.Bool(h.side == gateway),
		StreamIdleTimeout: durationpb.New(0),
		UpgradeConfigs:    []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		NormalizePath:     wrapperspb.Bool(true),
		Proxy_100Continue: true,
		GenerateRequestId: wrapperspb.Bool(true),
	}
	if h.rds != "" {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: h.rds}}
	} else {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: h.inline}
	}
	switch h.side {
	case inbound:
		m.ServerName = "istio-envoy"
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Uri: true, Dns: true}
	case gateway:
		m.ServerName = "istio-envoy"
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Cert: true, Uri: true, Dns: true}
	}
	http1 := &corev3.Http1ProtocolOptions{AcceptHttp_10: t.HTTP10}
	if h.absolute {
		http1.AllowAbsoluteUrl = wrapperspb.Bool(true)
		m.UpgradeConfigs = append(m.UpgradeConfigs, &hcmv3.HttpConnectionManager_UpgradeConfig{UpgradeType: "CONNECT"})
	}
	if t.HTTP10 || h.absolute {
		m.HttpProtocolOptions = http1
	}
	if h.http2 {
		m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{}
	}
	return networkFilter(nameHCM, m)
}

// httpFilters is the order in which a request meets the filters, and why.
func httpFilters(t Traits, h hcm) []*hcmv3.HttpFilter {
	var f []*hcmv3.HttpFilter
	if t.PeerMetadata { // first: policies, logs and metrics speak of the peer
		f = append(f, typedStructFilter(filterPeerMetadata, "io.istio.http.peer_metadata.Config", peerMetadata(h.side)))
	}
	f = append(f, h.rbac...) // before any work is done for the caller
	f = append(f, httpFilter("envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{
		EmitFilterState: true, PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(false)},
	}))
	if t.ALPN && h.side != inbound { // before the router chooses a connection
		f = append(f, typedStructFilter(filterALPN, "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", alpnOverrides()))
	}
	f = append(f, httpFilter(nameFault, &faultv3.HTTPFault{}), httpFilter(nameCORS, &corsv3.Cors{}))
	if t.Stats { // last before the router: sees what is really sent
		f = append(f, typedStructFilter(filterStats, "stats.PluginConfig", map[string]any{}))
	}
	return append(f, httpFilter(nameRouter, &routerv3.Router{}))
}

func peerMetadata(s side) map[string]any {
	discover := []any{map[string]any{"istio_headers": map[string]any{}}, map[string]any{"workload_discovery": map[string]any{}}}
	propagate := []any{map[string]any{"istio_headers": map[string]any{}}}
	if s == inbound {
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

func httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(m)}}
}

func typedStructFilter(name, typeName string, value map[string]any) *hcmv3.HttpFilter {
	return httpFilter(name, typedStruct(typeName, value))
}

// typedStruct carries a configuration whose proto is Istio's.
func typedStruct(typeName string, value map[string]any) *typedstructv1.TypedStruct {
	v, err := structpb.NewStruct(value)
	if err != nil {
		panic("control/envoy: " + err.Error()) // the values are written above
	}
	return &typedstructv1.TypedStruct{TypeUrl: "type.googleapis.com/" + typeName, Value: v}
}

func networkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(m)}}
}

// tcp is the filters of a TCP chain that ends in a cluster, or in several by weight.
func (b *Backend) tcp(c *derive.Context, cl Client, statPrefix string, targets []tcpTarget, before ...*listenerv3.Filter) []*listenerv3.Filter {
	p := &tcpproxyv3.TcpProxy{StatPrefix: statPrefix, AccessLog: b.accessLog(c, cl.Subject)}
	if len(targets) == 1 {
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: targets[0].cluster}
	} else {
		w := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, t := range targets {
			if t.weight > 0 {
				w.Clusters = append(w.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.cluster, Weight: t.weight})
			}
		}
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	filters := before
	if cl.Traits.Stats {
		filters = append(filters, networkFilter(filterStats, typedStruct("stats.PluginConfig", map[string]any{})))
	}
	return append(filters, networkFilter(nameTCPProxy, p))
}

// A tcpTarget takes a share of connections.
type tcpTarget struct {
	cluster string
	weight  uint32
}

// textFormat is Istio's default access log.
const textFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

// jsonFormat is the same in JSON.
var jsonFormat = map[string]string{
	"start_time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%",
	"response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
	"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
	"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"bytes_received":                    "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
	"upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
	"user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
	"upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%", "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
	"downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%", "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
	"requested_server_name": "%REQUESTED_SERVER_NAME%", "route_name": "%ROUTE_NAME%",
}

func (b *Backend) accessLog(c *derive.Context, s intent.Subject) []*accesslogv3.AccessLog {
	log := b.wishes.AccessLog.Get(c, s)
	if log.Disabled || log.File == "" {
		return nil
	}
	format := &corev3.SubstitutionFormatString{}
	switch {
	case log.JSON && log.Format == "":
		format.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: stringStruct(jsonFormat)}
	case log.JSON:
		custom := &structpb.Struct{}
		if err := custom.UnmarshalJSON([]byte(log.Format)); err != nil {
			custom = stringStruct(jsonFormat) // the front end has reported it
		}
		format.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: custom}
	default:
		text := textFormat
		if log.Format != "" {
			text = log.Format
		}
		format.Format = &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: text},
		}}
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&filelogv3.FileAccessLog{
			Path: log.File, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format},
		})},
	}}
}
