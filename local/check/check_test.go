// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/local/watch"
	"github.com/meltemi/meltemi/netio"
)

const spiffe = "spiffe://cluster.local/ns/default/sa/"

// world is a mesh made of handlers, right in every respect until a test spoils it.
type world struct {
	*testing.T
	mesh Mesh
	n    atomic.Int64

	dead       error
	v3Every    int64  // each so many-th anonymous request is v3's
	jason      string // the version he sees
	noFault    bool
	authStatus int
	peer       string // what details saw of its caller, instead of the truth
	security   watch.Security
	noReviews  bool
	frozen     bool // changes are not taken in
	plaintext  bool // proxies answer it
	anyClient  bool // proxies want no certificate
	problems   []watch.Problem
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, v3Every: 5, jason: "v2", authStatus: 403, security: watch.Mutual}
	srv := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	dir := filepath.Join(t.TempDir(), "0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reviews.yaml"), []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	ca := newCA(t)
	w.mesh = Mesh{Page: srv.URL, Folder: filepath.Dir(dir), Roots: ca.pool, Look: func(context.Context) watch.Picture {
		return watch.Picture{Edges: []watch.Edge{{From: "a", To: "b"}, {From: "b", To: "c", Security: w.security}}, Problems: w.problems}
	}}
	alive := func(context.Context) error { return w.dead }
	w.mesh.Members = append(w.mesh.Members, Member{ID: "gateway", Identity: spiffe + "gateway", Alive: alive})
	for _, s := range []string{"productpage", "details", "reviews", "ratings"} {
		m := Member{ID: s + "-v1", Service: s, Identity: spiffe + s, Alive: alive}
		m.Inbound = netio.AddrPortOf(w.proxy(ca.issue(t, m.Identity), ca.pool))
		w.mesh.Members = append(w.mesh.Members, m)
	}
	return w
}

// serve is the gateway and all behind it.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api") {
		rw.WriteHeader(w.authStatus)
		return
	}
	user := ""
	if c, err := r.Cookie("session"); err == nil {
		user = c.Value
	}
	reviews, ratings := "v1", false
	text, _ := os.ReadFile(filepath.Join(w.mesh.Folder, "0", "reviews.yaml"))
	switch {
	case user == "jason":
		reviews, ratings = w.jason, true
	case user == "mallory":
		reviews, ratings = "v2", w.noFault
	case string(text) == onlyV3 && !w.frozen:
		reviews = "v3"
	case w.n.Add(1)%w.v3Every == 0:
		reviews = "v3"
	}
	say := func(service, version, peer string) {
		rw.Header().Add(hopHeader, strings.Join([]string{service, version, "i", peer}, " "))
	}
	say("productpage", "v1", spiffe+"gateway")
	peer := spiffe + "productpage"
	if w.peer != "" {
		peer = w.peer
	}
	say("details", "v1", peer)
	if !w.noReviews {
		say("reviews", reviews, spiffe+"productpage")
	}
	if ratings {
		say("ratings", "v1", spiffe+"reviews")
	} else if user != "" {
		_, _ = io.WriteString(rw, noRatings)
	}
}

// proxy is an inbound side: TLS with client certificates.
func (w *world) proxy(cert tls.Certificate, clients *x509.CertPool) net.Addr {
	h := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "healthy") })
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain := httptest.NewServer(h)
	secure := tls.NewListener(srv.Listener, &tls.Config{Certificates: []tls.Certificate{cert}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
		if w.anyClient {
			c.ClientAuth = tls.NoClientCert
		}
		return c, nil
	}})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	srv.Listener = secure
	srv.Start()
	w.Cleanup(func() { _ = front.Close(); srv.Close(); plain.Close() })
	go func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			go w.sniff(c, srv.Listener.Addr().String(), plain.Listener.Addr().String())
		}
	}()
	return front.Addr()
}

