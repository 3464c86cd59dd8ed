// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var zeros = make([]byte, 16<<10)

// An app says its name and what it was asked for, and counts connections.
type app struct {
	Addr     netip.AddrPort
	accepted atomic.Int64

	mu   sync.Mutex
	seen http.Header
}

func newApp(t testing.TB, name string) *app {
	t.Helper()
	a := &app{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.seen = r.Header.Clone()
		a.mu.Unlock()
		w.Header().Set("App", name)
		if r.URL.Path == "/big" { // without end
			for err := error(nil); err == nil; {
				_, err = w.Write(zeros)
			}
			return
		}
		_, _ = w.Write([]byte(name + " " + r.URL.Path))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			a.accepted.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	a.Addr = netip.MustParseAddrPort(srv.Listener.Addr().String())
	return a
}

// last returns the headers of the last request.
func (a *app) last() http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// newForeignIdentity makes a certificate that names uri and that nobody trusts.
func newForeignIdentity(t testing.TB, uri string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
