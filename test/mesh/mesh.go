// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package mesh runs a whole mesh inside a test: a control plane, a sidecar for
// each workload, a gateway, all on loopback and without capture, so that it
// needs no privileges. Only the processes are missing; sockets, TLS, xDS and
// files are real.
//
//	mesh.go      Mesh: start, configure, add workloads
//	bookshop.go  the sample application on it
//	tap.go       what passes on the wire
//	envoy.go     a real Envoy in the place of our proxy
//	traffic.go   callers that never try again, and loads of them
package mesh

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/telemetry/logs"
)

// A Mesh is a running mesh. Everything ends with the test.
type Mesh struct {
	t       testing.TB
	Control *control.Control
	Addr    netip.AddrPort // of xDS
	Folder  string         // of the configuration
	state   string
	stop    context.CancelFunc // of the control plane
	done    chan struct{}

	Log slog.Level
	// CertLifetime of every workload's certificate; 0: a day.
	CertLifetime time.Duration
	// Envoy says which workloads get a real Envoy as their proxy; nil: none.
	Envoy func(name string) bool
}

// Start runs a control plane over an empty folder.
func Start(t testing.TB) *Mesh {
	t.Helper()
	m := newMesh(t)
	m.begin()
	return m
}

func newMesh(t testing.TB) *Mesh {
	t.Helper()
	noLeaks(t)
	m := &Mesh{t: t, Folder: t.TempDir(), state: filepath.Join(t.TempDir(), "state"), Addr: freeporttest.Addr(t), Log: slog.LevelError}
	if testing.Verbose() {
		m.Log = slog.LevelWarn
	}
	return m
}

func (m *Mesh) begin() {
	m.t.Helper()
	m.StartControl()
	m.t.Cleanup(m.StopControl)
}

// StartControl starts the control plane, again after StopControl.
func (m *Mesh) StartControl() {
	m.t.Helper()
	cfg := control.Defaults()
	cfg.State, cfg.Folders, cfg.XDS, cfg.Monitoring = m.state, []string{m.Folder}, []netip.AddrPort{m.Addr}, netip.AddrPort{}
	cfg.CertLifetime = m.CertLifetime
	cfg.Log = logs.New(os.Stderr, logs.Config{Level: m.Log}).Logger
	c, err := control.New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			m.t.Errorf("control plane: %v", err)
		}
	}()
	m.Control, m.stop, m.done = c, stop, done
}

// StopControl ends the control plane; proxies go on with what they have.
func (m *Mesh) StopControl() {
	if m.stop != nil {
		m.stop()
		<-m.done
		m.stop = nil
	}
}

// Write puts a file into the configuration, as an editor does: a new file under
// the old name.
func (m *Mesh) Write(name, text string) {
	m.t.Helper()
	tmp := filepath.Join(m.t.TempDir(), name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(m.Folder, name)); err != nil {
		m.t.Fatal(err)
	}
}

// Remove takes a file out of the configuration.
func (m *Mesh) Remove(name string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.Folder, name)); err != nil {
		m.t.Fatal(err)
	}
}

// A Workload is an application with its sidecar.
type Workload struct {
	Name    string
	Labels  map[string]string
	Account string
	// App is where the application listens; not valid: it only calls others.
	App netip.AddrPort
	// Protocol of App; HTTP unless set.
	Protocol string
	// Reach is where callers are told to go: Inbound, unless something stands before it.
	Reach netip.AddrPort
	// Egress is the egress part of its Sidecar, YAML; everything unless set.
	Egress string
	// Inbound is where the sidecar listens for callers, Proxy where for the
	// application's own requests (HTTP_PROXY), Admin its admin pages.
	Inbound, Proxy, Admin netip.AddrPort
	Sidecar               *proxy.Proxy
	Stop                  func() // ends the sidecar
}

// Join registers w and starts its sidecar. Addresses are filled in.
func (m *Mesh) Join(w *Workload) {
	m.t.Helper()
	m.register(w)
	cfg := m.ProxyConfig(w.Account)
	cfg.Node.Name, cfg.Node.Labels, cfg.Node.Entry = w.Name, w.Labels, w.Name
	cfg.Node.Workload = w.Name
	cfg.Node.NoCapture, cfg.Node.HTTPProxyPort = true, w.Proxy.Port()
	cfg.Admin = w.Admin
	if m.Envoy != nil && m.Envoy(w.Name) {
		w.Stop = m.runEnvoy(cfg, envoyMeta(cfg))
		return
	}
	w.Sidecar, w.Stop = m.Run(cfg)
}

func (m *Mesh) register(w *Workload) {
	m.t.Helper()
	for _, a := range []*netip.AddrPort{&w.Inbound, &w.Proxy, &w.Admin} {
		if !a.IsValid() {
			*a = freeporttest.Addr(m.t)
		}
	}
	if !w.Reach.IsValid() {
		w.Reach = w.Inbound
	}
	labels := ""
	for k, v := range w.Labels {
		labels += fmt.Sprintf("    %s: %q\n", k, v)
	}
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %s
spec:
  address: 127.0.0.1
  ports: {http: %d, tcp: %d, grpc: %d}
  serviceAccount: %s
  labels:
%s    security.istio.io/tlsMode: istio
`, w.Name, w.Reach.Port(), w.Reach.Port(), w.Reach.Port(), w.Account, labels)
	ingress, egress, protocol := "", "  - hosts: [\"*/*\"]\n", "HTTP"
	if w.Protocol != "" {
		protocol = w.Protocol
	}
	if w.App.IsValid() {
		ingress = fmt.Sprintf(`  ingress:
  - port: {number: %d, name: in, protocol: %s}
    bind: 127.0.0.1
    captureMode: NONE
    defaultEndpoint: %s
`, w.Inbound.Port(), protocol, w.App)
	}
	if w.Egress != "" {
		egress = w.Egress
	}
	if w.App.IsValid() || w.Egress != "" {
		text += fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: %s
spec:
  workloadSelector:
    labels:
%s%s  egress:
%s`, w.Name, strings.ReplaceAll("  "+labels, "\n    ", "\n      "), ingress, egress)
	}
	m.Write("workload-"+w.Name+".yaml", text)
}

