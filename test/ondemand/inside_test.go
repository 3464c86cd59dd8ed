// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/test/mesh"
)

func TestInsideTenOfTwoThousand(t *testing.T) {
	s := begin(t)
	s.start(nil)
	before := s.dump()
	var first, second []time.Duration
	for range 2 {
		for i := range used {
			begun := time.Now()
			s.expect("a call", "http://"+vip(i*7)+"/", 200, "app for "+vip(i*7))
			if took := time.Since(begun); len(first) < used {
				first = append(first, took)
			} else {
				second = append(second, took)
			}
		}
	}
	after := s.dump()
	for _, kind := range []string{"dynamic_active_clusters", "dynamic_route_configs", "dynamic_endpoint_configs"} {
		if n := after[kind] - before[kind]; n != used {
			t.Errorf("%s: %d were added by %d destinations", kind, n, used)
		}
	}
	if n := after["dynamic_listeners"] - before["dynamic_listeners"]; n != 0 {
		t.Errorf("%d listeners were added", n)
	}
	t.Logf("before: %v", before)
	t.Logf("after %d of %d services: %v", used, services, after)
	slices.Sort(first)
	slices.Sort(second)
	t.Logf("first request, with connection and answer: median %v, worst %v; second: median %v, worst %v",
		first[used/2], first[used-1], second[used/2], second[used-1])
}

func TestInsideUnknownAndByName(t *testing.T) {
	s := begin(t)
	out := netns.Named(os.Getenv(inside))
	l, err := out.Listen(t.Context(), netip.MustParseAddrPort(outsideAddr+":80"), netio.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.serveOn(l, "outside")
	s.start(nil)
	s.expect("an address outside", "http://"+outsideAddr+"/", 200, "outside for "+outsideAddr)
	s.expect("a host of the mesh at an address outside", "http://"+outsideAddr+"/", 200, "app for "+host(77), host(77))
	s.expect("a host outside", "http://"+outsideAddr+"/", 200, "outside for example.com", "example.com")
}

// A route that leads to a cluster nobody has used takes over without a request lost.
func TestInsideRoutesChangeUnderLoad(t *testing.T) {
	s := begin(t)
	const shop = "shop.big.example"
	text := fmt.Sprintf(entry, "shop", shop, "10.97.0.1", 80, "http", "HTTP", endpoint(s.app, "http", "v1")+endpoint(s.backend["v2"], "http", "v2"))
	s.Write("shop.yaml", text)
	s.start(nil)
	mesh.Eventually(t, "the shop", func() error { return s.wants("http://10.97.0.1/", 200, "") })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls, failures atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				if err := s.wants("http://10.97.0.1/", 200, ""); err != nil {
					failures.Add(1)
					t.Errorf("under load: %v", err)
				}
			}
		})
	}
	for i := range 6 {
		version := []string{"v1", "v2"}[i%2]
		answer := map[string]string{"v1": "app", "v2": "v2"}[version]
		s.Write("rules.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec: {host: %s, subsets: [{name: at%d, labels: {version: %s}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [%[1]s]
  http: [{route: [{destination: {host: %[1]s, subset: at%d}}]}]
`, shop, i, version, i))
		mesh.Eventually(t, "the route follows", func() error { return s.wants("http://10.97.0.1/", 200, answer) })
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests through 6 changes of route, %d failed", calls.Load(), failures.Load())
}

// speak serves a protocol in which the server speaks first.
func (s *site) speak(name string) netip.AddrPort {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, name)
			_ = c.Close()
		}
	})
	s.t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// hear connects and returns what the server says.
func hear(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// Bytes that are not HTTP follow their routes, too, and a server may speak first.
func TestInsideTCP(t *testing.T) {
	s := begin(t)
	one, two := s.speak("one"), s.speak("two")
	const db = "db.big.example"
	s.Write("db.yaml", fmt.Sprintf(entry, "db", db, "10.97.0.2", 5432, "tcp-db", "TCP", endpoint(one, "tcp-db", "v1")+endpoint(two, "tcp-db", "v2"))+
		fmt.Sprintf(entry, "odd", "odd.big.example", "10.97.0.3", 9000, "odd", "", endpoint(one, "odd", "v1")))
	s.Write("split.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: %s, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [%[1]s]
  tcp: [{route: [{destination: {host: %[1]s, subset: v2}}]}]
`, db))
	s.start(nil)
	mesh.Eventually(t, "the database", func() error {
		said, err := hear("10.97.0.2:5432")
		if err == nil && said != "two" {
			err = fmt.Errorf("%q", said)
		}
		return err
	})
	heard := map[string]int{}
	var took []time.Duration
	for range 20 {
		begun := time.Now()
		said, err := hear("10.97.0.2:5432")
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
		heard[said]++
	}
	if heard["two"] != 20 {
		t.Errorf("all go to subset v2, and came to %v", heard)
	}
	slices.Sort(took)
	t.Logf("a server that speaks first is heard after %v (median)", took[10])
	said, err := hear("10.97.0.3:9000") // a port without a protocol: its first bytes are waited for a moment
	if err != nil || said != "one" {
		t.Errorf("%q, %v", said, err)
	}
}

