// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// A rig is a server with clusters, and a listener in front of it.
type rig struct {
	t      testing.TB
	set    *upstream.Set
	server *Server
	reg    *telemetry.Registry
	http   *config.HTTP
	now    atomic.Pointer[config.HTTP] // what changed http to; nil: nothing did
	facts  func(*filter.Conn)
	addr   string
	log    string
	files  *accesslog.Files
	drain  chan struct{}
	conns  atomic.Uint64
}

// A setup is what a test changes about its rig.
type setup struct {
	routes  []route.Route
	host    route.VirtualHost // of the one virtual host; its routes are the above
	http    config.HTTP
	entries []filter.Entry
	access  filter.Access
	server  Config
	specs   []*upstream.Spec
	setting []filter.Setting // of every route
	facts   func(*filter.Conn)
}

const testLog = "%RESPONSE_CODE%|%RESPONSE_FLAGS%|%RESPONSE_CODE_DETAILS%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%|%BYTES_RECEIVED%|%BYTES_SENT%|%REQ(:PATH)%|%ROUTE_NAME%|%UPSTREAM_CLUSTER_RAW%|%PROTOCOL%\n"

func newRig(t testing.TB, change func(*setup)) *rig {
	t.Helper()
	s := setup{access: filter.Open, server: Defaults()}
	s.host = route.VirtualHost{Name: "all", Domains: []string{"*"}}
	s.http = config.HTTP{StatPrefix: "test", ServerName: "envoy", GenerateRequestID: true, NormalizePath: true, Proxy100: true,
		Upgrades: []route.Upgrade{{Type: "websocket", Enabled: true}}}
	s.server.Sweep = 20 * time.Millisecond
	change(&s)
	r := &rig{t: t, reg: telemetry.NewRegistry(telemetry.Config{}), files: accesslog.NewFiles(5 * time.Millisecond), drain: make(chan struct{}), facts: s.facts}
	r.log = filepath.Join(t.TempDir(), "access.log")
	r.set = upstream.NewSet(upstream.Config{})
	t.Cleanup(r.set.Close)
	for _, spec := range s.specs {
		r.set.Put(spec)
	}
	s.server.Registry, s.server.Files = r.reg, r.files
	s.server.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	s.server.DialCluster = r.dialCluster
	r.server = New(s.server)
	chain, err := filter.NewChain(s.access, s.entries...)
	if err != nil {
		t.Fatal(err)
	}
	s.http.Chain = chain
	if s.http.AccessLogs == nil {
		s.http.AccessLogs = []config.AccessLog{{Path: r.log, Text: testLog}}
	}
	s.host.Routes = s.routes
	s.http.Routes = config.FixedRoutes("test", r.table(&route.Config{Name: "test", VirtualHosts: []*route.VirtualHost{&s.host}}, s.setting))
	r.http = &s.http
	r.listen()
	return r
}

func (r *rig) table(cfg *route.Config, settings []filter.Setting) *config.RouteTable {
	r.t.Helper()
	table, err := route.Compile(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	out := &config.RouteTable{Table: table}
	for _, name := range table.Clusters() {
		out.Refs = append(out.Refs, r.set.Ref(name))
	}
	for range table.Slots() {
		out.Settings = append(out.Settings, settings)
	}
	for _, f := range table.Formats() {
		format, err := accesslog.Compile(f, accesslog.Options{})
		if err != nil {
			r.t.Fatal(err)
		}
		out.Formats = append(out.Formats, format)
	}
	return out
}

func (r *rig) dialCluster(_ context.Context, name string) (net.Conn, error) {
	c := r.set.Ref(name).Load()
	h, f := c.Pick(&upstream.Request{})
	if f != nil {
		return nil, f
	}
	conn, f := c.Dial(h, &upstream.Request{})
	if f != nil {
		return nil, f
	}
	return conn, nil
}

func (r *rig) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				r.serve(c)
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	r.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
		r.server.Close()
		r.files.Close()
	})
}

func (r *rig) serve(c net.Conn) {
	remote, local := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	facts := &filter.Conn{ID: r.conns.Add(1), Direction: filter.Outbound, Start: time.Now(),
		Remote: remote, DirectRemote: remote, Local: local, DirectLocal: local}
	if r.facts != nil {
		r.facts(facts)
	}
	r.server.ServeConn(c, facts, func() *config.HTTP {
		if h := r.now.Load(); h != nil {
			return h
		}
		return r.http
	}, nil, r.drain)
}

// logged waits for n lines of the access log.
func (r *rig) logged(n int) []string {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		b, _ := os.ReadFile(r.log)
		if lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"); len(b) > 0 && len(lines) >= n {
			return lines
		}
		pause()
	}
	b, _ := os.ReadFile(r.log)
	r.t.Fatalf("the access log has not %d lines: %q", n, b)
	return nil
}

// pause lets others work while a test polls.
func pause() { <-time.After(2 * time.Millisecond) }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); pause() {
		if ok() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

// backend starts a server that speaks HTTP/1.1 and HTTP/2, and returns its address.
func backend(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: &p}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

// rawBackend starts a server whose connections f conducts.
func rawBackend(t testing.TB, f func(net.Conn, *bufio.Reader)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				f(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// deadAddr is an address where nobody listens.
func deadAddr(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	return a
}

// cluster is a static cluster with these endpoints.
func cluster(name string, protocol upstream.Protocol, addrs ...netip.AddrPort) *upstream.Spec {
	var eps []upstream.Endpoint
	for _, a := range addrs {
		eps = append(eps, upstream.Endpoint{Addr: a, Weight: 1})
	}
	return &upstream.Spec{
		Name: name, StatName: name, Hash: 1, Discovery: upstream.Static, Protocol: protocol, ConnectTimeout: 2 * time.Second, IdleTimeout: time.Hour,
		Endpoints: &upstream.Assignment{Overprovisioning: 140, Localities: []upstream.Locality{{Weight: 1, Endpoints: eps}}},
		Breakers:  upstream.Breakers{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3},
	}
}

// to is a route for a prefix to a cluster.
func to(prefix, name string, change ...func(*route.Forward)) route.Route {
	f := &route.Forward{Clusters: []route.Weighted{{Cluster: name, Weight: 1}}}
	for _, c := range change {
		c(f)
	}
	return route.Route{Name: "to " + name, Match: route.Match{Path: route.PathMatch{Value: prefix}}, Forward: f}
}

// client is an HTTP client of one version.
func client(t testing.TB, two bool) *http.Client {
	t.Helper()
	var p http.Protocols
	p.SetHTTP1(!two)
	p.SetUnencryptedHTTP2(two)
	tr := &http.Transport{Protocols: &p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request and returns its response with the body read.
func do(t testing.TB, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func (r *rig) request(method, path string, body io.Reader, fields ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		} else {
			req.Header.Add(fields[i], fields[i+1])
		}
	}
	return req
}

// get sends a GET and returns status, header and body.
func (r *rig) get(path string, fields ...string) (*http.Response, string) {
	r.t.Helper()
	return do(r.t, client(r.t, false), r.request("GET", path, nil, fields...))
}

// dial opens a raw connection to the rig.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}
