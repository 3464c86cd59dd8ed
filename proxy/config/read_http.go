// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/route"
)

// httpDefaults are Envoy's.
func httpDefaults() *HTTP {
	return &HTTP{
		GenerateRequestID: true, TraceByRequestID: true, ServerName: "envoy",
		MaxHeaderBytes: 60 << 10, MaxHeaders: 100,
		IdleTimeout: time.Hour, StreamIdleTimeout: 5 * time.Minute, DelayedClose: time.Second,
		HTTP2: HTTP2{MaxStreams: 1024, StreamWindow: 16 << 20, ConnWindow: 24 << 20},
	}
}

// http reads an HttpConnectionManager of chain c.
func (b *builder) http(c *FilterChain, a *anypb.Any) (*HTTP, error) {
	var m hcmv3.HttpConnectionManager
	if err := strict.Unmarshal(a, &m); err != nil {
		return nil, err
	}
	h := httpDefaults()
	h.StatPrefix = strings.TrimSuffix(m.GetStatPrefix(), ";")
	switch m.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
	case hcmv3.HttpConnectionManager_HTTP1:
		h.Codec = CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		h.Codec = CodecHTTP2
	default:
		return nil, fmt.Errorf("codec_type %s is not supported", m.GetCodecType())
	}
	readIdentity(h, &m)
	readRules(h, &m)
	readTimes(h, &m)
	for _, step := range [...]func(*HTTP, *hcmv3.HttpConnectionManager) error{
		readProtocols, readInternal, readRequestID, b.readTracing,
		func(h *HTTP, m *hcmv3.HttpConnectionManager) error { return b.readRoutes(c, h, m) },
		b.httpFilters,
	} {
		if err := step(h, &m); err != nil {
			return nil, err
		}
	}
	if h.Tracing != nil && h.Router.SpawnUpstream {
		h.Tracing.SpawnUpstream = true
	}
	var err error
	h.AccessLogs, err = b.accessLogs(m.GetAccessLog())
	return h, err
}

// readIdentity reads who is asking, and who we say we are.
func readIdentity(h *HTTP, m *hcmv3.HttpConnectionManager) {
	h.UseRemoteAddress, h.TrustedHops = m.GetUseRemoteAddress().GetValue(), m.GetXffNumTrustedHops()
	h.SkipForwardedFor, h.AppendForwardedPort = m.GetSkipXffAppend(), m.GetAppendXForwardedPort()
	h.PreserveRequestID, h.RequestIDInResponse = m.GetPreserveExternalRequestId(), m.GetAlwaysSetRequestIdInResponse()
	h.GenerateRequestID = boolOr(m.GetGenerateRequestId(), true)
	h.ForwardCert = map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]ForwardCert{
		hcmv3.HttpConnectionManager_FORWARD_ONLY: CertForwardOnly, hcmv3.HttpConnectionManager_APPEND_FORWARD: CertAppendForward,
		hcmv3.HttpConnectionManager_SANITIZE_SET: CertSanitizeSet, hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: CertAlwaysForwardOnly,
	}[m.GetForwardClientCertDetails()]
	if s := m.GetSetCurrentClientCertDetails(); s != nil {
		h.SetCert = SetCert{Subject: s.GetSubject().GetValue(), Cert: s.GetCert(), Chain: s.GetChain(), DNS: s.GetDns(), URI: s.GetUri()}
	}
	h.Via = m.GetVia()
	if n := m.GetServerName(); n != "" {
		h.ServerName = n
	}
	h.ServerHeader = map[hcmv3.HttpConnectionManager_ServerHeaderTransformation]ServerHeader{
		hcmv3.HttpConnectionManager_APPEND_IF_ABSENT: ServerAppendIfAbsent, hcmv3.HttpConnectionManager_PASS_THROUGH: ServerPass,
	}[m.GetServerHeaderTransformation()]
}

