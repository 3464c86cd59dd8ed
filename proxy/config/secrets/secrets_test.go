// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/match"
)

// An authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key, encode("CERTIFICATE", der)}
}

// issue makes a certificate for a SPIFFE ID, or a DNS name.
func (a *authority) issue(t testing.TB, name string) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if u, err := url.Parse(name); err == nil && u.Scheme != "" {
		tmpl.URIs = []*url.URL{u}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, _ := x509.MarshalPKCS8PrivateKey(k)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", kder)
}

func stringOf(m *matcherv3.StringMatcher) (match.String, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return match.Exact(p.Exact), nil
	case *matcherv3.StringMatcher_Prefix:
		return match.Prefix(p.Prefix), nil
	}
	return match.String{}, errors.New("not in this test")
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func certificate(chain, key []byte) []*tlsv3.TlsCertificate {
	return []*tlsv3.TlsCertificate{{CertificateChain: inline(chain), PrivateKey: inline(key)}}
}

func trusting(ca []byte, names ...*matcherv3.StringMatcher) *tlsv3.CommonTlsContext_ValidationContext {
	return &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(ca), MatchSubjectAltNames: names}}
}

func sdsConfigs(names ...string) (out []*tlsv3.SdsSecretConfig) {
	for _, n := range names {
		out = append(out, &tlsv3.SdsSecretConfig{Name: n, SdsConfig: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{}}})
	}
	return out
}

// handshake connects client to server; what either says of the other is returned.
func handshake(t *testing.T, server *tls.Config, client *tls.Config) (s, c tls.ConnectionState, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		err = conn.Handshake()
		s = conn.ConnectionState()
		if err == nil {
			_, err = io.WriteString(conn, "x")
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, client)
	_, cerr := conn.Read(make([]byte, 1)) // TLS 1.3: the server's verdict comes after the client's Finished
	c = conn.ConnectionState()
	return s, c, errors.Join(<-done, cerr)
}

func TestMutualTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	k := NewKeeper(nil, nil)
	const serverID, clientID = "spiffe://td/ns/a/sa/server", "spiffe://td/ns/a/sa/client"
	schain, skey := ca.issue(t, serverID)
	prefix := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://td/"}}
	server, err := k.Server(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: certificate(schain, skey), AlpnProtocols: []string{"h2", "http/1.1"},
			ValidationContextType: trusting(ca.pem, prefix)},
	}, stringOf)
	if err != nil {
		t.Fatal(err)
	}
	if !server.Verifies || !server.RequireClient || server.Leaf() == nil || server.Ready() != nil {
		t.Errorf("%+v", server)
	}
	client := func(issuer *authority, id, want string, trust []byte, alpn ...string) *tls.Config {
		chain, key := issuer.issue(t, id)
		c, err := k.Client(&tlsv3.UpstreamTlsContext{Sni: "outbound_.80_._.server.a", CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: certificate(chain, key), ValidationContextType: trusting(trust, exact(want)),
		}}, false, stringOf)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Mutual {
			t.Error("a client with a certificate is mutual")
		}
		c.Config.NextProtos = alpn
		return c.Config
	}
	s, c, err := handshake(t, server.Config, client(ca, clientID, serverID, ca.pem, "istio-http/1.1", "istio", "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	if s.NegotiatedProtocol != "http/1.1" || s.ServerName != "outbound_.80_._.server.a" || s.PeerCertificates[0].URIs[0].String() != clientID || c.Version != tls.VersionTLS13 {
		t.Errorf("%+v", s)
	}
	if s, _, err := handshake(t, server.Config, client(ca, clientID, serverID, ca.pem, "istio")); err != nil || s.NegotiatedProtocol != "" {
		t.Errorf("without a protocol in common: %q, %v", s.NegotiatedProtocol, err)
	}
	for want, cfg := range map[string]*tls.Config{
		"has none of the 1 names accepted here; it has [\"spiffe://td/ns/a/sa/server\"]": client(ca, clientID, "spiffe://td/ns/b/sa/server", ca.pem),
		"has none of the 1 names accepted here; it has [\"spiffe://evil/ns/a/sa/x\"]":    client(ca, "spiffe://evil/ns/a/sa/x", serverID, ca.pem),
		"is not trusted":               client(other, clientID, serverID, ca.pem),
		"certificate is not trusted":   client(ca, clientID, serverID, other.pem),
		"didn't provide a certificate": {InsecureSkipVerify: true},
	} {
		if _, _, err := handshake(t, server.Config, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSecretsBySDS(t *testing.T) {
	ca := newAuthority(t)
	k := NewKeeper(nil, nil)
	sds := sdsConfigs("kubernetes://web", "kubernetes://web-cacert")
	sds[0].SdsConfig.InitialFetchTimeout = durationpb.New(0)
	server, err := k.Server(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: sds[:1],
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{},
			ValidationContextSdsSecretConfig: sds[1],
		}},
	}}, stringOf)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Want{{"kubernetes://web", 0}, {"kubernetes://web-cacert", 15 * time.Second}}; !slices.Equal(server.Wants, want) {
		t.Errorf("wants %v", server.Wants)
	}
	client := &tls.Config{InsecureSkipVerify: true}
	if _, _, err := handshake(t, server.Config, client); err == nil || !strings.Contains(err.Error(), "has not come") || server.Ready() == nil {
		t.Errorf("before the secret: %v", err)
	}
	put := func(name string) []byte {
		chain, key := ca.issue(t, name)
		if err := k.Put(&tlsv3.Secret{Name: "kubernetes://web", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: certificate(chain, key)[0]}}); err != nil {
			t.Fatal(err)
		}
		return chain
	}
	put("one.example")
	if err := k.Put(&tlsv3.Secret{Name: "kubernetes://web-cacert", Type: &tlsv3.Secret_ValidationContext{ValidationContext: trusting(ca.pem).ValidationContext}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.example", "two.example"} { // rotation needs no new configuration
		put(name)
		_, c, err := handshake(t, server.Config, client)
		if err != nil || c.PeerCertificates[0].DNSNames[0] != name || server.Ready() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := &tlsv3.Secret{Name: "kubernetes://web", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: certificate([]byte("x"), []byte("y"))[0]}}
	if err := k.Put(bad); err == nil {
		t.Error("a broken certificate was accepted")
	}
	if _, c, err := handshake(t, server.Config, client); err != nil || c.PeerCertificates[0].DNSNames[0] != "two.example" {
		t.Errorf("the old one must stay: %v", err)
	}
	// A client certificate is optional here; one that is shown must be good.
	evil, key := newAuthority(t).issue(t, "spiffe://td/ns/a/sa/x")
	pair, _ := tls.X509KeyPair(evil, key)
	if _, _, err := handshake(t, server.Config, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}); err == nil {
		t.Error("an untrusted client certificate was accepted")
	}
}

func TestWorkloadIdentity(t *testing.T) {
	ca := newAuthority(t)
	src := &certs.Source{}
	k := NewKeeper(src, nil)
	context := &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: sdsConfigs("default"),
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: sdsConfigs("ROOTCA")[0]},
	}
	server, err := k.Server(&tlsv3.DownstreamTlsContext{RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: context}, stringOf)
	if err != nil {
		t.Fatal(err)
	}
	client, err := k.Client(&tlsv3.UpstreamTlsContext{CommonTlsContext: context}, false, stringOf)
	if err != nil {
		t.Fatal(err)
	}
	if len(server.Wants)+len(client.Wants) > 0 || server.Ready() == nil || client.Ready() == nil || server.Leaf() != nil {
		t.Error("nothing is to be subscribed to, and nothing is there yet")
	}
	chain, key := ca.issue(t, "spiffe://td/ns/a/sa/b")
	svid, err := certs.LoadSVID(chain, key, ca.pem)
	if err != nil {
		t.Fatal(err)
	}
	src.Set(svid)
	if _, _, err := handshake(t, server.Config, client.Config); err != nil || client.Ready() != nil {
		t.Error(err)
	}
	if _, err := NewKeeper(nil, nil).Server(&tlsv3.DownstreamTlsContext{CommonTlsContext: context}, stringOf); err == nil {
		t.Error("without an identity, \"default\" must be refused")
	}
}

