// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

const secret = "the-quick-brown-fox-0123456789"

// A pair is a caller and a service, "web", with a tap between their sidecars.
type pair struct {
	*Mesh
	caller, web *Workload
	tap         *Tap
	app         *app
}

const webURL = "http://web/" + secret

func startPair(t *testing.T, m *Mesh) *pair {
	t.Helper()
	p := &pair{Mesh: m, app: newApp(t, "web")}
	m.Service("web", 80, "http")
	p.web = &Workload{Name: "web", Labels: map[string]string{"app": "web"}, Account: "web", App: p.app.Addr, Inbound: freeporttest.Addr(t)}
	p.tap = NewTap(t, p.web.Inbound)
	p.web.Reach = p.tap.Addr
	m.Join(p.web)
	p.caller = &Workload{Name: "caller", Labels: map[string]string{"app": "caller"}, Account: "caller"}
	m.Join(p.caller)
	p.reaches(t, p.caller, webURL)
	return p
}

// reaches waits until from gets 200 from url.
func (m *Mesh) reaches(t *testing.T, from *Workload, url string, header ...string) {
	t.Helper()
	c := NewCaller(t, from.Proxy)
	Eventually(t, from.Name+" reaches "+url, func() error {
		a, err := c.Get(url, header...)
		if err == nil {
			_, err = OK(a)
		}
		return err
	})
}

