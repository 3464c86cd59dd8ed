// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3" // its name
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
)

// apply applies one listener, of which filters is the list of its only chain.
func apply(t *testing.T, extra, filters string) (*Listener, error) {
	t.Helper()
	w := newWorld(t)
	yaml := "- \"@type\": listener\n  name: l\n  address: {socket_address: {address: 127.0.0.1, port_value: 1}}\n" + indent(extra, "  ") + "  filter_chains:\n  - filters:\n" + indent(filters, "    ")
	if r := w.step(t, txtar.File{Name: "1.yaml", Data: []byte(yaml)}); len(r) > 0 {
		return nil, r[0].Err
	}
	return w.Snapshot().Listener("l"), nil
}

func indent(s, by string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(by + line)
	}
	if s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}

// hcm is a connection manager with a router and some more fields.
func hcm(fields string) string {
	return `- name: hcm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: "x;"
    route_config: {name: r}
` + indent(fields, "    ") + router
}

const router = `    http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
`

const tcpTo = `- {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}}
`

func TestHTTPSettings(t *testing.T) {
	_, err := apply(t, "", hcm(`codec_type: HTTP1
via: me
add_user_agent: false
`))
	if err == nil || !strings.Contains(err.Error(), "add_user_agent is not supported") {
		t.Errorf("%v", err)
	}
	l, err := apply(t, "", hcm(`codec_type: HTTP2
common_http_protocol_options: {idle_timeout: 1s, max_connection_duration: 2s, max_headers_count: 3, max_stream_duration: 4s, headers_with_underscores_action: DROP_HEADER, max_requests_per_connection: 5}
http_protocol_options: {allow_absolute_url: true, accept_http_10: true, default_host_for_http_10: h, enable_trailers: true, header_key_format: {stateful_formatter: {name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}}
http2_protocol_options: {max_concurrent_streams: 6, initial_stream_window_size: 65536, initial_connection_window_size: 65537, hpack_table_size: 7, allow_connect: true, connection_keepalive: {interval: 8s, timeout: 9s}}
server_name: s
server_header_transformation: PASS_THROUGH
scheme_header_transformation: {scheme_to_overwrite: https}
max_request_headers_kb: 10
stream_idle_timeout: 11s
request_timeout: 12s
request_headers_timeout: 13s
drain_timeout: 14s
delayed_close_timeout: 15s
access_log_options: {flush_access_log_on_new_request: true}
use_remote_address: true
xff_num_trusted_hops: 17
internal_address_config: {unix_sockets: true, cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
skip_xff_append: true
via: v
generate_request_id: false
preserve_external_request_id: true
always_set_request_id_in_response: true
forward_client_cert_details: ALWAYS_FORWARD_ONLY
set_current_client_cert_details: {subject: true, cert: true, chain: true, dns: true, uri: true}
proxy_100_continue: true
upgrade_configs: [{upgrade_type: CONNECT, enabled: false}]
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
request_id_extension: {typed_config: {"@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, pack_trace_reason: false, use_request_id_for_trace_sampling: false}}
strip_any_host_port: true
strip_trailing_host_dot: true
append_x_forwarded_port: true
tracing:
  operation: "%REQ(:METHOD)%"
  max_path_tag_length: 18
  no_context_propagation: true
  spawn_upstream_span: true
  provider: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, http_service: {http_uri: {uri: "http://collector/v1/traces", cluster: otel, timeout: 1s}}}}
  custom_tags: [{tag: e, environment: {name: E, default_value: d}}, {tag: f, value: "%PROTOCOL%"}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &HTTP{
		StatPrefix: "x", Codec: CodecHTTP2, LogOnStart: true,
		PreserveRequestID: true, RequestIDInResponse: true, NoTraceInRequestID: true, UseRemoteAddress: true, TrustedHops: 17,
		SkipForwardedFor: true, AppendForwardedPort: true, Internal: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, InternalUnix: true,
		ForwardCert: CertAlwaysForwardOnly, SetCert: SetCert{true, true, true, true, true}, Via: "v", ServerName: "s", ServerHeader: ServerPass,
		NormalizePath: true, MergeSlashes: true, EscapedSlashes: SlashesRedirect, StripPort: StripAny, StripTrailingDot: true,
		SchemeOverwrite: "https", Underscores: UnderscoresDrop, MaxHeaderBytes: 10 << 10, MaxHeaders: 3,
		Upgrades: []route.Upgrade{{Type: "connect"}}, Proxy100: true,
		IdleTimeout: time.Second, StreamIdleTimeout: 11 * time.Second, RequestTimeout: 12 * time.Second, HeadersTimeout: 13 * time.Second,
		MaxDuration: 2 * time.Second, MaxStreamDuration: 4 * time.Second, DelayedClose: 15 * time.Second, MaxRequests: 5,
		HTTP1: HTTP1{AcceptHTTP10: true, DefaultHost: "h", PreserveCase: true, Trailers: true},
		HTTP2: HTTP2{MaxStreams: 6, StreamWindow: 65536, ConnWindow: 65537, KeepaliveInterval: 8 * time.Second, KeepaliveTimeout: 9 * time.Second},
		Tracing: &Tracing{Client: 10000, Random: 10000, Overall: 10000, MaxPathLength: 18, SpawnUpstream: true, NoPropagation: true,
			Cluster: "otel", HTTPPath: "/v1/traces", Operation: "%REQ(:METHOD)%",
			Tags: []Tag{{Name: "e", Kind: TagEnvironment, Value: "E", Default: "d"}, {Name: "f", Kind: TagFormat, Value: "%PROTOCOL%"}}},
	}
	if diff := cmp.Diff(want, l.Chains[0].HTTP, cmpopts.IgnoreFields(HTTP{}, "Chain", "Routes"), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	// Without anything set, Envoy's defaults hold.
	l, err = apply(t, "", hcm(""))
	if err != nil {
		t.Fatal(err)
	}
	want = httpDefaults()
	want.StatPrefix = "x"
	if diff := cmp.Diff(want, l.Chains[0].HTTP, cmpopts.IgnoreFields(HTTP{}, "Chain", "Routes")); diff != "" {
		t.Error(diff)
	}
}

// start_child_span of the router is the older way to ask for a span per attempt.
func TestStartChildSpan(t *testing.T) {
	filters := hcm(`tracing: {provider: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, grpc_service: {envoy_grpc: {cluster_name: c}}}}}`)
	for asked, filters := range map[bool]string{false: filters, true: strings.Replace(filters, `router.v3.Router}`, `router.v3.Router, start_child_span: true}`, 1)} {
		l, err := apply(t, "", filters)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Chains[0].HTTP.Tracing.SpawnUpstream; got != asked {
			t.Errorf("a span per attempt: %v, want %v", got, asked)
		}
	}
}

func TestHTTPRefusals(t *testing.T) {
	for want, fields := range map[string]string{
		"access_log_flush_interval is not supported":                                     "access_log_flush_interval: 1s",
		"access_log_options.access_log_flush_interval is not supported":                  "access_log_options: {access_log_flush_interval: 1s}",
		"http_protocol_options.allow_absolute_url: false":                                "http_protocol_options: {allow_absolute_url: false}",
		"tracing.verbose is not supported":                                               "tracing: {verbose: true}",
		"codec_type HTTP3 is not supported":                                              "codec_type: HTTP3",
		"tracing.provider \"z\": typed_config is \"envoy.config.trace.v3.ZipkinConfig\"": `tracing: {provider: {name: z, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: c, collector_endpoint: /}}}`,
		"tracing.custom_tags[0].metadata is not supported":                               `tracing: {custom_tags: [{tag: a, metadata: {kind: {request: {}}, metadata_key: {key: a}}}]}`,
		"tracing.operation: ":                                                            `tracing: {operation: "%NOPE%", provider: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, grpc_service: {envoy_grpc: {cluster_name: c}}}}}`,
		"local_reply_config is not supported":                                            "local_reply_config: {}",
		"early_header_mutation_extensions is not supported":                              "early_header_mutation_extensions: [{name: x}]",
		"request_id_extension: typed_config":                                             `request_id_extension: {typed_config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {}}}`,
		"access_log[0] \"\": log_format: format: operator %NOPE%":                        `access_log: [{typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, log_format: {text_format_source: {inline_string: "%NOPE%"}}}}]`,
	} {
		if _, err := apply(t, "", hcm(fields)); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\u00a0", " "), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	scoped := strings.Replace(hcm(""), "route_config: {name: r}", "rds: {route_config_name: r, config_source: {path_config_source: {path: /x}}}", 1)
	if _, err := apply(t, "", scoped); err == nil || !strings.Contains(err.Error(), "path_config_source is not supported") {
		t.Error(err)
	}
}

func TestAccessLogs(t *testing.T) {
	l, err := apply(t, `access_log:
- name: a
  filter: {and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: x}}}}, {or_filter: {filters: [{duration_filter: {comparison: {op: LE, value: {default_value: 7, runtime_key: x}}}}, {header_filter: {header: {name: x, present_match: true}}}]}}]}}
  typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, format: "%PROTOCOL%"}
- name: b
  filter: {response_flag_filter: {flags: [NR, UF]}}
  typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /y, typed_json_format: {a: "%PROTOCOL%", b: {c: "%DURATION%"}}}
- name: c
  filter: {not_health_check_filter: {}}
  typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {omit_empty_values: true, text_format: "x"}}
- {name: d, filter: {traceable_filter: {}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog}}
`, tcpTo)
	if err != nil {
		t.Fatal(err)
	}
	want := []AccessLog{
		{Path: "/x", Text: "%PROTOCOL%", Filter: &LogFilter{Op: LogAnd, Of: []LogFilter{
			{Op: LogStatus, Compare: AtLeast, Value: 500},
			{Op: LogOr, Of: []LogFilter{{Op: LogDuration, Compare: AtMost, Value: 7}, {Op: LogHeader, Header: match.Header{Name: "x"}}}},
		}}},
		{Path: "/y", JSON: map[string]any{"a": "%PROTOCOL%", "b": map[string]any{"c": "%DURATION%"}}, Filter: &LogFilter{Op: LogFlags, Flags: filter.NoRouteFound | filter.UpstreamConnectionFailure}},
		{Path: "/dev/stdout", Text: "x", OmitEmpty: true, Filter: &LogFilter{Op: LogNotHealthCheck}},
		{Path: "/dev/stderr", Filter: &LogFilter{Op: LogTraceable}},
	}
	if diff := cmp.Diff(want, l.AccessLogs, cmpopts.EquateComparable(match.String{})); diff != "" {
		t.Error(diff)
	}
	if _, err := apply(t, `access_log: [{name: a, filter: {response_flag_filter: {flags: [XX]}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x}}]`, tcpTo); err == nil {
		t.Error("an unknown flag")
	}
}

func TestListenerSettings(t *testing.T) {
	l, err := apply(t, `transparent: true
