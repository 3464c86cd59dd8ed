// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// chainCases are matches; each chain is named by its index.
var chainCases = []string{
	`{server_names: [a.example], transport_protocol: tls}`,
	`{server_names: ["*.example"], application_protocols: [h2]}`,
	`{server_names: ["*.example"]}`,
	`{server_names: ["*.deep.example"], application_protocols: [istio]}`,
	`{server_names: [plain.test], transport_protocol: raw_buffer}`,
	`{transport_protocol: tls, application_protocols: [istio, istio-h2]}`,
	`{transport_protocol: tls, application_protocols: [h2]}`,
	`{transport_protocol: raw_buffer, application_protocols: [http/1.1]}`,
	`{transport_protocol: raw_buffer, application_protocols: [h2c], source_type: SAME_IP_OR_LOOPBACK}`,
	`{transport_protocol: raw_buffer, application_protocols: [http/1.0], source_type: EXTERNAL}`,
	`{transport_protocol: tls, server_names: [net.test], source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}`,
	`{transport_protocol: tls, server_names: [net2.test], source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}`,
	`{server_names: [dst.test], prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}`,
	`{server_names: [dst2.test], prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}], transport_protocol: tls}`,
}

// hello is what a TLS client says first.
func hello(t *testing.T, sni string, alpn ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: alpn}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestChainsAgreeWithEnvoy(t *testing.T) {
	binary, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("there is no envoy on the path")
	}
	raw, err := os.ReadFile("testdata/chains.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var chains, clusters strings.Builder
	cluster := func(name string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, name)
				_ = conn.(*net.TCPConn).CloseWrite()
				go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
			}
		}()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		fmt.Fprintf(&clusters, "  - {name: %s, type: STATIC, load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}}\n", name, port)
	}
	cluster("default")
	for i, match := range chainCases {
		cluster(fmt.Sprintf("c%d", i))
		fmt.Fprintf(&chains, "    - {name: c%d, filter_chain_match: %s, filters: [{name: tcp, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c%d}}]}\n", i, match, i)
	}
	port := freePort(t)
	yaml := strings.NewReplacer("ADMIN", freePort(t), "PORT", port, "CHAINS\n", chains.String(), "CLUSTERS\n", clusters.String()).Replace(string(raw))
	startEnvoy(t, binary, yaml, port)
	w := newWorld(t)
	snap, err := w.LoadStatic([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	l := snap.Listener("l")
	ask := func(what string, first []byte, f ConnFacts) {
		f.Local, f.Remote = netip.MustParseAddrPort("127.0.0.1:"+port), netip.MustParseAddrPort("127.0.0.1:40000")
		f.DirectRemote = f.Remote
		want := firstAnswer(t, port, first)
		got, steps := l.ExplainChoice(&f)
		name := got.Name
		if got == l.Default {
			name = "default"
		}
		if name != want || l.Choose(&f) != got {
			t.Errorf("%s: envoy %s, we %s\n%s", what, want, name, strings.Join(steps, "\n"))
		}
	}
	for _, sni := range []string{"a.example", "b.example", "x.deep.example", "deep.example", "example", "plain.test", "net.test", "net2.test", "dst.test", "dst2.test", "other", ""} {
		for _, alpn := range [][]string{nil, {"h2"}, {"http/1.1", "h2"}, {"istio"}, {"h2", "istio"}, {"istio-h2", "istio", "h2"}} {
			ask(fmt.Sprintf("TLS %q %q", sni, alpn), hello(t, sni, alpn...), ConnFacts{SNI: sni, Transport: "tls", Protocols: alpn})
		}
	}
	for first, protocols := range map[string][]string{
		"GET / HTTP/1.1\r\nhost: x\r\n\r\n": {"http/1.1"}, "GET / HTTP/1.0\r\n\r\n": {"http/1.0"}, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": {"h2c"}, "\x00\x01binary\r\n\r\n": nil,
	} {
		ask(fmt.Sprintf("%.16q", first), []byte(first), ConnFacts{Transport: "raw_buffer", Protocols: protocols})
	}
}

// firstAnswer sends bytes and returns what the cluster says its name is.
func firstAnswer(t *testing.T, port string, first []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(first); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}