// readRules reads what becomes of paths, hosts and headers.
func readRules(h *HTTP, m *hcmv3.HttpConnectionManager) {
	h.NormalizePath, h.MergeSlashes = m.GetNormalizePath().GetValue(), m.GetMergeSlashes()
	h.EscapedSlashes = map[hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction]EscapedSlashes{
		hcmv3.HttpConnectionManager_REJECT_REQUEST: SlashesReject, hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT: SlashesRedirect,
		hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD: SlashesUnescape,
	}[m.GetPathWithEscapedSlashesAction()]
	switch {
	case m.GetStripAnyHostPort():
		h.StripPort = StripAny
	case m.GetStripMatchingHostPort():
		h.StripPort = StripMatching
	}
	h.StripTrailingDot = m.GetStripTrailingHostDot()
	h.SchemeOverwrite = m.GetSchemeHeaderTransformation().GetSchemeToOverwrite()
	h.Proxy100 = m.GetProxy_100Continue()
	common := m.GetCommonHttpProtocolOptions()
	h.Underscores = map[corev3.HttpProtocolOptions_HeadersWithUnderscoresAction]Underscores{
		corev3.HttpProtocolOptions_REJECT_REQUEST: UnderscoresReject, corev3.HttpProtocolOptions_DROP_HEADER: UnderscoresDrop,
	}[common.GetHeadersWithUnderscoresAction()]
	if n := m.GetMaxRequestHeadersKb(); n != nil {
		h.MaxHeaderBytes = n.GetValue() << 10
	}
	if n := common.GetMaxHeadersCount(); n != nil {
		h.MaxHeaders = n.GetValue()
	}
	for _, u := range m.GetUpgradeConfigs() {
		h.Upgrades = append(h.Upgrades, route.Upgrade{Type: strings.ToLower(u.GetUpgradeType()), Enabled: boolOr(u.GetEnabled(), true)})
	}
}

func readTimes(h *HTTP, m *hcmv3.HttpConnectionManager) {
	common := m.GetCommonHttpProtocolOptions()
	for _, t := range [...]struct {
		to   *time.Duration
		from *durationpb.Duration
	}{
		{&h.IdleTimeout, common.GetIdleTimeout()}, {&h.MaxDuration, common.GetMaxConnectionDuration()},
		{&h.MaxStreamDuration, common.GetMaxStreamDuration()}, {&h.StreamIdleTimeout, m.GetStreamIdleTimeout()},
		{&h.RequestTimeout, m.GetRequestTimeout()}, {&h.HeadersTimeout, m.GetRequestHeadersTimeout()},
		{&h.DelayedClose, m.GetDelayedCloseTimeout()},
	} {
		if t.from != nil {
			*t.to = t.from.AsDuration()
		}
	}
	h.MaxRequests = common.GetMaxRequestsPerConnection().GetValue()
	h.LogOnStart = m.GetFlushAccessLogOnNewRequest() || m.GetAccessLogOptions().GetFlushAccessLogOnNewRequest()
}

func readProtocols(h *HTTP, m *hcmv3.HttpConnectionManager) error {
	one := m.GetHttpProtocolOptions()
	if !boolOr(one.GetAllowAbsoluteUrl(), true) {
		return errors.New("http_protocol_options.allow_absolute_url: false is not supported: RFC 9112 section 3.2.2 has every server take absolute URLs")
	}
	h.HTTP1 = HTTP1{
		AcceptHTTP10: one.GetAcceptHttp_10(),
		DefaultHost:  one.GetDefaultHostForHttp_10(), Trailers: one.GetEnableTrailers(),
	}
	if f := one.GetHeaderKeyFormat().GetStatefulFormatter(); f != nil {
		if err := strict.Unmarshal(f.GetTypedConfig(), &preservecasev3.PreserveCaseFormatterConfig{}); err != nil {
			return fmt.Errorf("http_protocol_options.header_key_format: %w", err)
		}
		h.HTTP1.PreserveCase = true
	}
	two := m.GetHttp2ProtocolOptions()
	for _, v := range [...]struct {
		to   *uint32
		from *wrapperspb.UInt32Value
	}{
		{&h.HTTP2.MaxStreams, two.GetMaxConcurrentStreams()}, {&h.HTTP2.StreamWindow, two.GetInitialStreamWindowSize()},
		{&h.HTTP2.ConnWindow, two.GetInitialConnectionWindowSize()},
	} {
		if v.from != nil {
			*v.to = v.from.GetValue()
		}
	}
	if k := two.GetConnectionKeepalive(); k != nil {
		h.HTTP2.KeepaliveInterval, h.HTTP2.KeepaliveTimeout = k.GetInterval().AsDuration(), k.GetTimeout().AsDuration()
	}
	return nil
}

func readInternal(h *HTTP, m *hcmv3.HttpConnectionManager) (err error) {
	h.InternalUnix = m.GetInternalAddressConfig().GetUnixSockets()
	if h.Internal, err = decode.Prefixes(m.GetInternalAddressConfig().GetCidrRanges()); err != nil {
		return fmt.Errorf("internal_address_config.cidr_ranges%w", err)
	}
	return nil
}

func readRequestID(h *HTTP, m *hcmv3.HttpConnectionManager) error {
	a := m.GetRequestIdExtension().GetTypedConfig()
	if a == nil {
		return nil
	}
	var u uuidv3.UuidRequestIdConfig
	if err := strict.Unmarshal(a, &u); err != nil {
		return fmt.Errorf("request_id_extension: %w", err)
	}
	h.NoTraceInRequestID = !boolOr(u.GetPackTraceReason(), true)
	h.TraceByRequestID = boolOr(u.GetUseRequestIdForTraceSampling(), true)
	return nil
}