// While the control plane is away what was used goes on, what is outside goes
// where it would, and what is the mesh's fails with a word about it.
func TestInsideOutage(t *testing.T) {
	s := begin(t)
	out := netns.Named(os.Getenv(inside))
	l, err := out.Listen(t.Context(), netip.MustParseAddrPort(outsideAddr+":80"), netio.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.serveOn(l, "outside")
	s.start(nil)
	s.expect("before", "http://"+vip(1)+"/", 200, "app")
	s.StopControl()
	s.expect("away, used before", "http://"+vip(1)+"/", 200, "app")
	s.expect("away, in the mesh", "http://"+vip(2)+"/", 503, "")
	if _, err := hear(vip(3) + ":80"); err == nil {
		t.Error("bytes went somewhere")
	}
	s.expect("away, outside", "http://"+outsideAddr+"/", 200, "outside")
	s.StartControl()
	mesh.Eventually(t, "it is back", func() error { return s.wants("http://"+vip(2)+"/", 200, "app") })
}

// A sidecar that starts while the control plane is away serves what it used before.
func TestInsideRestartInOutage(t *testing.T) {
	s := begin(t)
	// Certificates are not kept: without the control plane only plaintext is possible.
	s.Write("plain.yaml", `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain}
spec: {host: "*.big.example", trafficPolicy: {tls: {mode: DISABLE}}}
`)
	out := netns.Named(os.Getenv(inside))
	l, err := out.Listen(t.Context(), netip.MustParseAddrPort(outsideAddr+":80"), netio.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.serveOn(l, "outside")
	db := s.speak("db")
	s.Write("db.yaml", fmt.Sprintf(entry, "db", "db.big.example", "10.97.0.2", 5432, "tcp-db", "TCP", endpoint(db, "tcp-db", "v1")))
	state := t.TempDir()
	keep := func(c *proxy.Config) { c.State = state }
	stop := s.start(keep)
	for i := range used {
		mesh.Eventually(t, "a call", func() error { return s.wants("http://"+vip(i)+"/", 200, "app") })
	}
	mesh.Eventually(t, "the database", func() error { _, err := hear("10.97.0.2:5432"); return err })
	stop()
	s.StopControl()

	s.start(keep)
	for i := range used {
		mesh.Eventually(t, "what was used", func() error { return s.wants("http://"+vip(i)+"/", 200, "app") })
	}
	mesh.Eventually(t, "the database", func() error {
		said, err := hear("10.97.0.2:5432")
		if err == nil && said != "db" {
			err = fmt.Errorf("%q", said)
		}
		return err
	})
	s.expect("in the mesh, not used before", "http://"+vip(used)+"/", 503, "")
	s.expect("outside", "http://"+outsideAddr+"/", 200, "outside")
	s.StartControl()
	mesh.Eventually(t, "the control plane is back", func() error { return s.wants("http://"+vip(used)+"/", 200, "app") })
	s.expect("what was used", "http://"+vip(0)+"/", 200, "app")
}

// A sidecar that is sent everything, beside one that asks: what each holds.
func TestInsideCompared(t *testing.T) {
	s := begin(t)
	s.start(func(c *proxy.Config) { c.Node.OnDemand = false })
	var all map[string]int
	mesh.Eventually(t, "everything", func() error {
		if all = s.dump(); all["dynamic_active_clusters"] < services || all["dynamic_endpoint_configs"] < services {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	t.Logf("sent everything: %v", all)
}