func TestFiles(t *testing.T) {
	ca := newAuthority(t)
	chain, key := ca.issue(t, "a.example")
	content := map[string][]byte{"/c": chain, "/k": key, "/ca": ca.pem}
	k := NewKeeper(nil, func(path string) ([]byte, error) {
		if b, ok := content[path]; ok {
			return b, nil
		}
		return nil, errors.New("no such file: " + path)
	})
	src, err := k.certificateSource(&tlsv3.TlsCertificate{CertificateChain: file("/c"), PrivateKey: file("/k")})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := src.certificate()
	content["/c"], content["/k"] = ca.issue(t, "b.example")
	if c, _ := src.certificate(); c != first {
		t.Error("files are not read again at once")
	}
	f := src.(*files)
	f.next = time.Time{}
	if c, _ := src.certificate(); bytes.Equal(c.Certificate[0], first.Certificate[0]) {
		t.Error("a changed file must be read again")
	}
	second, _ := src.certificate()
	content["/k"] = []byte("half")
	f.next = time.Time{}
	if c, err := src.certificate(); err != nil || c != second {
		t.Error("a broken file must leave the old one in force")
	}
	for name, ok := range map[string]bool{"file-root:/ca": true, "file-root:/none": false, "file-cert:/c": false, "file-cert:/c~/none": false, "file-root:system": true} {
		src, err, found := k.wellKnown(name)
		if !found || (err == nil) != ok {
			t.Errorf("%s: %v, %v", name, found, err)
		}
		if ok {
			if pool, err := src.roots(); err != nil || pool == nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestVerifier(t *testing.T) {
	ca := newAuthority(t)
	chain, _ := ca.issue(t, "*.shop.example")
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	spki, whole := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	san := func(kind tlsv3.SubjectAltNameMatcher_SanType, s string) *tlsv3.CertificateValidationContext {
		return &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{SanType: kind, Matcher: exact(s)}}}
	}
	for i, tc := range []struct {
		c    *tlsv3.CertificateValidationContext
		want bool
	}{
		{san(tlsv3.SubjectAltNameMatcher_DNS, "a.shop.example"), true},
		{san(tlsv3.SubjectAltNameMatcher_DNS, "a.b.shop.example"), false},
		{san(tlsv3.SubjectAltNameMatcher_DNS, "shop.example"), false},
		{san(tlsv3.SubjectAltNameMatcher_DNS, ".shop.example"), false},
		{san(tlsv3.SubjectAltNameMatcher_URI, "a.shop.example"), false},
		{&tlsv3.CertificateValidationContext{MatchSubjectAltNames: []*matcherv3.StringMatcher{exact("x"), exact("A.shop.example")}}, true},
		{&tlsv3.CertificateValidationContext{VerifyCertificateSpki: []string{base64.StdEncoding.EncodeToString(spki[:])}}, true},
		{&tlsv3.CertificateValidationContext{VerifyCertificateSpki: []string{base64.StdEncoding.EncodeToString(whole[:])}}, false},
		{&tlsv3.CertificateValidationContext{VerifyCertificateHash: []string{strings.ToUpper(hex.EncodeToString(whole[:]))}}, true},
		{&tlsv3.CertificateValidationContext{VerifyCertificateHash: []string{hex.EncodeToString(spki[:])}}, false},
		{&tlsv3.CertificateValidationContext{}, true},
	} {
		v, err := newVerifier(tc.c, x509.ExtKeyUsageServerAuth, stringOf)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.check(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}) == nil; got != tc.want {
			t.Errorf("case %d: %v", i, got)
		}
	}
	for pattern, hosts := range map[string]map[string]bool{
		"*.a.b":  {"x.a.b": true, "X.A.B": true, "a.b": false, "x.y.a.b": false, ".a.b": false},
		"*.b":    {"a.b": false},
		"*":      {"a": false},
		"*.*.b":  {"a.*.b": false, "a.a.b": false},
		"x*.a.b": {"xy.a.b": false},
	} {
		for host, want := range hosts {
			if wildcard(pattern, host) != want {
				t.Errorf("%s covers %s: %v", pattern, host, !want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	ca := newAuthority(t)
	chain, key := ca.issue(t, "a.example")
	k := NewKeeper(nil, nil)
	server := func(c *tlsv3.CommonTlsContext) error {
		_, err := k.Server(&tlsv3.DownstreamTlsContext{CommonTlsContext: c}, stringOf)
		return err
	}
	client := func(c *tlsv3.CommonTlsContext, auto bool) error {
		_, err := k.Client(&tlsv3.UpstreamTlsContext{CommonTlsContext: c}, auto, stringOf)
		return err
	}
	good := certificate(chain, key)
	other, _ := ca.issue(t, "b.example")
	for want, err := range map[string]error{
		"a server needs a certificate":                server(&tlsv3.CommonTlsContext{}),
		"tls_certificates[0]: ":                       server(&tlsv3.CommonTlsContext{TlsCertificates: certificate(other, key)}),
		`cipher suite "RC4" is not supported`:         server(&tlsv3.CommonTlsContext{TlsCertificates: good, TlsParams: &tlsv3.TlsParameters{CipherSuites: []string{"RC4"}}}),
		`curve "P-1" is not supported`:                server(&tlsv3.CommonTlsContext{TlsCertificates: good, TlsParams: &tlsv3.TlsParameters{EcdhCurves: []string{"P-1"}}}),
		"is above the maximum":                        server(&tlsv3.CommonTlsContext{TlsCertificates: good, TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_2}}),
		"there is no trusted_ca":                      client(&tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{MatchSubjectAltNames: []*matcherv3.StringMatcher{exact("a")}}}}, false),
		"auto_san_validation without trusted_ca":      client(&tlsv3.CommonTlsContext{}, true),
		"a client has one certificate at most":        client(&tlsv3.CommonTlsContext{TlsCertificates: append(certificate(chain, key), good...)}, false),
		"trusted_ca: roots: ":                         client(&tlsv3.CommonTlsContext{ValidationContextType: trusting([]byte("x"))}, false),
		`the SDS server "sds-external" is not`:        client(&tlsv3.CommonTlsContext{TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "sds://x", SdsConfig: external()}}}, false),
		"verify_certificate_spki \"x\" is no SHA-256": client(&tlsv3.CommonTlsContext{ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{VerifyCertificateSpki: []string{"x"}}}}, false),
		"the secret is missing":                       k.Put(&tlsv3.Secret{Name: "x"}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func external() *corev3.ConfigSource {
	return &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "sds-external"}}}},
	}}}
}

