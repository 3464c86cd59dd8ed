// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/test/mesh"
)

// all matches everything.
const all = `match: {prefix: "/"}, route: {cluster: %s}`

func to(cluster string) string { return fmt.Sprintf(all, cluster) }

// A world is a plane with one listener under load all the while.
type world struct {
	*plane
	main netip.AddrPort
	call *mesh.Caller
	a, b netip.AddrPort
	// known are the refusals that are to be expected.
	known []string
}

func (p *plane) begin(t *testing.T) *world {
	t.Helper()
	w := &world{plane: p, main: freeporttest.Addr(t), a: app(t, "a"), b: app(t, "b")}
	p.put(fmt.Sprintf(listenerYAML, "main", w.main.Port(), "main", "main"))
	p.cluster("web", "1s", "ROUND_ROBIN")
	p.endpoints("web", w.a)
	p.routes("main", to("web"))
	p.push()
	w.call = mesh.NewCaller(t, w.main)
	becomes(t, w.call, "/", "a")
	return w
}

// TestChangesUnderLoad adds, changes and removes resources of each type while the
// main listener is asked on and on.
// A proxy is ready when it serves what it was first told to, not when it has been told of it.
func TestReadyIsToServe(t *testing.T) {
	bothWays(t, func(t *testing.T, p *plane) {
		w := &world{plane: p, main: freeporttest.Addr(t), a: app(t, "a")}
		p.put(fmt.Sprintf(listenerYAML, "main", w.main.Port(), "main", "main"))
		w.cluster("web", "1s", "ROUND_ROBIN")
		w.endpoints("web", w.a)
		p.push()
		mesh.Eventually(t, "the listener is accepted, and waits for its routes", func() error {
			if err := p.proxy.Ready(); err == nil || !strings.Contains(err.Error(), "main") {
				return fmt.Errorf("ready: %v", err)
			}
			return nil
		})
		w.routes("main", to("web"))
		p.push()
		mesh.Eventually(t, "ready", p.proxy.Ready)
		a, err := mesh.NewCaller(t, w.main).Get("/")
		if err != nil || a.Body != "a" {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func TestChangesUnderLoad(t *testing.T) {
	bothWays(t, func(t *testing.T, p *plane) {
		w := p.begin(t)
		load := mesh.StartLoad(t, 4, 2*time.Millisecond, w.main, "/", mesh.OK)
		load.More(20)
		for _, step := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"endpoints", w.changeEndpoints}, {"routes", w.changeRoutes}, {"clusters", w.changeClusters},
			{"listeners", w.changeListeners}, {"secrets", w.changeSecrets}, {"restart", w.restart},
		} {
			t.Run(step.name, step.run)
			load.More(50)
		}
		total := load.Stop()
		t.Log(total)
		if total.Failed > 0 || total.Ended > 0 || total.Opened != 4 {
			t.Errorf("the main listener's callers were disturbed: %v", total)
		}
		if r := p.refusals(); len(r) > 0 {
			t.Errorf("our proxy refused %q", r)
		}
	})
}

func (w *world) changeEndpoints(t *testing.T) {
	for i := range 20 {
		addr, name := w.a, "a"
		if i%2 == 0 {
			addr, name = w.b, "b"
		}
		w.endpoints("web", addr)
		w.push()
		becomes(t, w.call, "/", name)
		w.endpoints("web", w.a, w.b)
		w.push()
	}
	w.endpoints("web", w.a)
	w.push()
	mesh.Eventually(t, "b is left alone", func() error {
		for range 10 {
			if a, err := w.call.Get("/"); err != nil || a.Body != "a" {
				return fmt.Errorf("%+v, %w", a, err)
			}
		}
		return nil
	})
}

func (w *world) changeRoutes(t *testing.T) {
	for i := range 20 {
		text := fmt.Sprintf("change %d", i)
		w.routes("main", fmt.Sprintf(`match: {path: /probe}, direct_response: {status: 200, body: {inline_string: %q}}`, text), to("web"))
		w.push()
		becomes(t, w.call, "/probe", text)
	}
	w.routes("main", to("web"))
	w.push()
	becomes(t, w.call, "/probe", "a")
}

// changeClusters lets one come, changes it, and lets it go again.
func (w *world) changeClusters(t *testing.T) {
	for i, policy := range []string{"RANDOM", "LEAST_REQUEST", "ROUND_ROBIN"} {
		w.cluster("other", "1s", policy)
		w.endpoints("other", w.b)
		w.routes("main", `match: {prefix: /other}, route: {cluster: other}`, to("web"))
		w.push()
		becomes(t, w.call, "/other", "b")
		load := mesh.StartLoad(t, 2, time.Millisecond, w.main, "/other", mesh.OK)
		load.More(10)
		w.cluster("other", fmt.Sprintf("%ds", 2+i), policy)
		w.cluster("web", fmt.Sprintf("%ds", 2+i), policy)
		w.push()
		becomes(t, w.call, "/other", "b")
		w.routes("main", to("web"))
		w.drop(resource.ClusterType, "other")
		w.drop(resource.EndpointType, "other")
		w.push()
		becomes(t, w.call, "/other", "a")
		load.More(10)
		if total := load.Stop(); total.Failed > 0 || total.Ended > 0 {
			t.Errorf("while a cluster came and went: %v", total)
		}
	}
}

func (w *world) changeListeners(t *testing.T) {
	addr := freeporttest.Addr(t)
	c := mesh.NewCaller(t, addr)
	for i := range 5 {
		w.put(fmt.Sprintf(listenerYAML, "second", addr.Port(), "second", "second"))
		w.routes("second", to("web"))
		w.push()
		becomes(t, c, "/", "a")
		text := fmt.Sprintf("changed %d", i)
		w.put(fmt.Sprintf(listenerYAML, "second", addr.Port(), fmt.Sprintf("second_%d", i), "second"))
		w.routes("second", fmt.Sprintf(`match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: %q}}`, text))
		w.push()
		becomes(t, c, "/", text)
		w.drop(resource.ListenerType, "second")
		w.drop(resource.RouteType, "second")
		w.push()
		mesh.Eventually(t, "the second listener's port is closed", func() error {
			conn, err := net.Dial("tcp", addr.String())
			if err == nil {
				_ = conn.Close()
				return fmt.Errorf("%s is open", addr)
			}
			return nil
		})
	}
}

// changeSecrets rotates the certificates of a TLS listener, and those by which the
// proxy and a service know each other, while both are asked.
func (w *world) changeSecrets(t *testing.T) {
	ca := newAuthority(t)
	var seen sawClients
	backend := secureApp(t, ca, &seen)
	addr := freeporttest.Addr(t)
	w.put(fmt.Sprintf(listenerYAML, "secure", addr.Port(), "secure", "secure") + fmt.Sprintf(tlsYAML, "Downstream", "server", "roots") + "      require_client_certificate: true\n")
	w.put(fmt.Sprintf(clusterYAML, "vault", "1s", "ROUND_ROBIN") + "transport_socket:\n" + unindent(fmt.Sprintf(tlsYAML, "Upstream", "client", "roots")) +
		"max_requests_per_connection: 1\n")
	w.endpoints("vault", backend)
	w.routes("secure", to("web"))
	w.routes("main", `match: {prefix: /vault}, route: {cluster: vault}`, to("web"))
	var load *mesh.Load
	for i := range 5 {
		w.put(ca.secret(t, "server", 10+int64(i)))
		w.put(ca.secret(t, "client", 100+int64(i)))
		w.put(ca.roots("roots"))
		w.push()
		mesh.Eventually(t, fmt.Sprintf("certificate %d", i), func() error {
			state, err := ca.ask(t, addr)
			if err == nil && state.PeerCertificates[0].SerialNumber.Int64() != 10+int64(i) {
				err = fmt.Errorf("serial number %v", state.PeerCertificates[0].SerialNumber)
			}
			return err
		})
		if i == 0 {
			becomes(t, w.call, "/vault", "vault")
			load = mesh.StartLoad(t, 2, 2*time.Millisecond, w.main, "/vault", mesh.OK)
		}
		mesh.Eventually(t, "the service sees the new certificate", func() error {
			if got := seen.last(); got != 100+int64(i) {
				return fmt.Errorf("serial number %d", got)
			}
			return nil
		})
		load.More(20)
	}
	total := load.Stop()
	t.Logf("by mutual TLS to the service: %v; it saw certificates %v", total, seen.list())
	if total.Failed > 0 || total.Ended > 0 {
		t.Errorf("while certificates were rotated: %v", total)
	}
	if err := ca.anonymous(addr); err == nil {
		t.Error("a client without a certificate was served")
	}
	w.drop(resource.ListenerType, "secure")
	w.drop(resource.RouteType, "secure")
	w.drop(resource.ClusterType, "vault")
	w.drop(resource.EndpointType, "vault")
	w.drop(resource.SecretType, "server", "client", "roots")
	w.routes("main", to("web"))
	w.push()
	becomes(t, w.call, "/vault", "a")
}

// restart takes the control plane away and brings it back.
func (w *world) restart(t *testing.T) {
	w.stop()
	for range 20 {
		if a, err := w.call.Get("/"); err != nil || a.Status != http.StatusOK {
			t.Fatalf("without control plane: %+v, %v", a, err)
		}
	}
	w.serve()
	w.routes("main", `match: {path: /back}, direct_response: {status: 200, body: {inline_string: back}}`, to("web"))
	w.push()
	becomes(t, w.call, "/back", "back")
}
