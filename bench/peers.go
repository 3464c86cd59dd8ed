// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A bench is a folder of configurations and two origins.
type bench struct {
	dir, proxy, profile string
	plain, secure       string // addresses of the origins
	origins             []*process
}

// A peer is one proxy: how to start it for a row.
type peer struct {
	name  string
	start func(ctx context.Context, b *bench, r row, addr string) (*process, error)
}

func newBench(proxy, profile string) (*bench, error) {
	dir, err := os.MkdirTemp("", "meltemi-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, proxy: proxy, profile: profile}
	return b, b.makeCertificates()
}

func (b *bench) close() {
	for _, o := range b.origins {
		o.stop()
	}
	_ = os.RemoveAll(b.dir)
}

// peers lists the proxies that are here, and names those that are not.
func (b *bench) peers(only string) (here []peer, missing []string) {
	envoy := os.Getenv("MELTEMI_TEST_ENVOY")
	for _, c := range []struct {
		peer
		program string
	}{
		{peer{"nginx", startNginx}, "nginx"},
		{peer{"envoy", func(ctx context.Context, b *bench, r row, addr string) (*process, error) {
			return startEnvoy(ctx, envoy, b, r, addr)
		}}, envoy},
		{peer{relayArg, startRelay}, "/proc/self/exe"},
		{peer{"meltemi-1", startOurs("1")}, b.proxy},
		{peer{"meltemi", startOurs("0")}, b.proxy},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), c.name) {
			continue
		}
		if _, err := exec.LookPath(c.program); c.program == "" || err != nil {
			missing = append(missing, c.name+" (not installed; for Envoy set MELTEMI_TEST_ENVOY to its path, for ours run make build)")
			continue
		}
		here = append(here, c.peer)
	}
	return here, missing
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String(), nil
}

// measure starts p afresh, warms it up, loads it and reads what it used.
func (b *bench) measure(ctx context.Context, p peer, r row, seconds int) (figure, error) {
	addr, err := freeAddr()
	if err != nil {
		return figure{}, err
	}
	proc, err := p.start(ctx, b, r, addr)
	if err != nil {
		return figure{}, err
	}
	defer proc.stop()
	if _, err := load(ctx, addr, r.http2, 1); err != nil {
		return figure{}, fmt.Errorf("%w\n%s", err, proc.out.String())
	}
	before, err := proc.cpu()
	if err != nil {
		return figure{}, err
	}
	n, err := load(ctx, addr, r.http2, seconds)
	if err != nil {
		return figure{}, fmt.Errorf("%w\n%s", err, proc.out.String())
	}
	after, err := proc.cpu()
	if err != nil {
		return figure{}, err
	}
	return figure{cpu: (after - before) / time.Duration(n), requests: n, rss: proc.rss()}, nil
}

