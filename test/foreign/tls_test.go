// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// An authority signs certificates that the foreign control plane hands out.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// leaf makes a certificate with this serial number.
func (a *authority) leaf(t *testing.T, serial int64) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key = newKey(t)
	id, _ := url.Parse("spiffe://foreign.example/workload")
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

const secretYAML = `"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
name: %s
`

func inline(kind string, der []byte) string {
	text := string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	return "{inline_string: \"" + strings.ReplaceAll(text, "\n", "\\n") + "\"}"
}

// secret is a certificate as the control plane hands it out.
func (a *authority) secret(t *testing.T, name string, serial int64) string {
	t.Helper()
	der, key := a.leaf(t, serial)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(secretYAML+"tls_certificate:\n  certificate_chain: %s\n  private_key: %s\n", name, inline("CERTIFICATE", der), inline("PRIVATE KEY", raw))
}

func (a *authority) roots(name string) string {
	return fmt.Sprintf(secretYAML+"validation_context: {trusted_ca: %s}\n", name, inline("CERTIFICATE", a.cert.Raw))
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// ask sends a request over TLS with a certificate.
func (a *authority) ask(t *testing.T, addr netip.AddrPort) (*tls.ConnectionState, error) {
	t.Helper()
	der, key := a.leaf(t, 1000)
	return request(addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
}

func (a *authority) anonymous(addr netip.AddrPort) error {
	_, err := request(addr, &tls.Config{InsecureSkipVerify: true})
	return err
}

func request(addr netip.AddrPort, cfg *tls.Config) (*tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr.String(), cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	state := conn.ConnectionState()
	return &state, nil
}

// sawClients keeps the serial numbers of clients' certificates.
type sawClients struct {
	mu  sync.Mutex
	all []int64
}

func (s *sawClients) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 || s.all[len(s.all)-1] != n {
		s.all = append(s.all, n)
	}
}

func (s *sawClients) last() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return 0
	}
	return s.all[len(s.all)-1]
}

func (s *sawClients) list() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int64(nil), s.all...)
}

// secureApp is a service that demands a client's certificate.
func secureApp(t *testing.T, a *authority, seen *sawClients) netip.AddrPort {
	t.Helper()
	der, key := a.leaf(t, 2)
	addr := freeporttest.Addr(t)
	ln, err := tls.Listen("tcp", addr.String(), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen.add(r.TLS.PeerCertificates[0].SerialNumber.Int64())
			_, _ = io.WriteString(w, "vault")
		}),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return addr
}

// unindent moves a block two columns to the left.
func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines[1:], "\n")
}
