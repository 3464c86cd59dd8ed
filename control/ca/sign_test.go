// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	securityv1 "istio.io/api/security/v1alpha1"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
)

func encode(t *testing.T, tmpl *x509.CertificateRequest, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func TestRefusals(t *testing.T) {
	web := identity("shop", "web")
	a, addr := serve(t, Config{})
	one, many := a.token(t, ForIdentity(web)), a.token(t, Grant{Namespace: "shop"})
	two := a.token(t, Grant{Namespace: "shop", ServiceAccounts: []mesh.ServiceAccount{"web", "cart"}})
	expired, _, err := a.Tokens().Issue(ForIdentity(web), time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	revoked, info, _ := a.Tokens().Issue(ForIdentity(web), time.Hour)
	if err := a.Tokens().Revoke(info.ID); err != nil {
		t.Fatal(err)
	}
	good, _ := request(t, web)
	bank, _ := request(t, identity("shop", "bank"))
	foreign, _ := request(t, mesh.Identity{TrustDomain: "other.org", Namespace: "shop", ServiceAccount: "web"})
	key, _ := certs.NewKey()
	uri := func(s string) []*url.URL { u, _ := url.Parse(s); return []*url.URL{u} }
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	forged := strings.Replace(string(good), "\n-----END", "A\n-----END", 1)
	block, _ := pem.Decode(good)
	tampered := append([]byte{}, block.Bytes...)
	tampered[len(tampered)-1] ^= 1
	impersonate := func(s string) *structpb.Struct {
		m, _ := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": s})
		return m
	}

	for name, c := range map[string]struct {
		token string
		req   *securityv1.IstioCertificateRequest
		code  codes.Code
	}{
		"one identity":             {one, &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.OK},
		"a namespace":              {many, &securityv1.IstioCertificateRequest{Csr: string(bank)}, codes.OK},
		"a set":                    {two, &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.OK},
		"no name, one identity":    {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{}, key)}, codes.OK},
		"its own name, twice":      {one, &securityv1.IstioCertificateRequest{Csr: string(good), Metadata: impersonate(web.String())}, codes.OK},
		"no name, a namespace":     {many, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{}, key)}, codes.InvalidArgument},
		"no token":                 {"", &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"a wrong token":            {one + "x", &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"an unknown token":         {tokenPrefix + "0123456789abcdef.secret", &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"a path as token":          {tokenPrefix + "../../root.x", &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"another kind of token":    {"eyJhbGciOi", &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"an expired token":         {expired, &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"a revoked token":          {revoked, &securityv1.IstioCertificateRequest{Csr: string(good)}, codes.Unauthenticated},
		"another identity":         {one, &securityv1.IstioCertificateRequest{Csr: string(bank)}, codes.PermissionDenied},
		"outside the set":          {two, &securityv1.IstioCertificateRequest{Csr: string(bank)}, codes.PermissionDenied},
		"another trust domain":     {one, &securityv1.IstioCertificateRequest{Csr: string(foreign)}, codes.PermissionDenied},
		"impersonation":            {one, &securityv1.IstioCertificateRequest{Csr: string(bank), Metadata: impersonate(identity("shop", "bank").String())}, codes.PermissionDenied},
		"two identities":           {one, &securityv1.IstioCertificateRequest{Csr: string(good), Metadata: impersonate(identity("shop", "bank").String())}, codes.InvalidArgument},
		"a host name":              {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{URIs: uri(web.String()), DNSNames: []string{"istiod.istio-system.svc"}}, key)}, codes.PermissionDenied},
		"two URIs":                 {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{URIs: append(uri(web.String()), uri("spiffe://x/y")...)}, key)}, codes.PermissionDenied},
		"another kind of URI":      {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{URIs: uri("https://x")}, key)}, codes.InvalidArgument},
		"a weak key":               {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{URIs: uri(web.String())}, small)}, codes.InvalidArgument},
		"another kind of key":      {one, &securityv1.IstioCertificateRequest{Csr: encode(t, &x509.CertificateRequest{URIs: uri(web.String())}, ed)}, codes.InvalidArgument},
		"an oversized request":     {one, &securityv1.IstioCertificateRequest{Csr: string(good) + strings.Repeat(" ", maxCSR)}, codes.InvalidArgument},
		"no request":               {one, &securityv1.IstioCertificateRequest{}, codes.InvalidArgument},
		"a damaged request":        {one, &securityv1.IstioCertificateRequest{Csr: forged}, codes.InvalidArgument},
		"a request of another key": {one, &securityv1.IstioCertificateRequest{Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: tampered}))}, codes.InvalidArgument},
		"too long a life":          {one, &securityv1.IstioCertificateRequest{Csr: string(good), ValidityDuration: 91 * 86400}, codes.InvalidArgument},
		"a negative life":          {one, &securityv1.IstioCertificateRequest{Csr: string(good), ValidityDuration: -1}, codes.InvalidArgument},
		"an endless life":          {one, &securityv1.IstioCertificateRequest{Csr: string(good), ValidityDuration: 1 << 62}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			creds := credentials.NewTLS(&tls.Config{RootCAs: a.root.pool, ServerName: "localhost"})
			cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds), grpc.WithPerRPCCredentials(certs.Bearer(func() (string, error) { return c.token, nil }, false)))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			answer, err := securityv1.NewIstioCertificateServiceClient(cc).CreateCertificate(t.Context(), c.req)
			if status.Code(err) != c.code {
				t.Errorf("got %v, want %v", err, c.code)
			}
			if err == nil && len(answer.CertChain) != 2 {
				t.Errorf("an answer of %d parts", len(answer.CertChain))
			}
		})
	}
}

