// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// Names of the workload's own secrets and of the cluster that serves them.
const (
	secretDefault = "default"
	secretRoot    = "ROOTCA"
	clusterSDS    = "sds-grpc"
)

// ALPN names of Istio. The first that the peer's chains know decides what the
// bytes inside are; "istio" says no more than that mesh mTLS is meant.
var (
	alpnMeshHTTP1 = []string{"istio-http/1.1", "istio", "http/1.1"}
	alpnMeshHTTP2 = []string{"istio-h2", "istio", "h2"}
	alpnMeshTCP   = []string{"istio"}
	alpnServer    = []string{"h2", "http/1.1"}
)

// sidecarCiphers are what mesh mTLS offers below TLS 1.3.
var sidecarCiphers = []string{
	"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
	"AES256-GCM-SHA384", "AES128-GCM-SHA256",
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
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

func exactNames(names []string) []*matcherv3.StringMatcher {
	var out []*matcherv3.StringMatcher
	for _, n := range names {
		out = append(out, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: n}})
	}
	return out
}

// meshRoot verifies peers against the mesh's root and, if any are given, names.
func meshRoot(names []*matcherv3.StringMatcher) *tlsv3.CommonTlsContext_CombinedValidationContext {
	return &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
		DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchSubjectAltNames: names},
		ValidationContextSdsSecretConfig: agentSecret(secretRoot),
	}}
}

// meshClient presents the workload's certificate and expects one of names.
func meshClient(names []string, sni string, alpn []string) *corev3.TransportSocket {
	return socketTLS(&tlsv3.UpstreamTlsContext{
		Sni: sni,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
				TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{agentSecret(secretDefault)},
			ValidationContextType:          meshRoot(exactNames(names)),
			AlpnProtocols:                  alpn,
		},
	})
}

// meshServer asks callers for a certificate of a trust domain of the mesh.
func meshServer(s *intent.Settings) *corev3.TransportSocket {
	var names []*matcherv3.StringMatcher
	for _, td := range append([]mesh.TrustDomain{s.TrustDomain}, s.TrustAliases...) {
		names = append(names, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + string(td) + "/"}})
	}
	return socketServerTLS(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
				TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
				CipherSuites:              sidecarCiphers,
			},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{agentSecret(secretDefault)},
			ValidationContextType:          meshRoot(names),
			AlpnProtocols:                  alpnServer,
		},
	})
}

// ownClient is TLS as a rule asks for it: SIMPLE or MUTUAL, with files.
func ownClient(t *intent.ClientTLS, h2 bool) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
	}
	if h2 {
		common.AlpnProtocols = []string{"h2"}
	}
	if t.Mode == intent.TLSMutual {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: fileData(t.Certificate), PrivateKey: fileData(t.PrivateKey)}}
	}
	if !t.SkipVerify && (t.CA != "" || len(t.SubjectAltNames) > 0) {
		v := &tlsv3.CertificateValidationContext{MatchSubjectAltNames: exactNames(t.SubjectAltNames)}
		if t.CA == "" || t.CA == "system" {
			v.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
		} else {
			v.TrustedCa = fileData(t.CA)
		}
		if t.CRL != "" {
			v.Crl = fileData(t.CRL)
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return socketTLS(&tlsv3.UpstreamTlsContext{Sni: t.SNI, CommonTlsContext: common})
}

func fileData(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func socketTLS(ctx *tlsv3.UpstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(ctx)}}
}

func socketServerTLS(ctx *tlsv3.DownstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(ctx)}}
}

func socketPlain() *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.raw_buffer", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&rawv3.RawBuffer{})}}
}

var tlsVersions = map[intent.TLSVersion]tlsv3.TlsParameters_TlsProtocol{
	intent.TLS10: tlsv3.TlsParameters_TLSv1_0, intent.TLS11: tlsv3.TlsParameters_TLSv1_1,
	intent.TLS12: tlsv3.TlsParameters_TLSv1_2, intent.TLS13: tlsv3.TlsParameters_TLSv1_3,
}

// gatewayServer terminates TLS at a gateway; nil with a reason if that is not
// possible with what the server says.
func gatewayServer(s *intent.Settings, srv *intent.Server, http bool) (*corev3.TransportSocket, string) {
	t := srv.TLS
	if t.Mode == intent.ServerMesh {
		return meshServer(s), ""
	}
	if len(t.Credentials) > 0 {
		return nil, "credentialName needs a store of secrets, which this mesh has none of; name files instead"
	}
	if len(t.Certificates) == 0 {
		return nil, "no certificate is given"
	}
	minimum := tlsv3.TlsParameters_TLSv1_2
	if v, ok := tlsVersions[t.MinVersion]; ok {
		minimum = v
	}
	maximum := tlsv3.TlsParameters_TLSv1_3
	if v, ok := tlsVersions[t.MaxVersion]; ok {
		maximum = v
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: minimum, TlsMaximumProtocolVersion: maximum, CipherSuites: t.Ciphers},
	}
	if http {
		common.AlpnProtocols = alpnServer
	}
	ca := ""
	for _, c := range t.Certificates {
		common.TlsCertificates = append(common.TlsCertificates, &tlsv3.TlsCertificate{CertificateChain: fileData(c.Certificate), PrivateKey: fileData(c.PrivateKey)})
		if c.CA != "" {
			ca = c.CA
		}
	}
	ctx := &tlsv3.DownstreamTlsContext{CommonTlsContext: common, RequireClientCertificate: wrapperspb.Bool(t.Mode == intent.ServerMutual)}
	if t.Mode == intent.ServerMutual || t.Mode == intent.ServerOptionalMutual {
		if ca == "" {
			return nil, "mutual TLS needs caCertificates"
		}
		v := &tlsv3.CertificateValidationContext{
			TrustedCa: fileData(ca), MatchSubjectAltNames: exactNames(t.SubjectAltNames),
			VerifyCertificateSpki: t.SPKI, VerifyCertificateHash: t.Hashes,
		}
		if t.CRL != "" {
			v.Crl = fileData(t.CRL)
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return socketServerTLS(ctx), ""
}
