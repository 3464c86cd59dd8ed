// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/test/mesh"
)

// echo sends each message back, and hangs up when it is told to.
func echo(ws *websocket.Conn) {
	for {
		var b []byte
		if err := websocket.Message.Receive(ws, &b); err != nil {
			return
		}
		if string(b) == "hang up" {
			return
		}
		if err := websocket.Message.Send(ws, b); err != nil {
			return
		}
	}
}

func startEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/echo", websocket.Handler(echo))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no socket") })
	srv := httptest.NewServer(mux)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return netip.MustParseAddrPort(srv.Listener.Addr().String())
}

// dialSocket opens a WebSocket at addr, for a service called host.
func dialSocket(addr netip.AddrPort, host string) (*websocket.Conn, error) {
	cfg, err := websocket.NewConfig("ws://"+host+"/echo", "http://"+host)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	ws, err := websocket.NewClient(cfg, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return ws, nil
}

func TestWebSocket(t *testing.T) {
	w := newWay(t, "HTTP", startEcho(t))
	gate := freeporttest.Addr(t)
	w.Write("edge.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: %d, name: http, protocol: HTTP}, bind: 127.0.0.1, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: app.mesh}}]}]
`, gate.Port()))
	w.Gateway(map[string]string{"istio": "ingressgateway"})
	for name, way := range map[string]struct {
		addr netip.AddrPort
		host string
	}{"sidecars": {w.Local, w.Local.String()}, "gateway": {gate, "shop.example.com"}} {
		t.Run(name, func(t *testing.T) {
			mesh.Eventually(t, "the first socket", func() error {
				ws, err := dialSocket(way.addr, way.host)
				if err == nil {
					_ = ws.Close()
				}
				return err
			})
			t.Run("sizes", func(t *testing.T) { sizes(t, way.addr, way.host) })
			t.Run("many", func(t *testing.T) { many(t, way.addr, way.host) })
			t.Run("ends", func(t *testing.T) { ends(t, way.addr, way.host) })
		})
	}
	w.secured(t, "Upgrade", "websocket", "quick brown")
}

func sizes(t *testing.T, addr netip.AddrPort, host string) {
	ws, err := dialSocket(addr, host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		text := strings.Repeat("the quick brown fox ", n/20+1)[:n]
		if err := websocket.Message.Send(ws, text); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := websocket.Message.Receive(ws, &back); err != nil || back != text {
			t.Fatalf("%d bytes: %d came back, %v", n, len(back), err)
		}
	}
}

func many(t *testing.T, addr netip.AddrPort, host string) {
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ws, err := dialSocket(addr, host)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = ws.Close() }()
			for j := range 50 {
				text, back := fmt.Sprintf("%d %d", i, j), ""
				if err := websocket.Message.Send(ws, text); err != nil {
					t.Error(err)
					return
				}
				if err := websocket.Message.Receive(ws, &back); err != nil || back != text {
					t.Errorf("sent %q, got %q, %v", text, back, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// ends: whichever side hangs up, the other one sees it.
func ends(t *testing.T, addr netip.AddrPort, host string) {
	ws, err := dialSocket(addr, host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	if err := websocket.Message.Send(ws, "hang up"); err != nil {
		t.Fatal(err)
	}
	var back string
	if err := websocket.Message.Receive(ws, &back); !errors.Is(err, io.EOF) {
		t.Errorf("the service hung up, and the caller saw %q, %v", back, err)
	}
}

// TestASocketOutlivesChanges keeps a socket open while its service's routes change.
func TestASocketOutlivesChanges(t *testing.T) {
	w := newWay(t, "HTTP", startEcho(t))
	var ws *websocket.Conn
	mesh.Eventually(t, "the socket", func() (err error) {
		ws, err = dialSocket(w.Local, w.Local.String())
		return err
	})
	defer func() { _ = ws.Close() }()
	c := mesh.NewCaller(t, w.Local)
	for i := range 20 {
		w.Write("route.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app}
spec:
  hosts: [app.mesh]
  http:
  - match: [{uri: {exact: /probe}}]
    directResponse: {status: %d}
  - timeout: %ds
    route: [{destination: {host: app.mesh}}]
`, 250+i, 1+i))
		mesh.Eventually(t, "a change", func() error {
			a, err := c.Get("/probe")
			if err == nil && a.Status != 250+i {
				err = fmt.Errorf("%d", a.Status)
			}
			return err
		})
		text, back := fmt.Sprint(i), ""
		if err := websocket.Message.Send(ws, text); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(ws, &back); err != nil || back != text {
			t.Fatalf("after %d changes: %q, %v", i, back, err)
		}
	}
}
