// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/certs/sds"
	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/xds"
)

// patience is how long an Envoy may take to have everything in force. A port whose certificate nobody has
// takes 15 s alone.
const patience = 60 * time.Second

// A Plane is a running control plane over a folder.
type Plane struct {
	*control.Control
	t      testing.TB
	Addr   netip.AddrPort
	Folder string
}

// Start runs a control plane until the test ends.
func Start(t testing.TB) *Plane {
	t.Helper()
	cfg := control.Defaults()
	p := &Plane{t: t, Addr: freeporttest.Addr(t), Folder: t.TempDir()}
	cfg.State, cfg.Folders = filepath.Join(t.TempDir(), "state"), []string{p.Folder}
	cfg.XDS, cfg.Monitoring = []netip.AddrPort{p.Addr}, netip.AddrPort{}
	var err error
	if p.Control, err = control.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	return p
}

// Write puts a file into the configuration; empty text removes it.
func (p *Plane) Write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.Folder, name)
	if text == "" {
		if err := os.Remove(path); err != nil {
			p.t.Fatal(err)
		}
		return
	}
	tmp := filepath.Join(p.t.TempDir(), name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		p.t.Fatal(err)
	}
}

// A Node is who an Envoy says that it is.
type Node struct {
	Role      mesh.NodeType
	Namespace mesh.Namespace
	Name      string
	Account   mesh.ServiceAccount
	Addr      netip.Addr
	Labels    map[string]string
	Meta      map[string]string
	Locality  mesh.Locality
	SotW      bool

	own bool // no stock Envoy can be it
}

func (n Node) id() string {
	return mesh.NodeID{Type: n.Role, Addr: n.Addr, Name: n.Name, Namespace: n.Namespace}.String()
}

// bootstrap tells an Envoy where its control plane and its agent are: at the ends of sockets, which lead out of its
// network namespace.
const bootstrap = `
node: {id: %q, cluster: test, metadata: %s, locality: {region: %q, zone: %q, sub_zone: %q}}
admin: {address: {pipe: {path: %q}}}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  ads_config:
    api_type: %s
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: istiod.istio-system.svc
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {tls_maximum_protocol_version: TLSv1_3}
          tls_certificate_sds_secret_configs: [{name: default, sds_config: &sds {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}, resource_api_version: V3}}]
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: *sds}
  - name: sds-grpc
    type: STATIC
    typed_extension_protocol_options: *h2
    load_assignment: {cluster_name: sds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
`

// An Envoy is a running one.
type Envoy struct {
	Node
	plane *Plane
	admin *http.Client
}

var serial atomic.Int32

// Connect runs an Envoy until the test ends.
func (p *Plane) Connect(n Node) *Envoy {
	p.t.Helper()
	binary := os.Getenv("MELTEMI_TEST_ENVOY")
	if binary == "" {
		p.t.Skip("MELTEMI_TEST_ENVOY does not name an Envoy")
	}
	if err := netns.Permitted(); err != nil {
		p.t.Skip("no network namespace for an Envoy:", err)
	}
	dir, err := os.MkdirTemp("", "envoy") // short: a socket's path has 107 bytes
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ns := p.namespace(n.Addr)
	p.relay(filepath.Join(dir, "xds"))
	p.agent(n, filepath.Join(dir, "sds"))

	meta := map[string]any{"NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.Account, "LABELS": n.Labels, "INSTANCE_IPS": n.Addr.String()}
	for k, v := range n.Meta {
		meta[k] = v
	}
	metadata, err := json.Marshal(meta)
	if err != nil {
		p.t.Fatal(err)
	}
	api := "DELTA_GRPC"
	if n.SotW {
		api = "GRPC"
	}
	text := fmt.Sprintf(bootstrap, n.id(), metadata, n.Locality.Region, n.Locality.Zone, n.Locality.SubZone, filepath.Join(dir, "admin"),
		api, filepath.Join(dir, "xds"), filepath.Join(dir, "sds"))
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.run(ns, n, filepath.Join(dir, "log"), exec.Command(binary, "-c", file, "--disable-hot-restart", "-l", "warning", "--skip-deprecated-logs", "--concurrency", "1"))
	return &Envoy{Node: n, plane: p, admin: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "admin"))
		},
	}}}
}

// namespace makes one in which addr is an address of this machine.
func (p *Plane) namespace(addr netip.Addr) netns.Namespace {
	p.t.Helper()
	name := fmt.Sprintf("meltemi-test-%d-%d", os.Getpid(), serial.Add(1))
	ns, err := netns.Create(name)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			p.t.Error(err)
		}
	})
	if err := ns.AddAddr("lo", netip.PrefixFrom(addr, addr.BitLen())); err != nil {
		p.t.Fatal(err)
	}
	return ns
}

func (p *Plane) run(ns netns.Namespace, n Node, logFile string, cmd *exec.Cmd) {
	p.t.Helper()
	out, err := os.Create(logFile)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := ns.Start(cmd, nil); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		_ = out.Close()
		if b, err := os.ReadFile(logFile); err == nil && p.t.Failed() {
			p.t.Logf("Envoy %s says:\n%s", n.id(), bytes.TrimSpace(b))
		}
	})
}

