// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/mesh"
)

// Names of the workload's own secrets and of the cluster that serves them.
const (
	secretDefault = "default"
	secretRoot    = "ROOTCA"
	clusterSDS    = "sds-grpc"
)

// Speaks is what travels inside mutual TLS.
type Speaks uint8

// What a client may be known to speak.
const (
	Bytes Speaks = iota
	HTTP1
	HTTP2
)

// ALPN names of Istio. The first that the peer's chains know decides what the
// bytes inside are; "istio" says no more than that mesh mTLS is meant.
const (
	alpnMesh     = "istio"
	alpnExchange = "istio-peer-exchange"
)

// offers are what a client offers. An HTTP filter that knows better (istio.alpn) overrides it
// per request; an Envoy without that filter offers this.
func offers(s Speaks) []string {
	switch s {
	case HTTP1:
		return []string{"istio-http/1.1", alpnMesh, "http/1.1"}
	case HTTP2:
		return []string{"istio-h2", alpnMesh, "h2"}
	}
	return []string{alpnMesh}
}

// ciphers are what mesh mTLS offers below TLS 1.3.
var ciphers = []string{
	"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
	"AES256-GCM-SHA384", "AES128-GCM-SHA256",
}

// agentSecret refers to a secret that the proxy's agent serves.
func agentSecret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{
		Name: name,
		SdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: clusterSDS},
				}}},
			}},
			InitialFetchTimeout: durationpb.New(0),
			ResourceApiVersion:  corev3.ApiVersion_V3,
		},
	}
}

// systemSecret refers to what the proxy's machine trusts, as far as its agent knows; it is not waited for forever.
func systemSecret() *tlsv3.SdsSecretConfig {
	s := agentSecret("file-root:system")
	s.SdsConfig.InitialFetchTimeout = nil
	return s
}

// named refers to a secret of ours. Nobody waits for it forever: a port whose certificate is
// missing opens after Envoy's default of 15 s, and resets connections.
func named(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: "kubernetes://" + name, SdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}, ResourceApiVersion: corev3.ApiVersion_V3,
	}}
}

func exact(names []string) []*matcherv3.StringMatcher {
	var out []*matcherv3.StringMatcher
	for _, n := range names {
		out = append(out, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: n}})
	}
	return out
}

// meshRoot verifies peers against the mesh's roots and, if any are given, names.
func meshRoot(names []*matcherv3.StringMatcher) *tlsv3.CommonTlsContext_CombinedValidationContext {
	return &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
		DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchSubjectAltNames: names},
		ValidationContextSdsSecretConfig: agentSecret(secretRoot),
	}}
}

func versions() *tlsv3.TlsParameters {
	// Without a maximum an Envoy's clients stop at TLS 1.2.
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
}

// Client presents the workload's certificate and expects one of names, or any of the mesh if there are none. exchange says
// that the proxy tells peers of itself before the first byte (istio.metadata_exchange).
func Client(names []string, sni string, s Speaks, exchange bool) *corev3.TransportSocket {
	alpn := offers(s)
	if exchange && s == Bytes {
		alpn = append([]string{alpnExchange}, alpn...)
	}
	return client(&tlsv3.UpstreamTlsContext{
		Sni: sni,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      versions(),
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{agentSecret(secretDefault)},
			ValidationContextType:          meshRoot(exact(names)),
			AlpnProtocols:                  alpn,
		},
	})
}

// Server asks callers for a certificate of one of the trust domains. Chains that carry HTTP answer with an HTTP version; others
// must have "istio" in common with a caller who offers nothing else, for a TLS stack may refuse a handshake
// that agrees on no protocol.
func Server(trust []mesh.TrustDomain, http, exchange bool) *corev3.TransportSocket {
	var names []*matcherv3.StringMatcher
	for _, td := range trust {
		names = append(names, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + string(td) + "/"}})
	}
	alpn := []string{"h2", "http/1.1"}
	if !http {
		alpn = append([]string{alpnMesh}, alpn...)
		if exchange {
			alpn = slices.Insert(alpn, 0, alpnExchange)
		}
	}
	params := versions()
	params.CipherSuites = ciphers
	return server(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      params,
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{agentSecret(secretDefault)},
			ValidationContextType:          meshRoot(names),
			AlpnProtocols:                  alpn,
		},
	})
}

func client(ctx *tlsv3.UpstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: emit.Any(ctx)}}
}

func server(ctx *tlsv3.DownstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: emit.Any(ctx)}}
}

// Plain secures nothing.
func Plain() *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.raw_buffer", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: emit.Any(&rawv3.RawBuffer{})}}
}

// Announced puts the PROXY header, version 1 or 2, before what inner sends; nil is plaintext.
func Announced(version int, inner *corev3.TransportSocket) *corev3.TransportSocket {
	if version == 0 {
		return inner
	}
	if inner == nil {
		inner = Plain()
	}
	v := corev3.ProxyProtocolConfig_V1
	if version == 2 {
		v = corev3.ProxyProtocolConfig_V2
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.upstream_proxy_protocol", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: emit.Any(&proxyprotov3.ProxyProtocolUpstreamTransport{Config: &corev3.ProxyProtocolConfig{Version: v}, TransportSocket: inner}),
	}}
}
