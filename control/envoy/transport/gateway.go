// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package transport

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
)

// ForGateway terminates TLS as a gateway's server says, with certificates of its own: SIMPLE, MUTUAL or OPTIONAL_MUTUAL. http says that
// requests come out.
func ForGateway(t *intent.ServerTLS, http bool) *corev3.TransportSocket {
	params := versions()
	if v, ok := tlsVersions[t.MinVersion]; ok {
		params.TlsMinimumProtocolVersion = v
	}
	if v, ok := tlsVersions[t.MaxVersion]; ok {
		params.TlsMaximumProtocolVersion = v
	}
	params.CipherSuites = cipherSuites(t.Ciphers)
	common := &tlsv3.CommonTlsContext{TlsParams: params}
	if http {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	for _, name := range t.Credentials {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, named(name))
	}
	ca := ""
	for _, c := range t.Certificates {
		common.TlsCertificates = append(common.TlsCertificates, &tlsv3.TlsCertificate{CertificateChain: emit.File(c.Certificate), PrivateKey: emit.File(c.PrivateKey)})
		if c.CA != "" {
			ca = c.CA
		}
	}
	ctx := &tlsv3.DownstreamTlsContext{CommonTlsContext: common, RequireClientCertificate: wrapperspb.Bool(t.Mode == intent.ServerMutual)}
	if t.Mode == intent.ServerMutual || t.Mode == intent.ServerOptionalMutual {
		clients(common, t, ca)
	}
	return server(ctx)
}

// clients verifies those who call.
func clients(common *tlsv3.CommonTlsContext, t *intent.ServerTLS, ca string) {
	v := &tlsv3.CertificateValidationContext{
		MatchSubjectAltNames: exact(t.SubjectAltNames), VerifyCertificateSpki: t.SPKI, VerifyCertificateHash: t.Hashes,
	}
	if t.CRL != "" {
		v.Crl = emit.File(t.CRL)
	}
	if ca != "" {
		v.TrustedCa = emit.File(ca)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
		return
	}
	name := t.CACredential
	if name == "" && len(t.Credentials) > 0 {
		name = t.Credentials[0] + "-cacert"
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
		DefaultValidationContext: v, ValidationContextSdsSecretConfig: named(name),
	}}
}