func TestUntrustedClientProvesNothing(t *testing.T) {
	ca := newAuthority(t)
	chain, key := ca.issue(t, "a.example")
	k := NewKeeper(nil, nil)
	v := trusting(ca.pem)
	v.ValidationContext.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	s, err := k.Server(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: certificate(chain, key), ValidationContextType: v}}, stringOf)
	if err != nil {
		t.Fatal(err)
	}
	if s.Verifies {
		t.Error("what is not verified proves nothing")
	}
	evil, ekey := newAuthority(t).issue(t, "spiffe://td/ns/a/sa/x")
	pair, _ := tls.X509KeyPair(evil, ekey)
	if state, _, err := handshake(t, s.Config, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}); err != nil || len(state.PeerCertificates) != 1 {
		t.Errorf("%v", err)
	}
	plain, err := k.Server(&tlsv3.DownstreamTlsContext{RequireSni: wrapperspb.Bool(true), CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: certificate(chain, key)}}, stringOf)
	if err != nil || plain.Verifies || plain.Config.ClientAuth != tls.NoClientCert {
		t.Errorf("%+v, %v", plain, err)
	}
	if _, _, err := handshake(t, plain.Config, &tls.Config{InsecureSkipVerify: true}); err == nil || !strings.Contains(err.Error(), "named no server") {
		t.Errorf("require_sni: %v", err)
	}
	if _, _, err := handshake(t, plain.Config, &tls.Config{InsecureSkipVerify: true, ServerName: "a.example"}); err != nil {
		t.Error(err)
	}
}

func FuzzPutNeverPanics(f *testing.F) {
	ca := newAuthority(f)
	chain, key := ca.issue(f, "a.example")
	f.Add(chain, key, ca.pem)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte("x"), []byte{})
	f.Fuzz(func(t *testing.T, chain, key, roots []byte) {
		k := NewKeeper(nil, nil)
		_ = k.Put(&tlsv3.Secret{Name: "c", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: certificate(chain, key)[0]}})
		_ = k.Put(&tlsv3.Secret{Name: "r", Type: &tlsv3.Secret_ValidationContext{ValidationContext: trusting(roots).ValidationContext}})
		if s := k.Secret("c"); s.Loaded() {
			if c, err := s.certificate(); err != nil || c.PrivateKey == nil {
				t.Error("a certificate without its key")
			}
		}
	})
}
