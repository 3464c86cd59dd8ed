// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

func soon() time.Time { return time.Now().Add(10 * time.Second) }

// listen serves each connection with handle until the test ends.
func listen(t *testing.T, network, addr string, handle func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l
}

func addrOf(l net.Listener) netip.AddrPort { return netip.MustParseAddrPort(l.Addr().String()) }

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func TestOpenConnects(t *testing.T) {
	tcp := listen(t, "tcp", "127.0.0.1:0", echo)
	path := filepath.Join(t.TempDir(), "s")
	listen(t, "unix", path, echo)
	for name, target := range map[string]*Target{
		"tcp":        {Addr: addrOf(tcp)},
		"unix":       {Pipe: path},
		"source":     {Addr: addrOf(tcp), Source: netip.MustParseAddr("127.0.0.6")},
		"source six": {Addr: addrOf(tcp), Source: netip.MustParseAddr("::6")},
		"keepalive":  {Addr: addrOf(tcp), KeepAlive: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Count: 3}},
	} {
		c, f := Open(t.Context(), soon(), target)
		if f != nil {
			t.Errorf("%s: %v", name, f)
			continue
		}
		if host, _, _ := net.SplitHostPort(c.LocalAddr().String()); name == "source" && host != "127.0.0.6" {
			t.Errorf("bound to %s", host)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
	}
}

func TestFaultsNameTheCause(t *testing.T) {
	cert, roots := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := addrOf(l)
	_ = l.Close()
	greeter := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello, this is not TLS\r\n")
		_, _ = c.Read(make([]byte, 512))
	})
	hangup := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) })
	silent := listen(t, "tcp", "127.0.0.1:0", echoNothing)
	secure := listen(t, "tcp", "127.0.0.1:0", serveTLS(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}))
	picky := listen(t, "tcp", "127.0.0.1:0", serveTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}))
	trusting := &tls.Config{RootCAs: roots, ServerName: "a.test"}
	tests := []struct {
		name string
		addr netip.AddrPort
		tls  *tls.Config
		kind fault.Kind
		hint string
	}{
		{"refused", closed, nil, fault.ConnectFailure, "nothing listens"},
		{"plaintext", addrOf(greeter), trusting, fault.ConnectFailure, "in plaintext"},
		{"hang up", addrOf(hangup), trusting, fault.ConnectFailure, "hung up"},
		{"unknown ca", addrOf(secure), &tls.Config{ServerName: "a.test"}, fault.ConnectFailure, "not trusted"},
		{"other name", addrOf(secure), &tls.Config{RootCAs: roots, ServerName: "b.test"}, fault.ConnectFailure, "another name"},
		{"expired", addrOf(secure), &tls.Config{RootCAs: roots, ServerName: "a.test", Time: func() time.Time { return time.Unix(1, 0) }}, fault.ConnectFailure, "expired"},
		{"alpn", addrOf(secure), &tls.Config{RootCAs: roots, ServerName: "a.test", NextProtos: []string{"x"}}, fault.ConnectFailure, "ALPN"},
		{"no certificate", addrOf(picky), trusting, fault.ConnectFailure, "certificate"},
		{"silent", addrOf(silent), trusting, fault.ConnectTimeout, "nothing answered in time"},
	}
	for _, tt := range tests {
		deadline := soon()
		if tt.kind == fault.ConnectTimeout {
			deadline = time.Now().Add(20 * time.Millisecond)
		}
		c, f := Open(t.Context(), deadline, &Target{Addr: tt.addr, TLS: tt.tls, Object: "cluster x"})
		if f == nil {
			_ = c.Close()
			t.Errorf("%s: connected", tt.name)
			continue
		}
		if f.Kind != tt.kind || f.Side != fault.Upstream || !strings.Contains(f.Hint, tt.hint) || f.Object != "cluster x" {
			t.Errorf("%s: %v", tt.name, f)
		}
	}
	_, f := Open(t.Context(), soon(), &Target{Addr: closed})
	if !errors.Is(f, syscall.ECONNREFUSED) {
		t.Errorf("the cause is lost: %v", f)
	}
}

// echoNothing reads until the client hangs up.
func echoNothing(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func serveTLS(cfg *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		s := tls.Server(c, cfg)
		if s.Handshake() == nil {
			echo(s)
		}
	}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"a.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}

func TestProxyHeader(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		version       uint8
		client, local netip.AddrPort
		want          string
	}{
		{1, ap("1.2.3.4:5"), ap("6.7.8.9:80"), "PROXY TCP4 1.2.3.4 6.7.8.9 5 80\r\n"},
		{1, ap("[::1%lo]:5"), ap("6.7.8.9:80"), "PROXY TCP6 ::1 ::ffff:6.7.8.9 5 80\r\n"},
		{1, netip.AddrPort{}, ap("6.7.8.9:80"), "PROXY UNKNOWN\r\n"},
		{2, ap("1.2.3.4:5"), ap("[::ffff:6.7.8.9]:80"), signature + "\x21\x11\x00\x0c\x01\x02\x03\x04\x06\x07\x08\x09\x00\x05\x00\x50"},
		{2, ap("[::1]:5"), ap("[::2]:80"), signature + "\x21\x21\x00\x24" + strings.Repeat("\x00", 15) + "\x01" + strings.Repeat("\x00", 15) + "\x02\x00\x05\x00\x50"},
		{2, ap("1.2.3.4:5"), netip.AddrPort{}, signature + "\x20\x00\x00\x00"},
	} {
		if got := string(ProxyHeader(tt.version, tt.client, tt.local)); got != tt.want {
			t.Errorf("version %d: %q, want %q", tt.version, got, tt.want)
		}
	}
	got := make(chan string, 1)
	l := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		b := make([]byte, len("PROXY UNKNOWN\r\nhello"))
		_, _ = io.ReadFull(c, b)
		got <- string(b)
	})
	c, f := Open(t.Context(), soon(), &Target{Addr: addrOf(l), ProxyProtocol: 1})
	if f != nil {
		t.Fatal(f)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "hello")
	if s := <-got; s != "PROXY UNKNOWN\r\nhello" {
		t.Errorf("server got %q", s)
	}
}