// relay leads from a socket to the control plane.
func (p *Plane) relay(socket string) {
	p.t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		p.t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pipe(ctx, in, p.Addr.String()) })
		}
	})
	p.t.Cleanup(func() { ln.Close(); stop(); wg.Wait() })
}

// pipe copies both ways until either end, or ctx, ends.
func pipe(ctx context.Context, in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(out, in); out.Close() }()
	_, _ = io.Copy(in, out)
	in.Close()
	<-done
}

// agent keeps a certificate for n's identity and serves it on a socket.
func (p *Plane) agent(n Node, socket string) {
	p.t.Helper()
	id := mesh.Identity{TrustDomain: mesh.DefaultTrustDomain, Namespace: n.Namespace, ServiceAccount: n.Account}
	token, _, err := p.Authority().Tokens().Issue(ca.ForIdentity(id), time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Authority().RootPEM())
	src := &certs.Source{}
	authority, err := certs.NewCA(certs.CAConfig{
		Target: p.Addr.String(), Source: src, Roots: func() (*x509.CertPool, error) { return roots, nil }, Token: func() (string, error) { return token, nil },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		p.t.Fatal(err)
	}
	hub := xds.NewServer(sds.NewHub(src, nil), xds.ServerConfig{})
	server := grpc.NewServer(hub.Options()...)
	hub.RegisterSecrets(server)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) })
	rotator := &certs.Rotator{Identity: id, Authority: authority, Source: src}
	wg.Go(func() { _ = rotator.Run(ctx) })
	p.t.Cleanup(func() { cancel(); hub.Close(); server.Stop(); wg.Wait() })
}

// get reads an admin page.
func (e *Envoy) get(page string) (string, error) {
	resp, err := e.admin.Get("http://envoy" + page)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// status is what the control plane knows of e; nil while it is not connected.
func (e *Envoy) status() *push.ClientStatus {
	all := e.plane.Status()
	i := slices.IndexFunc(all, func(s push.ClientStatus) bool { return s.Node == e.id() })
	if i < 0 {
		return nil
	}
	return &all[i]
}

var errNotYet = errors.New("not yet")

// settled is nil once everything that was sent is acknowledged, and nothing waits for anything else.
func (e *Envoy) settled() error {
	s := e.status()
	if s == nil {
		return fmt.Errorf("%w connected", errNotYet)
	}
	seen := map[string]bool{}
	for _, t := range s.Types {
		seen[t.TypeURL[strings.LastIndexByte(t.TypeURL, '.')+1:]] = t.Acked != "" || t.LastNack != nil
		if t.Waiting > 0 {
			return fmt.Errorf("%w answered: %s", errNotYet, t.TypeURL)
		}
	}
	if !seen["Cluster"] || !seen["Listener"] {
		return fmt.Errorf("%w asked for clusters and listeners: %v", errNotYet, seen)
	}
	stats, err := e.get("/stats?filter=^(cluster_manager.warming_clusters|listener_manager.total_listeners_warming|listener_manager.workers_started|server.state)$")
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_manager.warming_clusters: 0", "listener_manager.total_listeners_warming: 0", "listener_manager.workers_started: 1", "server.state: 0"} {
		if !strings.Contains(stats, want) {
			return fmt.Errorf("%w %s:\n%s", errNotYet, want, stats)
		}
	}
	return nil
}

// Settle waits until e is settled, and has seen what changed, if that is given, tells of.
func (e *Envoy) Settle(changed func(*push.ClientStatus) bool) {
	e.plane.t.Helper()
	var err error
	defer func() {
		if err != nil {
			e.plane.t.Logf("%s: %v", e.id(), err)
		}
	}()
	until(e.plane.t, e.id()+" has everything in force", func() bool {
		if err = e.settled(); err == nil && changed != nil && !changed(e.status()) {
			err = fmt.Errorf("%w seen the change", errNotYet)
		}
		return err == nil
	})
}

// until polls.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Check reports what e refuses, or counts as refused.
func (e *Envoy) Check(what string) {
	e.plane.t.Helper()
	for _, t := range e.status().Types {
		if t.LastNack != nil {
			e.plane.t.Errorf("%s: %s refuses %s: %s", what, e.id(), t.TypeURL, t.LastNack.Detail)
		}
	}
	for _, c := range e.plane.Conditions() {
		if len(c.Rejecting) > 0 {
			e.plane.t.Errorf("%s: %s is %s", what, c.Object, c.State)
		}
	}
	rejected, err := e.get("/stats?usedonly&filter=update_rejected|listener_create_failure")
	if err != nil {
		e.plane.t.Error(err)
	}
	if rejected = strings.TrimSpace(rejected); rejected != "" {
		e.plane.t.Errorf("%s: %s: %s", what, e.id(), rejected)
	}
}