// sniff passes TLS on, and plaintext if the world is spoilt so; else it hangs up.
func (w *world) sniff(c net.Conn, secure, plain string) {
	p := netio.NewPeeked(c)
	first, err := p.Peek(1)
	to := secure
	if err != nil || first[0] != 22 {
		if to = plain; !w.plaintext || err != nil {
			_ = c.Close()
			return
		}
	}
	up, err := net.Dial("tcp", to)
	if err != nil {
		_ = c.Close()
		return
	}
	_ = netio.Relay(p, up, 0, new(netio.Counts))
}

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCA(t *testing.T) *ca {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	c := &ca{cert: cert, key: key, pool: x509.NewCertPool()}
	c.pool.AddCert(cert)
	return c
}

func (c *ca) issue(t *testing.T, identity string) tls.Certificate {
	uri, _ := url.Parse(identity)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.key}
}

func TestARightMeshPasses(t *testing.T) {
	w := newWorld(t)
	w.problems = []watch.Problem{{Severity: "warning"}}
	var out strings.Builder
	if err := Run(t.Context(), w.mesh, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, c := range checks {
		if !strings.Contains(out.String(), "ok   "+c.name) {
			t.Errorf("%s is not told", c.name)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(w.mesh.Folder, "0", "reviews.yaml")); string(b) != "weights" {
		t.Error("the change was not taken back")
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"members":           func(w *world) { w.dead = errors.New("signal: killed") },
		"configuration":     func(w *world) { w.problems = append(w.problems, watch.Problem{Severity: "error"}) },
		"page":              func(w *world) { w.noReviews = true },
		"weights":           func(w *world) { w.v3Every = 2 },
		"header":            func(w *world) { w.jason = "v1" },
		"fault":             func(w *world) { w.noFault = true },
		"authorization":     func(w *world) { w.authStatus = 200 },
		"mutual-tls":        func(w *world) { w.peer = "-" },
		"plaintext-refused": func(w *world) { w.plaintext = true },
		"certificates":      func(w *world) { w.anyClient = true },
		"metrics":           func(w *world) { w.security = watch.Mixed },
		"change":            func(w *world) { w.mesh.Folder = w.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			spoil(w)
			for _, c := range checks {
				if c.name != name {
					continue
				}
				w.mesh.client = http.DefaultClient
				if detail, err := c.run(t.Context(), &w.mesh); err == nil {
					t.Errorf("passed: %s", detail)
				}
			}
		})
	}
}

func TestOtherWrongs(t *testing.T) {
	w := newWorld(t)
	w.mesh.client = http.DefaultClient
	w.frozen = true
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := change(ctx, &w.mesh); err == nil {
		t.Error("a change that never comes passes")
	}
	gone := w.mesh
	gone.Page = "http://127.0.0.1:1"
	if _, err := page(ctx, &gone); err == nil {
		t.Error("a page that never comes passes")
	}
	gone.Look = func(context.Context) watch.Picture { return watch.Picture{Control: "nobody answers"} }
	if _, err := configuration(ctx, &gone); err == nil {
		t.Error("what nobody was asked about passes")
	}
	w.mesh.Members[1].Identity = spiffe + "somebody-else"
	if _, err := certificates(t.Context(), &w.mesh); err == nil || !strings.Contains(err.Error(), "want "+spiffe+"somebody-else") {
		t.Errorf("wrong identity: %v", err)
	}
	w.mesh.Roots = newCA(t).pool
	if _, err := certificates(t.Context(), &w.mesh); err == nil {
		t.Error("certificates of another root pass")
	}
}

func TestRunFails(t *testing.T) {
	w := newWorld(t)
	w.authStatus = 200
	var out strings.Builder
	err := Run(t.Context(), w.mesh, &out)
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "[authorization]") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out.String(), "FAIL authorization") || strings.Count(out.String(), "\n") != len(checks) {
		t.Errorf("%s", out.String())
	}
	if err := Run(t.Context(), w.mesh, brokenPipe{}); err == nil || errors.Is(err, ErrFailed) {
		t.Errorf("output that cannot be written: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, fmt.Errorf("broken pipe") }
