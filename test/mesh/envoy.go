// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/certs/sds"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/xds"
)

// envoyBinary is a real Envoy; the test is skipped where there is none.
func envoyBinary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("MELTEMI_TEST_ENVOY")
	if path == "" {
		t.Skip("MELTEMI_TEST_ENVOY does not name an Envoy")
	}
	return path
}

// bootstrap tells an Envoy where its control plane is, and where the agent that
// holds its certificate. The control plane is spoken to with that certificate.
const bootstrap = `
node: {id: %q, cluster: %q, metadata: %s}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  ads_config:
    api_type: DELTA_GRPC
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
    load_assignment: {cluster_name: xds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
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

// runEnvoy starts an Envoy as the proxy that cfg describes, with an agent that
// fetches its certificate and serves it on a socket.
func (m *Mesh) runEnvoy(cfg proxy.Config, meta map[string]any) func() {
	m.t.Helper()
	binary := envoyBinary(m.t)
	dir, err := os.MkdirTemp("", "envoy") // short: a socket's path has 107 bytes
	if err != nil {
		m.t.Fatal(err)
	}
	socket := filepath.Join(dir, "sds")
	stopAgent := m.agent(cfg, socket)
	metadata, err := json.Marshal(meta)
	if err != nil {
		m.t.Fatal(err)
	}
	role := cfg.Node.Role
	if role == "" {
		role = mesh.Sidecar
	}
	id := mesh.NodeID{Type: role, Addr: cfg.Node.Addrs[0], Name: cfg.Node.Name, Namespace: cfg.Node.Namespace}
	text := fmt.Sprintf(bootstrap, id.String(), cfg.Node.Name, metadata, cfg.Admin.Port(), m.Addr.Port(), socket)
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "-c", file, "--disable-hot-restart", "-l", "warning", "--skip-deprecated-logs", "--concurrency", "1")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			timer.Stop()
			stopAgent()
			_ = os.RemoveAll(dir)
			if m.t.Failed() {
				m.t.Logf("Envoy of %s says:\n%s", cfg.Node.Name, log.String())
			}
		})
	}
	m.t.Cleanup(stop)
	return stop
}

// agent keeps a certificate for cfg's identity and serves it on a unix socket.
func (m *Mesh) agent(cfg proxy.Config, socket string) (stop func()) {
	m.t.Helper()
	src := &certs.Source{}
	authority, err := certs.NewCA(certs.CAConfig{
		Target: cfg.Control, Source: src,
		Roots: func() (*x509.CertPool, error) {
			b, err := os.ReadFile(cfg.RootFile)
			if err != nil {
				return nil, err
			}
			return certs.ParseRoots(b)
		},
		Token: func() (string, error) { b, err := os.ReadFile(cfg.TokenFile); return string(b), err },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		m.t.Fatal(err)
	}
	server := grpc.NewServer()
	xds.NewServer(sds.NewHub(src, nil), xds.ServerConfig{}).RegisterSecrets(server)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) })
	rotator := &certs.Rotator{Identity: cfg.Node.Identity(), Authority: authority, Source: src}
	wg.Go(func() { _ = rotator.Run(ctx) })
	return func() { cancel(); server.Stop(); wg.Wait() }
}

// envoyMeta is the node metadata of cfg, as Istio's agent writes it.
func envoyMeta(cfg proxy.Config) map[string]any {
	meta := map[string]any{
		"NAMESPACE": string(cfg.Node.Namespace), "SERVICE_ACCOUNT": string(cfg.Node.ServiceAccount), "LABELS": cfg.Node.Labels,
		"INSTANCE_IPS": "127.0.0.1", "ISTIO_VERSION": "1.31.0",
	}
	if cfg.Node.Entry != "" {
		meta["WORKLOAD_ENTRY"] = cfg.Node.Entry
	}
	if cfg.Node.NoCapture {
		meta["INTERCEPTION_MODE"] = "NONE"
	}
	if p := cfg.Node.HTTPProxyPort; p != 0 {
		meta["HTTP_PROXY_PORT"] = fmt.Sprint(p)
	}
	return meta
}

// EnvoyStat reads one counter of an Envoy's admin pages.
func EnvoyStat(w *Workload, name string) (string, error) {
	_, body, _, err := Get(http.DefaultClient, "http://"+w.Admin.String()+"/stats?usedonly&filter="+name)
	return body, err
}
