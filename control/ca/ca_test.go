// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
)

func identity(ns, sa string) mesh.Identity {
	return mesh.Identity{TrustDomain: "cluster.local", Namespace: mesh.Namespace(ns), ServiceAccount: mesh.ServiceAccount(sa)}
}

// serve runs an authority on a port of its own, over TLS.
func serve(t testing.TB, cfg Config) (*Authority, string) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(a.ServerTLS())))
	a.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return a, l.Addr().String()
}

func (a *Authority) token(t testing.TB, g Grant) string {
	t.Helper()
	token, _, err := a.Tokens().Issue(g, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// client asks a served authority, with a token and with src's certificate, where given.
func client(t testing.TB, a *Authority, addr, token string, src *certs.Source) *certs.CA {
	t.Helper()
	c, err := certs.NewCA(certs.CAConfig{
		Target: addr, Source: src,
		Roots: func() (*x509.CertPool, error) { return certs.ParseRoots(a.RootPEM()) },
		Token: func() (string, error) { return token, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t testing.TB, id mesh.Identity) (csr []byte, load func(chain, roots []byte) *certs.SVID) {
	t.Helper()
	key, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err = certs.NewRequest(id, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr, func(chain, roots []byte) *certs.SVID {
		t.Helper()
		v, err := certs.NewSVID(chain, key, roots)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestJoinThenRenewByCertificate(t *testing.T) {
	a, addr := serve(t, Config{})
	web := identity("shop", "web")
	token := a.token(t, ForIdentity(web))
	csr, load := request(t, web)
	chain, roots, err := client(t, a, addr, token, nil).Sign(t.Context(), csr, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := load(chain, roots)
	leaf := v.Leaf()
	if life := time.Until(leaf.NotAfter); life < 23*time.Hour || life > 24*time.Hour {
		t.Errorf("lifetime %v", life)
	}
	if back := time.Since(leaf.NotBefore); back < time.Minute || back > 4*time.Minute {
		t.Errorf("dated back by %v", back)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || len(leaf.ExtKeyUsage) != 2 || leaf.IsCA || len(leaf.Subject.Names) != 0 ||
		leaf.SerialNumber.BitLen() < 64 || len(leaf.URIs) != 1 {
		t.Errorf("leaf: %+v", leaf)
	}

	// go-spiffe, the reference implementation, agrees.
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	bundle, err := x509bundle.Parse(td, roots)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := certs.ParseCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := x509svid.Verify(parsed, bundle); err != nil || id.String() != web.String() {
		t.Errorf("go-spiffe: %v, %v", id, err)
	}

	src := &certs.Source{}
	src.Set(v)
	again, load := request(t, web)
	chain, roots, err = client(t, a, addr, "", src).Sign(t.Context(), again, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(load(chain, roots).NotAfter()); life > time.Minute {
		t.Errorf("asked for a minute, got %v", life)
	}
	other, _ := request(t, identity("shop", "bank"))
	if _, _, err := client(t, a, addr, "", src).Sign(t.Context(), other, 0); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another identity by certificate: %v", err)
	}
}

func poll(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("the condition did not come true in time")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestAuthenticateForStreams(t *testing.T) {
	a, _ := serve(t, Config{})
	if _, err := a.Authenticate(t.Context()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
	if id, ok := (Grant{Namespace: "shop"}).sole("td"); ok {
		t.Errorf("a namespace is one identity: %v", id)
	}
}

func TestLimitPerPeer(t *testing.T) {
	l := newLimiter(1, 2)
	now := time.Now()
	p, q := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	got := fmt.Sprint(l.take(p, now), l.take(p, now), l.take(p, now), l.take(q, now), l.take(p, now.Add(time.Second)), l.take(netip.Addr{}, now))
	if got != "true true false true true true" {
		t.Error(got)
	}
	v6 := newLimiter(1, 1)
	if !v6.take(netip.MustParseAddr("2001:db8::1"), now) || v6.take(netip.MustParseAddr("2001:db8::2"), now) || !v6.take(netip.MustParseAddr("2001:db8:1::1"), now) {
		t.Error("IPv6 peers are not counted by /64")
	}
	for i := range 3 * maxPeers {
		l.take(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(l.peers) > maxPeers {
		t.Errorf("%d peers are counted", len(l.peers))
	}
	a, addr := serve(t, Config{RequestsPerSecond: 1e-6, Burst: 1})
	c := client(t, a, addr, a.token(t, ForIdentity(identity("shop", "web"))), nil)
	csr, _ := request(t, identity("shop", "web"))
	if _, _, err := c.Sign(t.Context(), csr, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Sign(t.Context(), csr, 0); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the second request: %v", err)
	}
}

func TestServingCertificate(t *testing.T) {
	a, err := Open(Config{Dir: t.TempDir(), ServingNames: []string{"Mesh.Example.org.", "192.0.2.1"}, ServingLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	first, err := a.serving.current(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"istiod.istio-system.svc", "localhost", "127.0.0.1", "::1", "mesh.example.org", "192.0.2.1"} {
		if err := first.Leaf.VerifyHostname(n); err != nil {
			t.Error(err)
		}
	}
	if again, _ := a.serving.current(now.Add(29 * time.Minute)); again != first {
		t.Error("renewed too early")
	}
	if next, _ := a.serving.current(now.Add(31 * time.Minute)); next == first {
		t.Error("not renewed at half of its life")
	}
	if _, err := certs.Verify([]*x509.Certificate{first.Leaf}, a.root.pool, x509.ExtKeyUsageAny); err == nil {
		t.Error("the serving certificate passes for a workload's")
	}
}

// Two workloads with certificates of two seconds talk over ever new connections,
// while both rotate several times through the real service: no handshake fails.
func TestRotationUnderTraffic(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds: certificates count in seconds")
	}
	a, addr := serve(t, Config{Lifetime: 2 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var rotations atomic.Int64
	var wg sync.WaitGroup
	source := func(sa string) *certs.Source {
		s := &certs.Source{}
		id := identity("shop", sa)
		r := &certs.Rotator{Identity: id, Authority: client(t, a, addr, a.token(t, ForIdentity(id)), s), Source: s}
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			for {
				changed := s.Changed()
				select {
				case <-changed:
					rotations.Add(1)
				case <-ctx.Done():
					return
				}
			}
		})
		return s
	}
	web, cart := source("web"), source("cart")
	for _, s := range []*certs.Source{web, cart} {
		if _, err := s.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", web.ServerConfig(certs.TLS{Peers: []certs.Match{{Exact: identity("shop", "cart").String()}}}))
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Errorf("server: %v", err)
			}
			c.Close()
		}
	})
	calls := 0
	client := cart.ClientConfig(certs.TLS{Peers: []certs.Match{{Exact: identity("shop", "web").String()}}})
	poll(t, func() bool {
		for range 20 {
			calls++
			c, err := tls.Dial("tcp", l.Addr().String(), client)
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if err != nil {
				t.Fatalf("call %d: %v", calls, err)
			}
		}
		return rotations.Load() >= 8
	})
	l.Close()
	cancel()
	wg.Wait()
	t.Logf("%d calls over %d rotations", calls, rotations.Load())
}