const authentication = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: %s}}
`

// plain asks a sidecar's inbound port for a page without TLS.
func plain(addr netip.AddrPort) error {
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	return answered(conn)
}

func answered(conn net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// secure asks over TLS; cfg says with what certificate. The handshake of TLS 1.3
// ends for the client before the server has looked at the client's certificate:
// only an answer says that it was accepted.
func secure(addr netip.AddrPort, cfg *tls.Config) (*tls.ConnectionState, error) {
	d := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(d, "tcp", addr.String(), cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	state := conn.ConnectionState()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
		return &state, err
	}
	return &state, answered(conn)
}

func anonymous(alpn ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: alpn}
}

func TestMutualTLSOnTheWire(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	p := startPair(t, m)

	c := NewCaller(t, p.caller.Proxy)
	a, err := c.Get(webURL)
	if err != nil || !strings.Contains(a.Body, secret) {
		t.Fatalf("%+v %v", a, err)
	}
	if xfcc := p.app.last().Get("X-Forwarded-Client-Cert"); !strings.Contains(xfcc, "URI=spiffe://cluster.local/ns/default/sa/caller") {
		t.Errorf("the service saw %q call", xfcc)
	}
	conns := p.tap.Conns()
	if len(conns) == 0 {
		t.Fatal("nothing passed the tap")
	}
	for _, conn := range conns {
		there, back := conn.Bytes()
		if v, err := helloVersion([]byte(there), 1); err != nil || v != tls.VersionTLS13 {
			t.Errorf("ClientHello offers %x, %v", v, err)
		}
		if v, err := helloVersion([]byte(back), 2); err != nil || v != tls.VersionTLS13 {
			t.Errorf("ServerHello chooses %x, %v", v, err)
		}
		for _, text := range []string{secret, "HTTP/1.1", "GET ", "spiffe://", "cluster.local/ns"} {
			if strings.Contains(there, text) || strings.Contains(back, text) {
				t.Errorf("%q can be read on the wire", text)
			}
		}
	}
	p.whoIsThere(t)
	p.whoCalls(t)
}

// whoIsThere asks the service's sidecar for its certificate, and without one of our own.
func (p *pair) whoIsThere(t *testing.T) {
	t.Helper()
	own := p.Certify("caller")
	state, err := secure(p.web.Inbound, own.ClientConfig(certs.TLS{ALPN: []string{"istio", "http/1.1"}}))
	if err != nil {
		t.Fatalf("with a certificate: %v", err)
	}
	if got := state.PeerCertificates[0].URIs; len(got) != 1 || got[0].String() != "spiffe://cluster.local/ns/default/sa/web" || state.Version != tls.VersionTLS13 {
		t.Errorf("the service presents %v over TLS %x", got, state.Version)
	}
	if _, err := secure(p.web.Inbound, anonymous("istio", "http/1.1")); err == nil {
		t.Error("a client without a certificate was served under STRICT")
	}
	foreign := newForeignIdentity(t, "spiffe://cluster.local/ns/default/sa/caller")
	if _, err := secure(p.web.Inbound, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"istio"}, Certificates: []tls.Certificate{foreign}}); err == nil {
		t.Error("a client with a stranger's certificate of the right name was served")
	}
	if err := plain(p.web.Inbound); err == nil {
		t.Error("a plaintext client was served under STRICT")
	}
}

// whoCalls puts a server of our own in the place of a service and looks at the
// caller's certificate; then one whose identity is not the service's.
func (p *pair) whoCalls(t *testing.T) {
	t.Helper()
	got := make(chan tls.ConnectionState, 10)
	serve := func(account string) netip.AddrPort {
		cfg := p.Certify(account).ServerConfig(certs.TLS{ALPN: []string{"http/1.1"}})
		addr := freeporttest.Addr(t)
		ln, err := tls.Listen("tcp", addr.String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{
			Handler:           http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- *r.TLS }),
			ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close(); <-done })
		return addr
	}
	p.Service("vault", 80, "http")
	p.Service("liar", 80, "http")
	for name, account := range map[string]string{"vault": "vault", "liar": "mallory"} {
		w := &Workload{Name: name, Labels: map[string]string{"app": name}, Account: name, Inbound: serve(account)}
		p.register(w)
	}
	p.reaches(t, p.caller, "http://vault/")
	state := <-got
	if uris := state.PeerCertificates[0].URIs; len(uris) != 1 || uris[0].String() != "spiffe://cluster.local/ns/default/sa/caller" || state.Version != tls.VersionTLS13 {
		t.Errorf("the caller presents %v over TLS %x", uris, state.Version)
	}
	if want := "outbound_.80_._.vault.default.svc.cluster.local"; state.ServerName != want {
		t.Errorf("SNI %q, want %q", state.ServerName, want)
	}
	c := NewCaller(t, p.caller.Proxy)
	Eventually(t, "a server of another identity is not spoken to", func() error {
		a, err := c.Get("http://liar/")
		if err == nil && a.Status != http.StatusServiceUnavailable {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	for len(got) > 0 {
		if s := <-got; s.ServerName != "outbound_.80_._.vault.default.svc.cluster.local" {
			t.Error("the request was sent to a server that is somebody else")
		}
	}
}

// helloVersion returns what a hello (1: client's, 2: server's) says in its extension
// supported_versions: the first offer, or the choice (RFC 8446, section 4.2.1).
func helloVersion(b []byte, kind byte) (uint16, error) {
	if len(b) < 9 || b[0] != 22 || b[5] != kind {
		return 0, fmt.Errorf("no hello: %x", b[:min(len(b), 9)])
	}
	body := bytes.NewReader(b[9:])
	skip := func(n int) { _, _ = body.Seek(int64(n), io.SeekCurrent) }
	length := func(size int) int {
		var n [2]byte
		_, _ = io.ReadFull(body, n[2-size:])
		return int(binary.BigEndian.Uint16(n[:]))
	}
	skip(2 + 32)    // legacy version, random
	skip(length(1)) // session
	if kind == 1 {
		skip(length(2)) // cipher suites
		skip(length(1)) // compression
	} else {
		skip(2 + 1)
	}
	for end := length(2); end > 0 && body.Len() > 0; {
		id, n := length(2), length(2)
		end -= 4 + n
		if id != 43 {
			skip(n)
			continue
		}
		if kind == 1 {
			skip(1)
		}
		return uint16(length(2)), nil
	}
	return 0, errors.New("no supported_versions")
}
