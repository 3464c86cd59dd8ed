// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// A Server is a DownstreamTlsContext compiled.
type Server struct {
	Config        *tls.Config
	RequireClient bool
	RequireSNI    bool
	// Verifies is true if a client certificate that is accepted proves an identity.
	Verifies bool
	ALPN     []string
	Wants    []Want // secrets to subscribe to
	parts
}

// A Client is an UpstreamTlsContext compiled. NextProtos of Config is not set:
// it depends on what is spoken; see ALPN.
type Client struct {
	Config *tls.Config
	ALPN   []string
	Mutual bool // a certificate is presented
	Wants  []Want
	parts
}

// parts are what a handshake needs.
type parts struct {
	certificates []source
	trust        []source
}

// Ready returns an error while something that a handshake needs is missing.
func (p *parts) Ready() error {
	for _, s := range p.certificates {
		if _, err := s.certificate(); err != nil {
			return err
		}
	}
	for _, s := range p.trust {
		if _, err := s.roots(); err != nil {
			return err
		}
	}
	return nil
}

// Leaf returns the first certificate that is presented now; nil if it is missing.
func (s *Server) Leaf() *x509.Certificate {
	c, err := s.certificates[0].certificate()
	if err != nil {
		return nil
	}
	return c.Leaf
}

// Server compiles a DownstreamTlsContext.
func (k *Keeper) Server(c *tlsv3.DownstreamTlsContext, compile StringOf) (*Server, error) {
	common := c.GetCommonTlsContext()
	s := &Server{
		Config:        &tls.Config{SessionTicketsDisabled: true},
		RequireClient: c.GetRequireClientCertificate().GetValue(),
		RequireSNI:    c.GetRequireSni().GetValue(),
		ALPN:          common.GetAlpnProtocols(),
	}
	v, err := k.common(s.Config, &s.parts, &s.Wants, common, x509.ExtKeyUsageClientAuth, compile)
	if err != nil {
		return nil, err
	}
	if len(s.certificates) == 0 {
		return nil, errors.New("a server needs a certificate: tls_certificates or tls_certificate_sds_secret_configs")
	}
	s.Config.GetCertificate = s.choose
	s.Config.VerifyConnection = v.check
	s.Verifies = v.proves()
	switch {
	case s.RequireClient:
		s.Config.ClientAuth = tls.RequireAnyClientCert // verified by v.check, with the roots of now
	case v.proves() || v.acceptUntrusted:
		s.Config.ClientAuth = tls.RequestClientCert
	}
	s.offerALPN()
	return s, nil
}

// offerALPN chooses a protocol that both sides know and goes on without one if
// there is none, as Envoy does; crypto/tls by itself would end the handshake.
func (s *Server) offerALPN() {
	if len(s.ALPN) == 0 {
		return
	}
	without := s.Config.Clone()
	s.Config.NextProtos = s.ALPN
	requireSNI := s.RequireSNI
	s.Config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if requireSNI && hello.ServerName == "" {
			return nil, errNoSNI
		}
		for _, p := range hello.SupportedProtos {
			if slices.Contains(s.ALPN, p) {
				return nil, nil
			}
		}
		return without, nil
	}
}

var errNoSNI = errors.New("the client named no server (SNI), which is required here")

// choose picks the first certificate that the client can use.
func (s *Server) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.RequireSNI && hello.ServerName == "" {
		return nil, errNoSNI
	}
	var first *tls.Certificate
	for _, src := range s.certificates {
		c, err := src.certificate()
		if err != nil {
			return nil, err
		}
		if len(s.certificates) == 1 || hello.SupportsCertificate(c) == nil {
			return c, nil
		}
		if first == nil {
			first = c
		}
	}
	return first, nil
}

// Client compiles an UpstreamTlsContext. AutoSAN verifies the name that was sent
// as SNI, in addition.
func (k *Keeper) Client(c *tlsv3.UpstreamTlsContext, autoSAN bool, compile StringOf) (*Client, error) {
	common := c.GetCommonTlsContext()
	out := &Client{
		// Names are checked by v.check: whose certificate it has to be is said by
		// the validation context, not by the SNI.
		Config: &tls.Config{SessionTicketsDisabled: true, InsecureSkipVerify: true, ServerName: c.GetSni()},
		ALPN:   common.GetAlpnProtocols(),
	}
	v, err := k.common(out.Config, &out.parts, &out.Wants, common, x509.ExtKeyUsageServerAuth, compile)
	if err != nil {
		return nil, err
	}
	v.byServerName = autoSAN || c.GetAutoSniSanValidation()
	if v.byServerName && len(v.trust) == 0 {
		return nil, errors.New("auto_san_validation without trusted_ca verifies nothing")
	}
	out.Config.VerifyConnection = v.check
	switch len(out.certificates) {
	case 0:
	case 1:
		out.Mutual = true
		cert := out.certificates[0]
		out.Config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert.certificate() }
	default:
		return nil, errors.New("a client has one certificate at most")
	}
	return out, nil
}

func (k *Keeper) common(c *tls.Config, p *parts, wants *[]Want, common *tlsv3.CommonTlsContext, usage x509.ExtKeyUsage, compile StringOf) (*verifier, error) {
	if err := setParams(c, common.GetTlsParams()); err != nil {
		return nil, fmt.Errorf("tls_params: %w", err)
	}
	for i, cert := range common.GetTlsCertificates() {
		src, err := k.certificateSource(cert)
		if err != nil {
			return nil, fmt.Errorf("tls_certificates[%d]: %w", i, err)
		}
		p.certificates = append(p.certificates, src)
	}
	for i, sds := range common.GetTlsCertificateSdsSecretConfigs() {
		src, err := k.sds(sds, wants)
		if err != nil {
			return nil, fmt.Errorf("tls_certificate_sds_secret_configs[%d]: %w", i, err)
		}
		p.certificates = append(p.certificates, src)
	}
	v, err := k.validation(p, wants, common, usage, compile)
	if err != nil {
		return nil, err
	}
	v.trust = p.trust
	return v, nil
}

// validation reads the three ways to say how a peer is verified.
func (k *Keeper) validation(p *parts, wants *[]Want, common *tlsv3.CommonTlsContext, usage x509.ExtKeyUsage, compile StringOf) (*verifier, error) {
	own, sds := common.GetValidationContext(), common.GetValidationContextSdsSecretConfig()
	if combined := common.GetCombinedValidationContext(); combined != nil {
		own, sds = combined.GetDefaultValidationContext(), combined.GetValidationContextSdsSecretConfig()
	}
	if sds != nil {
		src, err := k.sds(sds, wants)
		if err != nil {
			return nil, fmt.Errorf("validation_context_sds_secret_config: %w", err)
		}
		p.trust = append(p.trust, src) // takes the place of the context's own roots
	} else {
		src, err := k.rootsSource(own)
		if err != nil {
			return nil, fmt.Errorf("validation_context: %w", err)
		}
		if src != nil {
			p.trust = append(p.trust, src)
		}
	}
	v, err := newVerifier(own, usage, compile)
	if err != nil {
		return nil, fmt.Errorf("validation_context: %w", err)
	}
	if len(v.names) > 0 && len(p.trust) == 0 && !v.acceptUntrusted {
		return nil, errors.New("validation_context: names are matched but there is no trusted_ca: anybody could make a certificate with them")
	}
	return v, nil
}
