// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/redirect"
	"github.com/meltemi/meltemi/test/mesh"
)

const (
	inside      = "MELTEMI_TEST_OUTSIDE" // set inside the namespace: the name of the other one
	services    = 2_000
	used        = 10
	outsideAddr = "10.254.8.1"
	insideAddr  = "10.254.8.2"
)

func create(t *testing.T, suffix string) (string, netns.Namespace) {
	t.Helper()
	name := fmt.Sprintf("mltmdemand-%d-%s", os.Getpid(), suffix)
	n, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return name, n
}

func TestOnDemand(t *testing.T) {
	if err := netns.Permitted(); err != nil {
		t.Skip("no capture:", err)
	}
	if os.Getenv(inside) != "" {
		t.Skip("this is the inside")
	}
	_, in := create(t, "in")
	outName, out := create(t, "out")
	err := netns.Connect(
		netns.End{Namespace: out, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(outsideAddr + "/24")}},
		netns.End{Namespace: in, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(insideAddr + "/24")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.AddDefaultRoute(netip.MustParseAddr(outsideAddr)); err != nil {
		t.Fatal(err)
	}
	spec := redirect.Defaults()
	spec.UIDs, spec.GIDs, spec.DNS, spec.Inbound = nil, nil, 0, 0
	rules, err := redirect.Capture(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Apply(in); err != nil {
		t.Fatal(err)
	}
	logFile, err := os.CreateTemp(t.TempDir(), "inside")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^TestInside", "-test.timeout=5m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inside+"="+outName)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := in.Start(cmd, nil); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	said, _ := os.ReadFile(logFile.Name())
	if err != nil {
		t.Errorf("inside: %v", err)
	}
	t.Logf("%s", said)
}

// A site is the mesh inside the namespace.
type site struct {
	*mesh.Mesh
	t       *testing.T
	app     netip.AddrPort // behind every HTTP service
	backend map[string]netip.AddrPort
	proxy   *proxy.Proxy
	admin   netip.AddrPort
	client  *http.Client
}

// vip is the address of service i.
func vip(i int) string { return fmt.Sprintf("10.96.%d.%d", i/250, i%250+1) }

func host(i int) string { return fmt.Sprintf("s%04d.big.example", i) }

const entry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s}
spec:
  hosts: [%s]
  addresses: [%s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: %d, name: %s, protocol: %s}]
  endpoints:
%s---
`

func endpoint(at netip.AddrPort, name, version string) string {
	return fmt.Sprintf("  - {address: %s, ports: {%s: %d}, labels: {version: %s}}\n", at.Addr(), name, at.Port(), version)
}

func begin(t *testing.T) *site {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("TestOnDemand runs this inside a namespace")
	}
	s := &site{t: t, Mesh: mesh.Start(t), backend: map[string]netip.AddrPort{}, admin: freeporttest.Addr(t)}
	s.app = s.serve("app")
	s.backend["v2"] = s.serve("v2")
	var b strings.Builder
	for i := range services {
		fmt.Fprintf(&b, entry, fmt.Sprintf("s%04d", i), host(i), vip(i), 80, "http", "HTTP", endpoint(s.app, "http", "v1"))
	}
	s.StopControl() // and begin with all services there
	s.Write("big.yaml", b.String())
	s.StartControl()
	s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	return s
}

// serve answers every request with a name and the request's host.
func (s *site) serve(name string) netip.AddrPort {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	return s.serveOn(l, name)
}

func (s *site) serveOn(l net.Listener, name string) netip.AddrPort {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s for %s", name, r.Host) })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	s.t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// start runs the sidecar and waits until it listens.
func (s *site) start(tune func(*proxy.Config)) (stop func()) {
	s.t.Helper()
	cfg := s.ProxyConfig("caller")
	cfg.Node.Name, cfg.Node.OnDemand = "caller", true
	cfg.Node.Addrs = []netip.Addr{netip.MustParseAddr(insideAddr)}
	cfg.Mark = redirect.ProxyMark
	cfg.Admin = s.admin
	if tune != nil {
		tune(&cfg)
	}
	p, stop := s.Run(cfg)
	s.proxy = p
	mesh.Eventually(s.t, "the sidecar listens", func() error {
		if len(p.Addrs("virtualOutbound")) == 0 {
			return fmt.Errorf("virtualOutbound is not open")
		}
		return nil
	})
	return stop
}

// get calls a URL, for another host if one is given, and says what came of it.
func (s *site) get(url string, host ...string) (status int, body string) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	for _, h := range host {
		req.Host = h
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (s *site) expect(what, url string, status int, body string, host ...string) {
	s.t.Helper()
	got, said := s.get(url, host...)
	if got != status || !strings.Contains(said, body) {
		s.t.Errorf("%s: %s: %d %q, not %d with %q", what, url, got, said, status, body)
	}
}

// wants is expect for polling and for goroutines.
func (s *site) wants(url string, status int, body string) error {
	got, said := s.get(url)
	if got != status || !strings.Contains(said, body) {
		return fmt.Errorf("%s: %d %q, not %d with %q", url, got, said, status, body)
	}
	return nil
}

// dump counts the resources of the sidecar by kind.
func (s *site) dump() map[string]int {
	s.t.Helper()
	_, body := s.get("http://" + s.admin.String() + "/config_dump?include_eds")
	var d struct {
		Configs []map[string]json.RawMessage `json:"configs"`
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		s.t.Fatal(err)
	}
	count := map[string]int{}
	for _, c := range d.Configs {
		for kind, list := range c {
			var items []json.RawMessage
			if json.Unmarshal(list, &items) == nil {
				count[kind] = len(items)
			}
		}
	}
	return count
}
