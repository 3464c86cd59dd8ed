// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/certs"
)

// servingNames are those by which Istio's proxies and ours know a control plane.
func servingNames() []string {
	return []string{"istiod.istio-system.svc", "localhost", "127.0.0.1", "::1"}
}

// serving is the certificate of the control plane's own ports.
type serving struct {
	root *root
	dns  []string
	ips  []net.IP
	life time.Duration

	mu    sync.Mutex
	cert  *tls.Certificate
	renew time.Time
}

func newServing(r *root, names []string, life time.Duration) (*serving, error) {
	s := &serving{root: r, life: life}
	for _, n := range append(servingNames(), names...) {
		if ip := net.ParseIP(n); ip != nil {
			s.ips = append(s.ips, ip)
			continue
		}
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if n == "" || len(n) > 253 || strings.ContainsAny(n, " /:_*@\x00") {
			return nil, fmt.Errorf("serving name %q is neither a DNS name nor an address", n)
		}
		s.dns = append(s.dns, n)
	}
	_, err := s.current(time.Now())
	return s, err
}

// current is the certificate of now; the handshake that finds it past half of its
// life makes the next one, which takes a fraction of a millisecond.
func (s *serving) current(now time.Time) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && now.Before(s.renew) {
		return s.cert, nil
	}
	key, err := certs.NewKey()
	if err != nil {
		return nil, err
	}
	leaf, err := s.root.sign(&x509.Certificate{DNSNames: s.dns, IPAddresses: s.ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, key.Public(), s.life)
	if err != nil {
		return nil, fmt.Errorf("the control plane's server certificate: %w", err)
	}
	s.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	s.renew = now.Add(s.life / 2)
	return s.cert, nil
}

// ServerTLS is the TLS of port 15012: our serving certificate, a client
// certificate if the client has one, in which case it must be good, and HTTP/2.
func (a *Authority) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"h2"},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequestClientCert, // verified below; absent for a proxy that joins
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.serving.current(time.Now()) },
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			if _, err := a.verify(cs.PeerCertificates); err != nil {
				return errors.Join(errors.New("the client certificate is refused"), err)
			}
			return nil
		},
	}
}
