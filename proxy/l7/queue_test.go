// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// newQueue makes a rig whose only connection to an endpoint is taken: what else is
// asked for waits for it.
func newQueue(t *testing.T, protocol upstream.Protocol) (*rig, *upstream.Stats) {
	t.Helper()
	h, seen, _ := stuck(t)
	r := newRig(t, func(s *setup) {
		spec := cluster("b", protocol, backend(t, h))
		spec.Breakers.MaxConnections, spec.MaxConcurrentStreams = 1, 1
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/total", "b", func(f *route.Forward) { f.Timeout = soon }),
			to("/try", "b", retry("connect-failure", 1, func(p *route.Retry) { p.PerTry = soon })), to("/", "b"))
	})
	holder := r.dial()
	_, _ = io.WriteString(holder, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the connection is taken", func() bool { return seen.Load() == 1 })
	return r, r.set.Ref("b").Load().Stats()
}

// pending waits until n requests are in the queue.
func pending(t *testing.T, stats *upstream.Stats, n int64) {
	t.Helper()
	eventually(t, "the queue is as long as it should be", func() bool { return stats.RequestPending.Load() == n })
}

func TestQueueIsLeftByWhoHangsUp(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r, stats := newQueue(t, protocol)
		req, cancel := contextWithCancel(r.request("GET", "/", nil))
		c := client(t, two)
		done := make(chan error)
		go func() {
			_, err := c.Do(req)
			done <- err
		}()
		pending(t, stats, 1)
		cancel()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		want := "0|DC|downstream_remote_disconnect|1|"
		if two {
			want = "0|DC|http2.remote_reset|1|"
		}
		if line := r.logged(1)[0]; !strings.HasPrefix(line, want) {
			t.Errorf("log %q, want %q", line, want)
		}
		pending(t, stats, 0)
	})
}

func TestQueueIsLeftInTime(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r, stats := newQueue(t, protocol)
		for i, k := range []struct {
			path, log string
			status    int
		}{
			{"/total", "504|UT|response_timeout|1|", 504},
			{"/try", "503|URX,UF|upstream_reset_before_response_started{connection_timeout}|2|", 503},
		} {
			resp, _ := do(t, client(t, two), r.request("GET", k.path, nil))
			if resp.StatusCode != k.status {
				t.Errorf("%s: %d", k.path, resp.StatusCode)
			}
			if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, k.log) {
				t.Errorf("%s: log %q", k.path, line)
			}
		}
		pending(t, stats, 0)
	})
}

// newVoid makes a rig whose only endpoint accepts connections and says nothing: its
// TLS is waited for as long as connecting may take, which is longer than a test.
func newVoid(t *testing.T, protocol upstream.Protocol) (*rig, *upstream.Stats) {
	t.Helper()
	addr := rawBackend(t, func(c net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
	r := newRig(t, func(s *setup) {
		spec := cluster("b", protocol, addr)
		spec.ConnectTimeout = time.Hour
		spec.Default.TLS = &tls.Config{InsecureSkipVerify: true}
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/total", "b", func(f *route.Forward) { f.Timeout = soon }),
			to("/try", "b", retry("connect-failure", 1, func(p *route.Retry) { p.PerTry = soon })), to("/", "b"))
	})
	return r, r.set.Ref("b").Load().Stats()
}

func TestConnectingIsLeftInTime(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r, stats := newVoid(t, protocol)
		for i, k := range []struct {
			path, log string
			status    int
		}{
			{"/total", "504|UT|response_timeout|1|", 504},
			{"/try", "503|URX,UF|upstream_reset_before_response_started{connection_timeout}|2|", 503},
		} {
			resp, _ := do(t, client(t, two), r.request("GET", k.path, nil))
			if resp.StatusCode != k.status {
				t.Errorf("%s: %d", k.path, resp.StatusCode)
			}
			if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, k.log) {
				t.Errorf("%s: log %q", k.path, line)
			}
		}
		pending(t, stats, 0)
	})
}

func TestConnectingIsLeftByWhoHangsUp(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r, stats := newVoid(t, protocol)
		req, cancel := contextWithCancel(r.request("GET", "/", nil))
		c := client(t, two)
		done := make(chan error)
		go func() {
			_, err := c.Do(req)
			done <- err
		}()
		pending(t, stats, 1)
		cancel()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		if line := r.logged(1)[0]; !strings.HasPrefix(line, "0|DC|") {
			t.Errorf("log %q", line)
		}
		pending(t, stats, 0)
	})
}

// A connection that we close ourselves, at the end of draining, takes along what
// waits on it.
func TestQueueIsLeftWhenItsConnectionIsClosed(t *testing.T) {
	r, stats := newQueue(t, upstream.HTTP1)
	for i, two := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		var p http.Protocols
		p.SetHTTP1(!two)
		p.SetUnencryptedHTTP2(two)
		tr := &http.Transport{Protocols: &p}
		asked := make(chan error)
		go func() {
			_, err := (&http.Client{Transport: tr}).Get("http://" + addr)
			asked <- err
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		served := make(chan struct{})
		go func() {
			r.serve(conn)
			close(served)
		}()
		pending(t, stats, 1)
		_ = conn.Close()
		select {
		case <-served:
		case <-time.After(patience):
			t.Fatalf("HTTP/2 %v: the connection is closed and its request still waits", two)
		}
		<-asked
		if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, "0|DC|") {
			t.Errorf("log %q", line)
		}
		pending(t, stats, 0)
	}
}

// Under a limit of one connection, one of HTTP/2 that idles makes room for HTTP/1,
// and the other way around, for one that asks and for one that waits.
func TestIdleConnectionMakesRoom(t *testing.T) {
	r := newRig(t, func(s *setup) {
		spec := cluster("b", upstream.SameAsClient, backend(t, echo))
		spec.Breakers.MaxConnections = 1
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", "b"))
	})
	for range 3 {
		for _, two := range []bool{false, true} {
			if resp, _ := do(t, client(t, two), r.request("GET", "/", nil)); resp.StatusCode != 200 {
				t.Errorf("HTTP/2 %v: %d", two, resp.StatusCode)
			}
		}
	}
	var clients []*http.Client
	for i := range 8 {
		clients = append(clients, client(t, i%2 == 0))
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for range 10 {
				resp, err := c.Do(r.request("GET", "/", nil))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	pending(t, r.set.Ref("b").Load().Stats(), 0)
}
