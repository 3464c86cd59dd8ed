// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/test/mesh"
)

// A way is a caller whose sidecar listens for one service at Local, and sends what
// comes there to that service's sidecar, past a tap.
type way struct {
	*mesh.Mesh
	Local       netip.AddrPort
	Tap         *mesh.Tap
	caller, app *mesh.Workload
}

const strict = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// newWay makes the mesh for an application of this protocol that listens at app.
// Its service has loopback's address, so that clients may dial what they name.
func newWay(t *testing.T, protocol string, app netip.AddrPort) *way {
	t.Helper()
	w := &way{Mesh: mesh.Start(t), Local: freeporttest.Addr(t)}
	w.Write("mtls.yaml", strict)
	w.Write("service.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: app}
spec:
  hosts: [app.mesh]
  addresses: [127.0.0.1]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: %d, name: http, protocol: %s}]
  workloadSelector: {labels: {app: app}}
`, w.Local.Port(), protocol))
	w.app = &mesh.Workload{Name: "app", Labels: map[string]string{"app": "app"}, Account: "app", App: app, Protocol: protocol, Inbound: freeporttest.Addr(t)}
	w.Tap = mesh.NewTap(t, w.app.Inbound)
	w.app.Reach = w.Tap.Addr
	w.Join(w.app)
	w.caller = &mesh.Workload{
		Name: "caller", Labels: map[string]string{"app": "caller"}, Account: "caller",
		Egress: fmt.Sprintf(`  - port: {number: %d, name: app, protocol: %s}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["*/*"]
`, w.Local.Port(), protocol),
	}
	w.Join(w.caller)
	return w
}

// secured fails unless all that passed between the sidecars was TLS.
func (w *way) secured(t *testing.T, text ...string) {
	t.Helper()
	conns := w.Tap.Conns()
	if len(conns) == 0 {
		t.Error("nothing passed between the sidecars")
	}
	for _, c := range conns {
		there, back := c.Bytes()
		if !strings.HasPrefix(there, "\x16\x03") || !strings.HasPrefix(back, "\x16\x03") {
			t.Error("a connection between the sidecars does not begin with a handshake")
		}
		for _, s := range text {
			if strings.Contains(there, s) || strings.Contains(back, s) {
				t.Errorf("%q can be read on the wire", s)
			}
		}
	}
}

// counted fails unless both sidecars count this many messages for a call.
func (w *way) counted(t *testing.T, call func() error, requests, responses float64) {
	t.Helper()
	sums := func() (got [2][2]float64, err error) {
		for i, side := range []*mesh.Workload{w.caller, w.app} {
			for j, name := range []string{"istio_request_messages_total", "istio_response_messages_total"} {
				if got[i][j], err = mesh.Metric(side, name, `source_workload="caller"`, `destination_workload="app"`); err != nil {
					return got, err
				}
			}
		}
		return got, nil
	}
	before, err := sums()
	if err != nil {
		t.Fatal(err)
	}
	if err := call(); err != nil {
		t.Error(err)
	}
	for i := range before {
		before[i][0] += requests
		before[i][1] += responses
	}
	mesh.Eventually(t, "messages are counted", func() error {
		got, err := sums()
		for i := range got {
			for j, n := range got[i] {
				if n < before[i][j] { // a call of before may be counted late
					err = errors.Join(err, fmt.Errorf("%v, want %v", got, before))
				}
			}
		}
		return err
	})
}

// program builds one of gRPC's programs.
func program(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	b, err := exec.Command("go", "build", "-o", out, "google.golang.org/grpc/interop/"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("gRPC's interop %s cannot be built: %v\n%s", name, err, b)
	}
	return out
}

// interopServer runs gRPC's server and returns where it listens.
func interopServer(t *testing.T) netip.AddrPort {
	t.Helper()
	addr := freeporttest.Addr(t)
	cmd := exec.Command(program(t, "server"), "--port", strconv.Itoa(int(addr.Port())))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	mesh.Eventually(t, "the interop server listens", func() error {
		conn, err := net.Dial("tcp", addr.String())
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	return addr
}

// TestInterop runs every case of gRPC's client that needs no credentials, each as a
// process of its own, as gRPC's own scripts do.
func TestInterop(t *testing.T) {
	w := newWay(t, "GRPC", interopServer(t))
	client := program(t, "client")
	const orca = `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`
	run := func(name string, args ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		args = append(args, "--server_host", "127.0.0.1", "--server_port", strconv.Itoa(int(w.Local.Port())), "--test_case", name)
		cmd := exec.CommandContext(ctx, client, args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w\n%s", err, out.String())
		}
		return nil
	}
	mesh.Eventually(t, "the first call", func() error { return run("empty_unary") })
	soak := []string{"--soak_iterations", "300", "--soak_num_threads", "3", "--soak_per_iteration_max_acceptable_latency_ms", "20000", "--soak_overall_timeout_seconds", "50"}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"empty_unary", nil}, {"large_unary", nil}, {"client_streaming", nil}, {"server_streaming", nil}, {"ping_pong", nil},
		{"empty_stream", nil}, {"timeout_on_sleeping_server", nil}, {"cancel_after_begin", nil}, {"cancel_after_first_response", nil},
		{"status_code_and_message", nil}, {"special_status_message", nil}, {"custom_metadata", nil}, {"unimplemented_method", nil},
		{"unimplemented_service", nil}, // pick_first_unary wants an id that gRPC's server in Go does not send
		{"orca_per_rpc", []string{"--service_config_json", orca}}, {"orca_oob", []string{"--service_config_json", orca}},
		{"rpc_soak", soak}, {"channel_soak", soak},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := run(c.name, c.args...); err != nil {
				t.Error(err)
			}
		})
	}
	w.counted(t, func() error { return run("server_streaming") }, 1, 4)
	w.counted(t, func() error { return run("client_streaming") }, 4, 1)
	w.secured(t, "grpc.testing", "application/grpc")
}
