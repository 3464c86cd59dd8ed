// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/meltemi/meltemi/mesh"
)

// root is a certificate authority of a few lines.
type root struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	mu    sync.Mutex
	life  time.Duration
	fail  error
	calls int
	edit  func(*x509.Certificate) // of the next leaves
}

func newRoot(t testing.TB) *root {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &root{cert: cert, key: key, life: time.Hour, pem: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})}
}

func (r *root) Sign(_ context.Context, csrPEM []byte, _ time.Duration) (chain, roots []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.fail != nil {
		return nil, nil, r.fail
	}
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(r.calls) + 1), URIs: csr.URIs, NotBefore: time.Now().Add(-2 * time.Minute), NotAfter: time.Now().Add(r.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if r.edit != nil {
		r.edit(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, r.cert, csr.PublicKey, r.key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), r.pem, nil
}

func identity(sa string) mesh.Identity {
	return mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: mesh.ServiceAccount(sa)}
}

func (r *root) source(t testing.TB, id mesh.Identity) *Source {
	t.Helper()
	s := &Source{}
	v, err := (&Rotator{Identity: id, Authority: r, Source: s}).fetch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.Set(v)
	return s
}

// shake performs a handshake and an exchange of one byte, and returns both ends' errors.
func shake(t testing.TB, server, client *tls.Config) (clientErr, serverErr error, cs tls.ConnectionState) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		a.Close()
		done <- err
	}()
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1)) // TLS 1.3: a server's refusal arrives here
		cs = c.ConnectionState()
	}
	b.Close()
	return clientErr, <-done, cs
}

func TestMutualTLS(t *testing.T) {
	r := newRoot(t)
	web, cart := r.source(t, identity("web")), r.source(t, identity("cart"))
	stranger := newRoot(t).source(t, identity("cart"))
	foreign := r.source(t, mesh.Identity{TrustDomain: "other.org", Namespace: "shop", ServiceAccount: "cart"})
	exactly := func(sa string) TLS { return TLS{Peers: []Match{{Exact: identity(sa).String()}}} }
	for name, c := range map[string]struct {
		server, client *tls.Config
		bad            string
	}{
		"own trust domain":   {web.ServerConfig(TLS{}), cart.ClientConfig(TLS{}), ""},
		"exact names":        {web.ServerConfig(exactly("cart")), cart.ClientConfig(exactly("web")), ""},
		"prefix":             {web.ServerConfig(TLS{Peers: []Match{InTrustDomain("cluster.local")}}), cart.ClientConfig(TLS{}), ""},
		"TLS 1.3 only":       {web.ServerConfig(TLS{MinVersion: tls.VersionTLS13}), cart.ClientConfig(TLS{}), ""},
		"another server":     {web.ServerConfig(TLS{}), cart.ClientConfig(exactly("bank")), "peer is spiffe://cluster.local/ns/shop/sa/web, which is none"},
		"another client":     {web.ServerConfig(exactly("bank")), cart.ClientConfig(TLS{}), "bad certificate"},
		"another root":       {web.ServerConfig(TLS{}), stranger.ClientConfig(TLS{}), "unknown authority"},
		"other trust domain": {web.ServerConfig(TLS{}), foreign.ClientConfig(TLS{}), "only trust domain other.org"},
		"empty match":        {web.ServerConfig(TLS{}), cart.ClientConfig(TLS{Peers: []Match{{}}}), "none of the 1 identities"},
		"no client cert":     {web.ServerConfig(TLS{}), &tls.Config{InsecureSkipVerify: true}, "certificate required"},
		"TLS 1.1":            {web.ServerConfig(TLS{}), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
		"no certificate yet": {web.ServerConfig(TLS{}), (&Source{}).ClientConfig(TLS{}), "no certificate yet"},
	} {
		t.Run(name, func(t *testing.T) {
			clientErr, serverErr, cs := shake(t, c.server, c.client)
			if c.bad != "" {
				if clientErr == nil || !strings.Contains(clientErr.Error(), c.bad) {
					t.Errorf("client: %v; server: %v; want %q", clientErr, serverErr, c.bad)
				}
				return
			}
			if clientErr != nil || serverErr != nil {
				t.Fatalf("client: %v; server: %v", clientErr, serverErr)
			}
			if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 {
				t.Errorf("version %x, key exchange %v", cs.Version, cs.CurveID)
			}
			if id, err := PeerIdentity(&cs); err != nil || id != identity("web") {
				t.Errorf("peer %v, %v", id, err)
			}
		})
	}
}

func TestCertificatesThatAreNoSVIDs(t *testing.T) {
	other, _ := url.Parse("spiffe://cluster.local/ns/shop/sa/other")
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		want string
	}{
		"expired":      {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "expired"},
		"not yet":      {func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "not yet valid"},
		"a CA":         {func(c *x509.Certificate) { c.IsCA = true }, "is a CA's"},
		"two names":    {func(c *x509.Certificate) { c.URIs = append(c.URIs, other) }, "2 URI names"},
		"no name":      {func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"x"} }, "0 URI names"},
		"another name": {func(c *x509.Certificate) { c.URIs = []*url.URL{other} }, "asked for spiffe://cluster.local/ns/shop/sa/web, got"},
		"not SPIFFE":   {func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "x"}} }, "does not begin with spiffe"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			r.edit = c.edit
			_, err := (&Rotator{Identity: identity("web"), Authority: r, Source: &Source{}}).fetch(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	r := newRoot(t)
	r.edit = func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	serverOnly := r.source(t, identity("web"))
	if _, serverErr, _ := shake(t, r.source(t, identity("cart")).ServerConfig(TLS{}), serverOnly.ClientConfig(TLS{})); serverErr == nil {
		t.Error("a server's certificate was taken from a client")
	}
}