// Gateway starts an ingress gateway with these labels.
func (m *Mesh) Gateway(labels map[string]string) *Workload {
	m.t.Helper()
	w := &Workload{Name: "gateway", Labels: labels, Account: "gateway", Admin: freeporttest.Addr(m.t)}
	cfg := m.ProxyConfig(w.Account)
	cfg.Node.Role, cfg.Node.Name, cfg.Node.Labels = mesh.Router, w.Name, labels
	cfg.Node.Workload = "istio-ingressgateway"
	cfg.Admin = w.Admin
	if m.Envoy != nil && m.Envoy(w.Name) {
		w.Stop = m.runEnvoy(cfg, envoyMeta(cfg))
		return w
	}
	w.Sidecar, w.Stop = m.Run(cfg)
	return w
}

// Service declares a service for workloads that carry app: name.
func (m *Mesh) Service(name string, port int, portName string) {
	m.t.Helper()
	m.Write("service-"+name+".yaml", fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default}
spec:
  ports: [{port: %d, name: %s, targetPort: %s}]
  selector: {app: %[1]s}
`, name, port, portName, strings.SplitN(portName, "-", 2)[0]))
}

func identity(account string) mesh.Identity {
	return mesh.Identity{TrustDomain: mesh.DefaultTrustDomain, Namespace: "default", ServiceAccount: mesh.ServiceAccount(account)}
}

func (m *Mesh) token(account string) string {
	m.t.Helper()
	token, _, err := m.Control.Authority().Tokens().Issue(ca.ForIdentity(identity(account)), time.Hour)
	if err != nil {
		m.t.Fatal(err)
	}
	return token
}

// Certify has an identity of the mesh certified, for what stands outside it.
func (m *Mesh) Certify(account string) *certs.Source {
	m.t.Helper()
	token, source := m.token(account), &certs.Source{}
	authority, err := certs.NewCA(certs.CAConfig{
		Target: m.Addr.String(), Token: func() (string, error) { return token, nil },
		Roots: func() (*x509.CertPool, error) { return certs.ParseRoots(m.Control.Authority().RootPEM()) },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = (&certs.Rotator{Identity: identity(account), Authority: authority, Source: source}).Run(ctx)
	})
	m.t.Cleanup(func() { cancel(); wg.Wait() })
	if _, err := source.Wait(ctx); err != nil {
		m.t.Fatal(err)
	}
	return source
}

// ProxyConfig is that of a sidecar with this account: it knows the control plane and
// has a join token.
func (m *Mesh) ProxyConfig(account string) proxy.Config {
	m.t.Helper()
	token := m.token(account)
	file := filepath.Join(m.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		m.t.Fatal(err)
	}
	cfg := proxy.Defaults()
	cfg.Control, cfg.RootFile, cfg.TokenFile = m.Addr.String(), control.RootFile(m.state), file
	cfg.Metrics, cfg.Health, cfg.DNS = netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}
	cfg.Drain = 100 * time.Millisecond // nobody waits for the connections that tests leave behind
	cfg.Logs = logs.New(os.Stderr, logs.Config{Level: m.Log})
	cfg.Node.Namespace, cfg.Node.ServiceAccount = "default", mesh.ServiceAccount(account)
	cfg.Node.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	return cfg
}

// Run starts a proxy. It ends with the test, or when what is returned is called.
func (m *Mesh) Run(cfg proxy.Config) (*proxy.Proxy, func()) {
	m.t.Helper()
	p, err := proxy.New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			m.t.Errorf("proxy %s: %v", cfg.Node.Name, err)
		}
	}()
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); <-done }) }
	m.t.Cleanup(stop)
	return p, stop
}

// Eventually polls until ok holds, and fails the test if it does not within 20 s.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	var last error
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if last = ok(); last == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, last)
}

// Get asks client for a URL and returns status and body.
func Get(client *http.Client, url string, header ...string) (int, string, http.Header, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

// Metric sums up the series of this name in w's metrics that have all of the parts; none is an error.
func Metric(w *Workload, name string, parts ...string) (sum float64, err error) {
	_, page, _, err := Get(http.DefaultClient, "http://"+w.Admin.String()+"/stats/prometheus")
	if err != nil {
		return 0, err
	}
	seen, found := "", false
lines:
	for line := range strings.Lines(page) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(series, name+"{") {
			continue
		}
		seen += line
		for _, p := range parts {
			if !strings.Contains(series, p) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("no %s with %q; there is\n%s", name, parts, seen)
	}
	return sum, nil
}

// serveApp serves h on loopback until the test ends.
func serveApp(t testing.TB, h http.Handler) netip.AddrPort {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return netip.MustParseAddrPort(srv.Listener.Addr().String())
}

// noLeaks fails the test if goroutines are left when all else has ended.
func noLeaks(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		Eventually(t, "every goroutine ends", func() error {
			if n := runtime.NumGoroutine(); n > before {
				buf := make([]byte, 1<<20)
				return fmt.Errorf("%d are left, %d were there before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
			}
			return nil
		})
	})
}