func (b *bench) write(name, text string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

const nginxHead = `daemon off; master_process off; worker_processes 1; pid %s; error_log stderr crit;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000;
`

func (b *bench) nginx(ctx context.Context, addr, name, servers string) (*process, error) {
	conf, err := b.write(name+".conf", fmt.Sprintf(nginxHead, b.path(name+".pid"))+servers+"}\n")
	if err != nil {
		return nil, err
	}
	return launch(ctx, addr, "nginx", "-p", b.dir, "-c", conf)
}

// startOrigins starts two nginx that answer 1 KiB: in the clear, and over mutual TLS.
func (b *bench) startOrigins(ctx context.Context) (err error) {
	if b.plain, err = freeAddr(); err != nil {
		return err
	}
	if b.secure, err = freeAddr(); err != nil {
		return err
	}
	answer := fmt.Sprintf(`location / { default_type text/plain; return 200 "%s"; }`, strings.Repeat("x", 1024))
	plain, err := b.nginx(ctx, b.plain, "origin", fmt.Sprintf("server { listen %s reuseport backlog=1024; %s }\n", b.plain, answer))
	if err != nil {
		return err
	}
	b.origins = append(b.origins, plain)
	secure, err := b.nginx(ctx, b.secure, "secure", fmt.Sprintf(`server { listen %s ssl; ssl_protocols TLSv1.3;
 ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on; %s }
`, b.secure, b.path("server.pem"), b.path("server.key"), b.path("ca.pem"), answer))
	if err != nil {
		return err
	}
	b.origins = append(b.origins, secure)
	return nil
}

func startNginx(ctx context.Context, b *bench, r row, addr string) (*process, error) {
	listen, upstream, scheme, tls := addr, b.plain, "http", ""
	if r.http2 {
		listen += " http2"
	}
	if r.mtls {
		upstream, scheme = b.secure, "https"
		tls = fmt.Sprintf("proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate %s; proxy_ssl_certificate_key %s; proxy_ssl_trusted_certificate %s; proxy_ssl_verify on; proxy_ssl_name server;",
			b.path("client.pem"), b.path("client.key"), b.path("ca.pem"))
	}
	return b.nginx(ctx, addr, "proxy", fmt.Sprintf(`upstream up { server %s; keepalive 64; keepalive_requests 1000000000; }
server { listen %s; location / { proxy_pass %s://up; proxy_http_version 1.1; proxy_set_header Connection ""; %s } }
`, upstream, listen, scheme, tls))
}

func startEnvoy(ctx context.Context, envoy string, b *bench, r row, addr string) (*process, error) {
	conf, err := b.write("envoy.yaml", b.bootstrap(r, addr))
	if err != nil {
		return nil, err
	}
	return launch(ctx, addr, envoy, "-c", conf, "--concurrency", "1", "--disable-hot-restart", "-l", "error")
}

// startOurs runs our proxy on so many cores: one, as nginx's worker and Envoy have
// here, or "0" for all.
func startOurs(concurrency string) func(context.Context, *bench, row, string) (*process, error) {
	return func(ctx context.Context, b *bench, r row, addr string) (*process, error) {
		conf, err := b.write("ours.yaml", b.bootstrap(r, addr))
		if err != nil {
			return nil, err
		}
		argv := []string{b.proxy, "--static", conf, "--admin", "127.0.0.1:0", "--metrics", "", "--health", "", "--log-level", "error", "--concurrency", concurrency}
		if b.profile != "" {
			argv = append(argv, "--cpuprofile", filepath.Join(b.profile, strings.ReplaceAll(r.name, "/", "")+" "+concurrency+".prof"))
		}
		return launch(ctx, addr, argv...)
	}
}

// bootstrap is one configuration that Envoy and our proxy both read: routing,
// header operations and statistics on, access log off.
func (b *bench) bootstrap(r row, addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	upstream, socket := b.plain, ""
	if r.mtls {
		upstream = b.secure
		socket = fmt.Sprintf(`
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: server
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates:
          - certificate_chain: {filename: %s}
            private_key: {filename: %s}
          validation_context:
            trusted_ca: {filename: %s}
            match_typed_subject_alt_names:
            - {san_type: URI, matcher: {exact: "spiffe://cluster.local/ns/default/sa/server"}}`,
			b.path("client.pem"), b.path("client.key"), b.path("ca.pem"))
	}
	upHost, upPort, _ := net.SplitHostPort(upstream)
	return fmt.Sprintf(`static_resources:
  listeners:
  - name: bench
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          stream_idle_timeout: 0s
          route_config:
            name: bench
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add: [{header: {key: x-bench, value: "1"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
              response_headers_to_remove: [x-powered-by]
              routes:
              - match: {prefix: "/never", headers: [{name: x-never, string_match: {exact: never}}]}
                route: {cluster: origin}
              - match: {prefix: "/"}
                route: {cluster: origin, timeout: 0s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: origin
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]%s
`, host, port, upHost, upPort, socket)
}

// makeCertificates writes a root, a server's and a client's certificate.
func (b *bench) makeCertificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	if err := b.writePEM("ca.pem", "CERTIFICATE", der); err != nil {
		return err
	}
	for i, name := range []string{"server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			URIs:      []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/" + name}},
			NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
		if err != nil {
			return err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := b.writePEM(name+".pem", "CERTIFICATE", der); err != nil {
			return err
		}
		if err := b.writePEM(name+".key", "PRIVATE KEY", keyDER); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) writePEM(name, kind string, der []byte) error {
	_, err := b.write(name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	return err
}