// readRoutes resolves the route table: by name, or as it is given.
func (b *builder) readRoutes(c *FilterChain, h *HTTP, m *hcmv3.HttpConnectionManager) error {
	switch s := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		cfg := s.Rds.GetConfigSource()
		if cfg.GetAds() == nil {
			return errors.New("rds.config_source: only ads is supported")
		}
		h.RouteName = s.Rds.GetRouteConfigName()
		h.Routes = b.routeRef(h.RouteName)
		if c.OnDemand == nil { // there the name is only a template
			timeout := 15 * time.Second
			if t := cfg.GetInitialFetchTimeout(); t != nil {
				timeout = t.AsDuration()
			}
			c.needs.routes = append(c.needs.routes, need{h.RouteName, timeout})
		}
	case *hcmv3.HttpConnectionManager_RouteConfig:
		table, err := b.inline(s.RouteConfig)
		if err != nil {
			return fmt.Errorf("route_config: %w", err)
		}
		h.Routes = FixedRoutes(s.RouteConfig.GetName(), table)
	default:
		return errors.New("the route specifier is missing")
	}
	return nil
}

func boolOr(v *wrapperspb.BoolValue, missing bool) bool {
	if v == nil {
		return missing
	}
	return v.GetValue()
}

// share reads a percentage in 1/10,000.
func share(p *typev3.Percent, missing uint32) uint32 {
	if p == nil {
		return missing
	}
	return uint32(math.Round(p.GetValue() * 100))
}

const allOfThem = 10_000

// readTracing reads tracing; without a provider nothing is sent, so that there is
// none.
func (b *builder) readTracing(h *HTTP, m *hcmv3.HttpConnectionManager) error {
	t := m.GetTracing()
	if t.GetProvider() == nil {
		return nil
	}
	out := &Tracing{
		Client: share(t.GetClientSampling(), allOfThem), Random: share(t.GetRandomSampling(), allOfThem),
		Overall: share(t.GetOverallSampling(), allOfThem), MaxPathLength: 256,
		SpawnUpstream: t.GetSpawnUpstreamSpan().GetValue(), NoPropagation: t.GetNoContextPropagation(),
		Operation: t.GetOperation(),
	}
	if n := t.GetMaxPathTagLength(); n != nil {
		out.MaxPathLength = n.GetValue()
	}
	if err := b.checkFormat(out.Operation); err != nil {
		return fmt.Errorf("tracing.operation: %w", err)
	}
	for i, c := range t.GetCustomTags() {
		tag, err := b.tag(c)
		if err != nil {
			return fmt.Errorf("tracing.custom_tags[%d]: %w", i, err)
		}
		out.Tags = append(out.Tags, tag)
	}
	h.Tracing = out
	if err := provider(out, t.GetProvider()); err != nil {
		return fmt.Errorf("tracing.provider %q: %w", t.GetProvider().GetName(), err)
	}
	return nil
}

func provider(out *Tracing, m *tracev3.Tracing_Http) error {
	var o tracev3.OpenTelemetryConfig
	if err := strict.Unmarshal(m.GetTypedConfig(), &o); err != nil {
		return err
	}
	out.Service = o.GetServiceName()
	if g := o.GetGrpcService().GetEnvoyGrpc(); g != nil {
		out.Cluster = g.GetClusterName()
		return nil
	}
	uri := o.GetHttpService().GetHttpUri()
	if uri == nil {
		return errors.New("want grpc_service.envoy_grpc or http_service")
	}
	u, err := url.Parse(uri.GetUri())
	if err != nil {
		return fmt.Errorf("http_service.http_uri: %w", err)
	}
	out.Cluster, out.HTTPPath = uri.GetCluster(), u.RequestURI()
	return nil
}

func (b *builder) tag(m *tracingv3.CustomTag) (Tag, error) {
	t := Tag{Name: m.GetTag()}
	switch s := m.GetType().(type) {
	case *tracingv3.CustomTag_Literal_:
		t.Kind, t.Value = TagLiteral, s.Literal.GetValue()
	case *tracingv3.CustomTag_RequestHeader:
		t.Kind, t.Value, t.Default = TagHeader, s.RequestHeader.GetName(), s.RequestHeader.GetDefaultValue()
	case *tracingv3.CustomTag_Environment_:
		t.Kind, t.Value, t.Default = TagEnvironment, s.Environment.GetName(), s.Environment.GetDefaultValue()
	case *tracingv3.CustomTag_Value:
		t.Kind, t.Value = TagFormat, s.Value
		return t, b.checkFormat(t.Value)
	default:
		return t, fmt.Errorf("%q: the value is missing", t.Name)
	}
	return t, nil
}