func TestImpersonationAndForeignTokensByHook(t *testing.T) {
	node := identity("istio-system", "ztunnel")
	a, addr := serve(t, Config{
		VerifyToken: func(_ context.Context, token string) (Grant, error) {
			if token != "kubernetes" {
				return Grant{}, errors.New("TokenReview says no")
			}
			return ForIdentity(node), nil
		},
		MayImpersonate: func(_ context.Context, caller, wanted mesh.Identity) error {
			if caller != node || wanted.Namespace != "shop" {
				return errors.New("no such pod on the node")
			}
			return nil
		},
	})
	call := func(token string, wanted mesh.Identity) error {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: a.root.pool})),
			grpc.WithPerRPCCredentials(certs.Bearer(func() (string, error) { return token, nil }, false)))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		csr, _ := request(t, wanted)
		m, _ := structpb.NewStruct(map[string]any{impersonated: wanted.String()})
		_, err = securityv1.NewIstioCertificateServiceClient(cc).CreateCertificate(t.Context(), &securityv1.IstioCertificateRequest{Csr: string(csr), Metadata: m})
		return err
	}
	if err := call("kubernetes", identity("shop", "web")); err != nil {
		t.Error(err)
	}
	if err := call("kubernetes", identity("bank", "web")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a pod elsewhere: %v", err)
	}
	if err := call("other", identity("shop", "web")); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a refused token: %v", err)
	}
}

func TestExpiredAndForeignCertificatesAreRefused(t *testing.T) {
	a, addr := serve(t, Config{})
	web := identity("shop", "web")
	b, _ := serve(t, Config{})
	for name, issuer := range map[string]*Authority{"expired": a, "another root": b} {
		signer, err := issuer.Local(web)
		if err != nil {
			t.Fatal(err)
		}
		csr, load := request(t, web)
		chain, roots, err := signer.Sign(t.Context(), csr, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		v := load(chain, roots)
		if name == "expired" {
			poll(t, func() bool { return time.Now().After(v.NotAfter()) })
		}
		cert := *v.Certificate()
		creds := credentials.NewTLS(&tls.Config{RootCAs: a.root.pool, Certificates: []tls.Certificate{cert}})
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := securityv1.NewIstioCertificateServiceClient(cc).CreateCertificate(t.Context(), &securityv1.IstioCertificateRequest{Csr: string(csr)}); err == nil {
			t.Errorf("%s: no error", name)
		}
		cc.Close()

		// Our own client leaves an expired certificate at home, so that a token suffices.
		src := &certs.Source{}
		src.Set(v)
		if name == "expired" {
			if _, _, err := client(t, a, addr, a.token(t, ForIdentity(web)), src).Sign(t.Context(), csr, 0); err != nil {
				t.Errorf("joining again: %v", err)
			}
		}
	}
}

func FuzzCertificateRequest(f *testing.F) {
	a, err := Open(Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	key, _ := certs.NewKey()
	csr, _ := certs.NewRequest(identity("shop", "web"), key)
	block, _ := pem.Decode(csr)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := parseRequest(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
		if err != nil {
			return
		}
		if id, err := requested(csr); err == nil && !id.IsZero() && id.Validate() != nil {
			t.Errorf("a request for %q", id)
		}
		if _, err := a.issue(identity("shop", "web"), csr.PublicKey, time.Minute); err != nil {
			t.Errorf("an accepted request cannot be signed: %v", err)
		}
	})
}
