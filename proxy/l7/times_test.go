// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

const soon = 30 * time.Millisecond

// stuck is a backend that reads its request and then says nothing until the
// test is over, or its client hangs up.
func stuck(t *testing.T) (http.HandlerFunc, *atomic.Int32, chan struct{}) {
	var seen atomic.Int32
	gone := make(chan struct{}, 64)
	return func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		gone <- struct{}{}
	}, &seen, gone
}

func TestTimeouts(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		h, seen, gone := stuck(t)
		ms, zero := soon, time.Duration(0)
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, h)))
			s.routes = append(s.routes,
				to("/total", "b", func(f *route.Forward) { f.Timeout = soon }),
				to("/try", "b", retry("gateway-error", 1, func(p *route.Retry) { p.PerTry = 5 * soon })), // connecting is quicker
				to("/stream", "b", func(f *route.Forward) { f.Stream = &route.StreamLimit{Max: &ms}; f.Timeout = time.Hour }),
				to("/grpc", "b", func(f *route.Forward) { f.MaxGRPCTimeout = &zero; f.Timeout = time.Hour }))
		})
		c := client(t, two)
		for i, k := range []struct {
			path, log, body string
			status          int
			grpc            string
		}{
			{"/total", "504|UT|response_timeout|1|", "upstream request timeout", 504, ""},
			{"/try", "504|URX,UT|upstream_per_try_timeout|2|", "upstream request timeout", 504, ""},
			{"/stream", "504|-|max_duration_timeout|1|", "downstream duration timeout", 504, ""},
			{"/grpc", "200|UT|response_timeout|1|", "", 200, "4"},
		} {
			req := r.request("POST", k.path, strings.NewReader("x"))
			if k.grpc != "" {
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("Grpc-Timeout", "30m")
			}
			resp, body := do(t, c, req)
			if resp.StatusCode != k.status || body != k.body || resp.Header.Get("grpc-status") != k.grpc {
				t.Errorf("%s: %d %q %v", k.path, resp.StatusCode, body, resp.Header)
			}
			if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, k.log) {
				t.Errorf("%s: log %q", k.path, line)
			}
		}
		for range seen.Load() {
			<-gone // each attempt was cancelled at the upstream, too
		}
	})
}

// The clock of the route runs from the end of the request.
func TestSlowRequestIsNotTheUpstreamsFault(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) { f.Timeout = soon }))
	})
	pr, pw := io.Pipe()
	go func() {
		_, _ = io.WriteString(pw, "a")
		<-time.After(3 * soon)
		_ = pw.Close()
	}()
	if resp, got := do(t, client(t, false), r.request("POST", "/", pr)); resp.StatusCode != 200 || got != "POST 1 a" {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
}

func TestTimeoutAfterTheHead(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) { f.Timeout = 3 * soon }))
	})
	resp, err := client(t, true).Do(r.request("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "begun" {
		t.Errorf("%q, %v", b, err)
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "200|UT|response_timeout|1|0|5|") {
		t.Errorf("log %q", line)
	}
}

func TestInternalCallersSetTimeouts(t *testing.T) {
	h, _, _ := stuck(t)
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b"))
		s.http.Internal = prefixes("10.0.0.0/8")
	})
	resp, _ := r.get("/", "X-Forwarded-For", "10.0.0.1", "x-envoy-upstream-rq-timeout-ms", "20")
	if resp.StatusCode != 504 {
		t.Errorf("status %d, want 504", resp.StatusCode)
	}
}

func TestClientHangsUp(t *testing.T) {
	for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		h, seen, gone := stuck(t)
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, h)))
			s.routes = append(s.routes, to("/", "b", retry("5xx,reset", 3)))
		})
		for i, two := range []bool{false, true} {
			c := client(t, two)
			req := r.request("GET", "/", nil)
			ctx, cancel := contextWithCancel(req)
			before := seen.Load()
			done := make(chan error)
			go func() {
				_, err := c.Do(ctx)
				done <- err
			}()
			eventually(t, "the request reaches the upstream", func() bool { return seen.Load() > before })
			cancel()
			if err := <-done; err == nil {
				t.Error("no error")
			}
			<-gone
			line := r.logged(i + 1)[i]
			if !strings.HasPrefix(line, "0|DC|downstream_remote_disconnect|1|") && !strings.HasPrefix(line, "0|DC|http2.remote_reset|1|") {
				t.Errorf("log %q", line)
			}
		}
	}
}

func TestClientHangsUpWhileSending(t *testing.T) {
	h, seen, gone := stuck(t)
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
	eventually(t, "the request reaches the upstream", func() bool { return seen.Load() == 1 })
	_ = c.Close()
	<-gone
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "0|DC|downstream_remote_disconnect|1|3|") {
		t.Errorf("log %q", line)
	}
}

func TestFaultDelayEndsWithItsClient(t *testing.T) {
	all := route.Fraction{Of: 100, Per: 100}
	r := newRig(t, func(s *setup) {
		s.entries = append(s.entries, filter.Entry{Name: "fault", Filter: stock.NewFault(&stock.Injection{Delay: time.Hour, DelayShare: all, GRPC: -1})})
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the request is held", func() bool { return active(r) == 1 })
	_ = c.Close()
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "0|DI,DC|downstream_remote_disconnect|0|") {
		t.Errorf("log %q", line)
	}
}

// What waits on purpose waits no longer than the exchange may last.
func TestWaitingEndsWithTheClocks(t *testing.T) {
	limit := soon
	all := route.Fraction{Of: 100, Per: 100}
	backing := newRig(t, func(s *setup) {
		h, _ := failing(99)
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b", retry("5xx", 1, func(p *route.Retry) { p.Base, p.Max = time.Hour, time.Hour }),
			func(f *route.Forward) { f.Timeout = soon }))
	})
	held := newRig(t, func(s *setup) {
		s.entries = append(s.entries, filter.Entry{Name: "fault", Filter: stock.NewFault(&stock.Injection{Delay: time.Hour, DelayShare: all, GRPC: -1})})
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) { f.Stream = &route.StreamLimit{Max: &limit} }))
	})
	for r, want := range map[*rig]string{backing: "504|UT|response_timeout|1|", held: "408|DI|max_duration_timeout|0|"} {
		r.get("/")
		if line := r.logged(1)[0]; !strings.HasPrefix(line, want) {
			t.Errorf("log %q, want %s", line, want)
		}
	}
}

