// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// issuer makes SVIDs under one root.
func issuer(t *testing.T) func() *certs.SVID {
	t.Helper()
	key, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, KeyUsage: x509.KeyUsageCertSign, SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, _ = x509.ParseCertificate(der)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return func() *certs.SVID {
		leafKey, _ := certs.NewKey()
		csrPEM, err := certs.NewRequest(mesh.Identity{TrustDomain: "td", Namespace: "ns", ServiceAccount: "sa"}, leafKey)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(csrPEM)
		csr, _ := x509.ParseCertificateRequest(block.Bytes)
		leaf := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, SerialNumber: big.NewInt(2), URIs: csr.URIs, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := certs.NewSVID(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), leafKey, root)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSecretsFollowTheSourceOverAUnixSocket(t *testing.T) {
	issue := issuer(t)
	src := &certs.Source{}
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := xds.NewServer(NewHub(src, nil), xds.ServerConfig{})
	g := grpc.NewServer(srv.Options()...)
	srv.RegisterSecrets(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	t.Cleanup(srv.Close)
	cc, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	open := func(names ...string) secretv3.SecretDiscoveryService_StreamSecretsClient {
		st, err := secretv3.NewSecretDiscoveryServiceClient(cc).StreamSecrets(ctx)
		if err != nil {
			t.Fatal(err)
		}
		st.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "envoy"}, ResourceNames: names})
		return st
	}
	next := func(st secretv3.SecretDiscoveryService_StreamSecretsClient, name string) *tlsv3.Secret {
		t.Helper()
		m, err := st.Recv()
		if err != nil || len(m.Resources) != 1 {
			t.Fatalf("%v, %v", m, err)
		}
		s := &tlsv3.Secret{}
		if err := m.Resources[0].UnmarshalTo(s); err != nil || s.Name != name {
			t.Fatalf("%v, %v", s.Name, err)
		}
		st.Send(&discoveryv3.DiscoveryRequest{ResourceNames: []string{name}, ResponseNonce: m.Nonce, VersionInfo: m.VersionInfo})
		return s
	}
	certStream, rootStream, unknown := open(Default), open(RootCA), open("kubernetes://x")
	first := issue()
	src.Set(first)
	s := next(certStream, Default)
	got, err := certs.LoadSVID(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes(), s.GetTlsCertificate().GetPrivateKey().GetInlineBytes(), first.RootPEM)
	if err != nil || got.Identity != first.Identity {
		t.Fatal(got, err)
	}
	if s := next(rootStream, RootCA); string(s.GetValidationContext().GetTrustedCa().GetInlineBytes()) != string(first.RootPEM) {
		t.Error("other roots")
	}
	if m, err := unknown.Recv(); err != nil || len(m.Resources) != 0 {
		t.Errorf("an unknown secret: %v, %v", m, err)
	}
	if systemRoots() != nil {
		if s := next(open(SystemRoots), SystemRoots); len(s.GetValidationContext().GetTrustedCa().GetInlineBytes()) == 0 {
			t.Error("the system's roots are missing")
		}
	}
	second := issue()
	src.Set(second)
	if s := next(certStream, Default); string(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes()) != string(second.ChainPEM()) {
		t.Error("the rotated certificate did not arrive")
	}

	// The roots are the same, so only a rotation under another root is sent there.
	third := issuer(t)()
	src.Set(third)
	if s := next(rootStream, RootCA); string(s.GetValidationContext().GetTrustedCa().GetInlineBytes()) != string(third.RootPEM) {
		t.Error("unchanged roots were sent again, or new ones not")
	}
}