func TestPEM(t *testing.T) {
	r := newRoot(t)
	v := r.source(t, identity("web")).Current()
	key, err := v.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadSVID(v.ChainPEM(), key, v.RootPEM)
	if err != nil || again.Identity != v.Identity {
		t.Fatal(again, err)
	}
	for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), v.LogValue().String()} {
		if strings.Contains(text, "PrivateKey") || !strings.Contains(text, "spiffe://cluster.local/ns/shop/sa/web until") {
			t.Errorf("prints as %q", text)
		}
	}
	otherKey, _ := NewKey()
	bad := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	_, err = NewSVID(v.ChainPEM(), otherKey, v.RootPEM)
	bad("another key", err, "another key")
	_, err = NewSVID(v.ChainPEM(), v.cert.PrivateKey.(*ecdsa.PrivateKey), newRoot(t).pem)
	bad("another root", err, "unknown authority")
	_, err = ParseRoots(v.ChainPEM())
	bad("a leaf as root", err, "no CA")
	_, err = ParseCertificates(nil)
	bad("nothing", err, "no certificate")
	_, err = ParseCertificates(append(v.ChainPEM(), "rest"...))
	bad("rest", err, "no PEM")
	_, err = ParseCertificates(key)
	bad("a key", err, "among certificates")
	_, err = ParseCertificates([]byte(strings.Repeat(string(v.ChainPEM()), maxChain+1)))
	bad("too many", err, "more than")
	_, err = ParseKey(v.ChainPEM())
	bad("a certificate as key", err, `of type "CERTIFICATE"`)
	_, _, err = splitAnswer([]string{"leaf"})
	bad("no roots", err, "1 parts")
}

// go-spiffe, the reference implementation, is the peer on either side.
func TestGoSPIFFEAgrees(t *testing.T) {
	r := newRoot(t)
	ours := r.source(t, identity("web"))
	theirs := r.source(t, identity("cart")).Current()
	key, _ := theirs.KeyPEM()
	svid, err := x509svid.Parse(theirs.ChainPEM(), key)
	if err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	bundle := x509bundle.FromX509Authorities(td, []*x509.Certificate{r.cert})
	web := tlsconfig.AuthorizeID(spiffeid.RequireFromString(identity("web").String()))
	if c, s, _ := shake(t, ours.ServerConfig(TLS{}), tlsconfig.MTLSClientConfig(svid, bundle, web)); c != nil || s != nil {
		t.Errorf("go-spiffe as client: %v, %v", c, s)
	}
	if c, s, _ := shake(t, tlsconfig.MTLSServerConfig(svid, bundle, web), ours.ClientConfig(TLS{Peers: []Match{{Exact: identity("cart").String()}}})); c != nil || s != nil {
		t.Errorf("go-spiffe as server: %v, %v", c, s)
	}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoot(t)
		s := &Source{}
		ctx, cancel := context.WithCancel(t.Context())
		r.fail = errors.New("authority is down")
		done := make(chan error, 1)
		go func() { done <- (&Rotator{Identity: identity("web"), Authority: r, Source: s}).Run(ctx) }()

		set := func(life time.Duration, fail error) {
			r.mu.Lock()
			r.life, r.fail = life, fail
			r.mu.Unlock()
		}
		calls := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.calls }
		time.Sleep(10 * time.Second)
		if n := calls(); n < 4 || n > 7 {
			t.Errorf("%d requests in 10 s of failure", n)
		}
		set(time.Hour, nil)
		v, err := s.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		changed := s.Changed()
		n := calls()
		time.Sleep(29 * time.Minute)
		if calls() != n {
			t.Error("renewed before half of its life")
		}
		time.Sleep(2 * time.Minute)
		<-changed
		if next := s.Current(); next == v || calls() != n+1 {
			t.Errorf("not renewed after half of its life; %d requests", calls()-n)
		}
		v = s.Current()
		set(time.Hour, errors.New("authority is down"))
		time.Sleep(50 * time.Minute)
		if s.Current() != v || time.Until(v.NotAfter()) < 0 {
			t.Error("the certificate was taken away")
		}
		set(time.Hour, nil)
		time.Sleep(3 * time.Minute)
		if s.Current() == v {
			t.Error("no renewal after the outage")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRotationWithoutIdentityIsRefused(t *testing.T) {
	if err := (&Rotator{Authority: newRoot(t), Source: &Source{}}).Run(t.Context()); err == nil {
		t.Error("no error")
	}
	if err := (&Rotator{Identity: identity("web")}).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func BenchmarkHandshake(b *testing.B) {
	r := newRoot(b)
	server, client := r.source(b, identity("web")).ServerConfig(TLS{}), r.source(b, identity("cart")).ClientConfig(TLS{})
	for b.Loop() {
		if c, s, _ := shake(b, server, client); c != nil || s != nil {
			b.Fatal(c, s)
		}
	}
}