use_original_dst: false
bind_to_port: false
per_connection_buffer_limit_bytes: 7
listener_filters:
- {name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true, disallowed_versions: [V1]}}
- {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}, filter_disabled: {and_match: {rules: [{any_match: true}, {destination_port_range: {start: 1, end: 2}}]}}}
`, tcpTo)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Transparent || l.Bind || l.HandOff || l.OriginalDst || l.BufferLimit != 7 || *l.ProxyProtocol != (ProxyProtocol{Optional: true, V2: true}) ||
		!l.TLSInspector.Disabled.Match(netip.MustParseAddrPort("1.1.1.1:1")) || l.TLSInspector.Disabled.Match(netip.MustParseAddrPort("1.1.1.1:2")) {
		t.Errorf("%+v", l)
	}
	const inspector = `- {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}` + "\n"
	for want, extra := range map[string]string{
		"the application would see the proxy's address": `listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc, mark: 1337}}]`,
		"it is there twice":                             "listener_filters:\n" + inspector + inspector,
		"[5, 5) is no range of ports":                   "listener_filters:\n" + strings.Replace(inspector, "}}\n", "}, filter_disabled: {destination_port_range: {start: 5, end: 5}}}\n", 1),
		"filter_disabled is not supported":              `listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}, filter_disabled: {any_match: true}}]`,
	} {
		if _, err := apply(t, extra, tcpTo); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTCPSettings(t *testing.T) {
	l, err := apply(t, "", `- name: rbac
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
    stat_prefix: "tcp."
    shadow_rules_stat_prefix: istio_dry_run_allow_
    shadow_rules: {policies: {p: {permissions: [{destination_port: 80}], principals: [{any: true}]}}}