func active(r *rig) int64 {
	_, n := r.server.stats.Get("test").Active()
	return n
}

func TestStreamIdle(t *testing.T) {
	h, _, gone := stuck(t)
	r := newRig(t, func(s *setup) {
		s.http.StreamIdleTimeout = 2 * soon
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b"))
	})
	resp, body := r.get("/")
	if resp.StatusCode != 504 || body != "stream timeout" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	<-gone
	c := r.dial()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	resp2, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp2.StatusCode != 408 {
		t.Fatalf("a request that does not arrive: %v %v", resp2, err)
	}
	for i, want := range []string{"504|SI|stream_idle_timeout|1|", "408|SI|stream_idle_timeout|0|"} {
		if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, want) {
			t.Errorf("log %q", line)
		}
	}
}

func TestIdleConnectionsClose(t *testing.T) {
	r := newRig(t, func(s *setup) { s.http.IdleTimeout = soon })
	c := r.dial()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("before a request: %v", err)
	}
	c = r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 404") {
		t.Errorf("after a request: %q %v", b, err)
	}
}

func TestHeadMustArriveInTime(t *testing.T) {
	r := newRig(t, func(s *setup) { s.http.HeadersTimeout = soon })
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTT")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 408 {
		t.Fatalf("%v, %v", resp, err)
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "408|-|request_header_timeout|0|") {
		t.Errorf("log %q", line)
	}
}

// Half a head, dripping or silent, holds a connection no longer than any of the
// times that bound a connection on which nothing is served.
func TestHalfAHeadDoesNotHoldAConnection(t *testing.T) {
	for name, set := range map[string]func(*setup){
		"idle":         func(s *setup) { s.http.IdleTimeout = soon },
		"stream idle":  func(s *setup) { s.http.StreamIdleTimeout = soon },
		"max duration": func(s *setup) { s.http.MaxDuration = soon },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, set)
			c := r.dial()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 408 {
				t.Fatalf("%v, %v: want 408", resp, err)
			}
		})
	}
}

func TestRequestMustArriveInTime(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.http.RequestTimeout = 2 * soon
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	for _, length := range []string{"10", "1000000"} {
		c := r.dial()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+length+"\r\n\r\nabc")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 408 {
			t.Fatalf("%s: %v, %v", length, resp, err)
		}
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	one, two := r.dial(), client(t, true)
	in := bufio.NewReader(one)
	get := func() *http.Response {
		_, _ = io.WriteString(one, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	if get().Close {
		t.Error("the connection closes before it is drained")
	}
	do(t, two, r.request("GET", "/", nil))
	close(r.drain)
	if !get().Close {
		t.Error("no Connection: close while draining")
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays: %v", err)
	}
	eventually(t, "HTTP/2 connections end", func() bool {
		n, _ := r.server.stats.Get("test").Active()
		return n == 0
	})
}

func TestEarlyResponse(t *testing.T) {
	addr := rawBackend(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	})
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, addr))
		s.routes = append(s.routes, to("/", "b"))
	})
	for _, two := range []bool{false, true} {
		pr, pw := io.Pipe()
		go func() { _, _ = io.WriteString(pw, "some of it") }()
		resp, got := do(t, client(t, two), r.request("POST", "/", pr))
		if resp.StatusCode != 413 || got != "big" {
			t.Errorf("%d %q", resp.StatusCode, got)
		}
		_ = pw.Close()
	}
}

// TestSettingsChangeUnderOpenConnections: an exchange keeps the settings it began
// with, the next one on its connection has those of the moment.
func TestSettingsChangeUnderOpenConnections(t *testing.T) {
	enter, leave := make(chan struct{}, 2), make(chan struct{})
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				enter <- struct{}{}
				<-leave
			}
		})))
		s.routes = append(s.routes, to("/", "b"))
	})
	next := *r.http
	next.ServerName = "changed"
	for _, two := range []bool{false, true} {
		r.now.Store(r.http)
		c := client(t, two)
		server := func(path string) string {
			resp, _ := do(t, c, r.request("GET", path, nil))
			return resp.Header.Get("server")
		}
		if got := server("/"); got != "envoy" {
			t.Fatal(got)
		}
		conns := r.conns.Load()
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := server("/wait"); got != "envoy" {
				t.Errorf("HTTP/2 %v: an exchange under way was answered by %q", two, got)
			}
		})
		<-enter
		r.now.Store(&next)
		if two { // the same connection serves others meanwhile
			if got := server("/"); got != "changed" {
				t.Errorf("a stream that begins is answered by %q", got)
			}
		}
		leave <- struct{}{}
		wg.Wait()
		if got := server("/"); got != "changed" {
			t.Errorf("HTTP/2 %v: the next exchange is answered by %q", two, got)
		}
		if n := r.conns.Load(); n != conns {
			t.Errorf("HTTP/2 %v: %d connections, want %d", two, n, conns)
		}
	}
	r.settled()
}
