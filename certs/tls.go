// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// TLS is what a caller chooses about mutual TLS between workloads.
type TLS struct {
	// ALPN is offered, or chosen from. A client that offers only protocols the server
	// does not list is refused by crypto/tls, while Envoy would go on without one.
	ALPN []string
	// Peers are the identities we talk to; one match suffices. Empty means
	// everybody of our own trust domain.
	Peers []Match
	// ServerName is the SNI a client sends; it is not verified, identities are.
	ServerName string
	// MinVersion is tls.VersionTLS12 unless set. The greatest is TLS 1.3.
	MinVersion uint16
}

// suites are what TLS 1.2 may use: forward secrecy and an AEAD, as in Istio's list.
func suites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	}
}

func (o TLS) base() *tls.Config {
	c := &tls.Config{
		MinVersion:             max(o.MinVersion, tls.VersionTLS12),
		MaxVersion:             tls.VersionTLS13,
		CipherSuites:           suites(),
		NextProtos:             o.ALPN,
		SessionTicketsDisabled: true, // each connection meets the certificates and roots of now
	}
	return c
}

// ServerConfig demands a client certificate from one of the peers. The key
// exchange prefers X25519MLKEM768, as Go does by default.
func (s *Source) ServerConfig(o TLS) *tls.Config {
	c := o.base()
	c.ClientAuth = tls.RequireAnyClientCert // verified below, against the roots of now
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() }
	c.VerifyConnection = s.checker(o.Peers, x509.ExtKeyUsageClientAuth)
	return c
}

// ClientConfig presents our certificate and accepts a server that is one of the peers.
func (s *Source) ClientConfig(o TLS) *tls.Config {
	c := o.base()
	c.ServerName = o.ServerName
	c.InsecureSkipVerify = true // names mean nothing here; VerifyConnection checks chain and identity
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.certificate() }
	c.VerifyConnection = s.checker(o.Peers, x509.ExtKeyUsageServerAuth)
	return c
}

func (s *Source) certificate() (*tls.Certificate, error) {
	v := s.Current()
	if v == nil {
		return nil, errNoCertificate()
	}
	return &v.cert, nil
}

func errNoCertificate() error {
	return errors.New("this workload has no certificate yet: is the certificate authority reachable?")
}

// checker verifies a peer with the roots of now and says which of its properties is wrong.
func (s *Source) checker(peers []Match, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		v := s.Current()
		if v == nil {
			return errNoCertificate()
		}
		id, err := Verify(cs.PeerCertificates, v.Roots, usage)
		if err != nil {
			return fmt.Errorf("peer's certificate: %w", err)
		}
		return admit(id, peers, v.Identity.TrustDomain)
	}
}

func admit(id mesh.Identity, peers []Match, own mesh.TrustDomain) error {
	if len(peers) == 0 {
		if id.TrustDomain == own {
			return nil
		}
		return fmt.Errorf("peer is %s; only trust domain %s is accepted here", id, own)
	}
	uri := id.String()
	for _, m := range peers {
		if m.Accepts(uri) {
			return nil
		}
	}
	return fmt.Errorf("peer is %s, which is none of the %d identities accepted here", id, len(peers))
}

// PeerIdentity is who the other end of a finished handshake is, one that was
// made with a configuration of a Source.
func PeerIdentity(cs *tls.ConnectionState) (mesh.Identity, error) {
	if len(cs.PeerCertificates) == 0 {
		return mesh.Identity{}, errors.New("the peer presented no certificate")
	}
	return IdentityOf(cs.PeerCertificates[0])
}

// ControlPlaneConfig is for a client of the control plane, whose server is known
// by its DNS name and a pinned root. It presents the Source's certificate while that is
// valid, and none otherwise: a token then has to do. A nil Source presents none.
func ControlPlaneConfig(roots *x509.CertPool, s *Source) *tls.Config {
	c := TLS{ALPN: []string{"h2"}}.base()
	c.RootCAs = roots
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if s != nil {
			if v := s.Current(); v != nil && time.Now().Before(v.NotAfter()) {
				return &v.cert, nil
			}
		}
		return &tls.Certificate{}, nil
	}
	return c
}