- name: istio.stats
  typed_config:
    "@type": type.googleapis.com/udpa.type.v1.TypedStruct
    type_url: type.googleapis.com/stats.PluginConfig
    value: {reporter: SERVER_GATEWAY, disable_host_header_fallback: true, metrics: [{name: requests_total, tags_to_remove: [source_app], dimensions: {a: "'b'"}}, {drop: true, name: tcp_sent_bytes_total}]}
- name: tcp
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
    stat_prefix: x
    cluster: c
    idle_timeout: 1s
    max_connect_attempts: 2
    hash_policy: [{source_ip: {}}]
    max_downstream_connection_duration: 3s
    access_log_options: {flush_access_log_on_connected: true}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := &TCP{
		StatPrefix: "x", Clusters: []Weighted{{Cluster: "c"}}, IdleTimeout: time.Second, MaxDuration: 3 * time.Second, HashSourceIP: true, MaxAttempts: 2,
		LogOnConnect: true,
	}
	c := l.Chains[0]
	if diff := cmp.Diff(want, c.TCP, cmpopts.IgnoreFields(Weighted{}, "Ref")); diff != "" {
		t.Error(diff)
	}
	if n := c.Network; len(n) != 2 || n[0].RBAC.StatPrefix != "tcp" || n[0].RBAC.Rules != nil || n[0].RBAC.Shadow.Policies() != 1 || n[1].Stats == nil {
		t.Errorf("%+v", n)
	}
	stats := func(value string) string {
		return `- {name: s, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: ` + value + "}}\n" + tcpTo
	}
	for want, filters := range map[string]string{
		`reporter "X" is not known`:                  stats(`{reporter: X}`),
		`field "definitions" is not supported`:       stats(`{definitions: []}`),
		`metrics[0]: dimensions["a"]: `:              stats(`{metrics: [{dimensions: {a: "has(x) ? 1 : 2"}}]}`),
		"tunneling_config is not supported":          strings.Replace(tcpTo, "cluster: c}", `cluster: c, tunneling_config: {hostname: "a:1"}}`, 1),
		"hash_policy[0].filter_state":                strings.Replace(tcpTo, "cluster: c}", `cluster: c, hash_policy: [{filter_state: {key: x}}]}`, 1),
		"access_log_flush_interval is not supported": strings.Replace(tcpTo, "cluster: c}", `cluster: c, access_log_options: {access_log_flush_interval: 1s}}`, 1),
		"on_demand is not supported":                 strings.Replace(tcpTo, "cluster: c}", `cluster: c, on_demand: {}}`, 1),
		"invalid TcpProxy.ClusterSpecifier":          strings.Replace(tcpTo, ", cluster: c}", `}`, 1),
	} {
		if _, err := apply(t, "", filters); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
