// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// parrot says what it hears, on loopback, until the test ends.
func parrot(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return netip.MustParseAddrPort(ln.Addr().String())
}

// Between sidecars a connection that is not HTTP is as secure as a request, what it carries arrives as it was sent, and
// its metrics name both ends while it is open. A real Envoy at either end knows nothing of Istio's metadata exchange.
func TestTCPBetweenSidecars(t *testing.T) {
	for name, envoy := range map[string]string{"ours": "", "Envoy is called": "db", "Envoy calls": "web"} {
		t.Run(name, func(t *testing.T) {
			if envoy != "" {
				envoyBinary(t)
			}
			m := Start(t)
			m.Envoy = func(name string) bool { return name == envoy }
			m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
			local := freeporttest.Addr(t)
			m.Write("service.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.mesh]
  addresses: [127.0.0.1]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: %d, name: tcp, protocol: TCP}]
  workloadSelector: {labels: {app: db}}
`, local.Port()))
			db := &Workload{Name: "db", Labels: map[string]string{"app": "db"}, Account: "db", App: parrot(t), Protocol: "TCP", Inbound: freeporttest.Addr(t)}
			tap := NewTap(t, db.Inbound)
			db.Reach = tap.Addr
			m.Join(db)
			web := &Workload{Name: "web", Labels: map[string]string{"app": "web"}, Account: "web", Egress: fmt.Sprintf(`  - port: {number: %d, name: db, protocol: TCP}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["*/*"]
`, local.Port())}
			m.Join(web)

			var conn net.Conn
			Eventually(t, "db answers", func() (err error) {
				if conn, err = net.Dial("tcp", local.String()); err != nil {
					return err
				}
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				if err = say(conn, secret); err != nil {
					_ = conn.Close()
				}
				return err
			})
			defer func() { _ = conn.Close() }()

			for _, w := range []*Workload{web, db} {
				if w.Name == envoy {
					continue
				}
				source, called, reporter := `source_workload="web"`, `destination_workload="db"`, `reporter="source"`
				if w == db {
					reporter = `reporter="destination"`
					if envoy != "" {
						source = `source_workload="unknown"`
					}
				}
				Eventually(t, "metrics of "+w.Name, func() error {
					if _, err := Metric(w, "istio_tcp_connections_opened_total", source, called, reporter,
						`source_principal="spiffe://cluster.local/ns/default/sa/web"`, `destination_principal="spiffe://cluster.local/ns/default/sa/db"`); err != nil {
						return err
					}
					n, err := Metric(w, "istio_tcp_received_bytes_total", source, called)
					if err == nil && n < float64(len(secret)) {
						err = fmt.Errorf("%v bytes received, want %d", n, len(secret))
					}
					return err
				})
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if err := say(conn, strings.Repeat(secret, 10_000)); err != nil {
				t.Error(err)
			}
			for _, c := range tap.Conns() {
				there, back := c.Bytes()
				if strings.Contains(there, secret) || strings.Contains(back, secret) || there != "" && !strings.HasPrefix(there, "\x16\x03") {
					t.Error("something can be read on the wire")
				}
			}
		})
	}
}

// say sends text and fails unless the same comes back.
func say(conn net.Conn, text string) error {
	sent := make(chan error, 1)
	go func() { _, err := io.WriteString(conn, text); sent <- err }()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("came back as %.60q", got)
	}
	return <-sent
}
