// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
)

// systemRoots is how a rule names the operating system's certificate authorities.
const systemRoots = "system"

// Verifies says how a client finds out that it talks to the right server.
type Verifies struct {
	// NameBySNI and NameByRequest: the server is called by what each request names as its host (auto_sni),
	// and its certificate must be for that name (auto_san_validation).
	NameBySNI, NameByRequest bool
}

// An Endpoint is what a rule's TLS is towards.
type Endpoint struct {
	Host string // the service's
	HTTP bool   // requests can be looked at
	H2   bool   // HTTP/2 is spoken
	// Own: the proxy is one of ours, which finds the system's authorities by itself. An Envoy does not and is
	// pointed to its agent.
	Own bool
}

// ForRule is TLS as a rule asks for it: SIMPLE or MUTUAL. A rule that names no authority means the system's, and with these, a certificate is worth something only
// for a name: the rule's names, the SNI it gives, or the host that each request names.
func ForRule(t *intent.ClientTLS, e Endpoint) (*corev3.TransportSocket, Verifies) {
	common := &tlsv3.CommonTlsContext{TlsParams: versions()}
	if e.H2 {
		common.AlpnProtocols = []string{"h2"}
	}
	if t.Mode == intent.TLSMutual {
		if t.Credential != "" {
			common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{named(t.Credential)}
		} else {
			common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: emit.File(t.Certificate), PrivateKey: emit.File(t.PrivateKey)}}
		}
	}
	how := Verifies{NameBySNI: t.SNI == ""}
	sni := t.SNI
	if sni == "" && e.Host != "" && e.Host[0] != '*' {
		sni = e.Host // for what is not HTTP
	}
	if !t.SkipVerify {
		validate(common, t, sni, e, &how)
	}
	return client(&tlsv3.UpstreamTlsContext{Sni: sni, CommonTlsContext: common}), how
}

func validate(common *tlsv3.CommonTlsContext, t *intent.ClientTLS, sni string, e Endpoint, how *Verifies) {
	names := t.SubjectAltNames
	system := t.CA == systemRoots || t.CA == "" && t.Credential == ""
	switch {
	case len(names) > 0:
	case t.SNI == "" && e.HTTP:
		how.NameByRequest = true
	case system && sni != "":
		names = []string{sni}
	}
	v := &tlsv3.CertificateValidationContext{MatchSubjectAltNames: exact(names)}
	var secret *tlsv3.SdsSecretConfig
	switch {
	case system && e.Own:
		v.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	case system:
		secret = systemSecret()
	case t.CA != "":
		v.TrustedCa = emit.File(t.CA)
	default:
		secret = named(t.Credential + "-cacert")
	}
	if t.CRL != "" {
		v.Crl = emit.File(t.CRL)
	}
	if secret != nil {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: v, ValidationContextSdsSecretConfig: secret,
		}}
		return
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
}

var tlsVersions = map[intent.TLSVersion]tlsv3.TlsParameters_TlsProtocol{
	intent.TLS10: tlsv3.TlsParameters_TLSv1_0, intent.TLS11: tlsv3.TlsParameters_TLSv1_1,
	intent.TLS12: tlsv3.TlsParameters_TLSv1_2, intent.TLS13: tlsv3.TlsParameters_TLSv1_3,
}

// knownCiphers are what a gateway may be told to use; the front end has named the others, and an Envoy
// would refuse a port for the sake of one.
var knownCiphers = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
	"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	"ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA",
	"AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
}

func cipherSuites(wanted []string) []string {
	var out []string
	for _, c := range wanted {
		if slices.Contains(knownCiphers, c) && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}
