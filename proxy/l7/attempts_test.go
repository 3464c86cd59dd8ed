// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

func retry(on string, count uint32, change ...func(*route.Retry)) func(*route.Forward) {
	return func(f *route.Forward) {
		o, unknown := route.ParseRetryOn(on)
		if unknown != "" {
			panic(unknown)
		}
		f.Retry = &route.Retry{On: o, Count: count, Base: time.Millisecond, Max: 2 * time.Millisecond}
		for _, c := range change {
			c(f.Retry)
		}
	}
}

// failing answers 503 n times before it echoes.
func failing(n int32) (http.HandlerFunc, *atomic.Int32) {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) <= n {
			http.Error(w, "busy", 503)
			return
		}
		echo(w, r)
	}, &seen
}

func TestRetryOnResponse(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		h, seen := failing(2)
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, h)))
			s.host.AttemptCount = true
			s.host.AttemptCountOut = true
			s.routes = append(s.routes, to("/", "b", retry("5xx", 2)))
		})
		resp, got := do(t, client(t, two), r.request("POST", "/", strings.NewReader("body")))
		if resp.StatusCode != 200 || got != "POST 4 body" || seen.Load() != 3 {
			t.Fatalf("status %d, %q, %d attempts", resp.StatusCode, got, seen.Load())
		}
		if resp.Header.Get("Echo-X-Envoy-Attempt-Count") != "3" || resp.Header.Get("x-envoy-attempt-count") != "3" {
			t.Errorf("attempt counts in %v", resp.Header)
		}
		if line := r.logged(1)[0]; !strings.HasPrefix(line, "200|-|via_upstream|3|") {
			t.Errorf("log %q", line)
		}
	})
}

func TestRetryLimit(t *testing.T) {
	h, seen := failing(99)
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b", retry("5xx", 2)))
	})
	resp, got := r.get("/")
	if resp.StatusCode != 503 || got != "busy\n" || seen.Load() != 3 {
		t.Errorf("status %d, %q, %d attempts", resp.StatusCode, got, seen.Load())
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "503|URX|via_upstream|3|") {
		t.Errorf("log %q", line)
	}
}

func TestRetryOnConnectFailureGoesElsewhere(t *testing.T) {
	good := backend(t, echo)
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, deadAddr(t), deadAddr(t), good))
		s.routes = append(s.routes, to("/", "b", retry("connect-failure", 2, func(p *route.Retry) { p.PreviousHosts, p.MaxReselect = true, 5 })))
	})
	for range 6 {
		if resp, _ := r.get("/"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

// With previous_priorities a retry leaves the nearest endpoints, however well they look.
func TestRetryLeavesThePriority(t *testing.T) {
	near := backend(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", 503) })
	far := backend(t, echo)
	r := newRig(t, func(s *setup) {
		spec := cluster("b", upstream.HTTP1, near, far)
		e := spec.Endpoints.Localities[0].Endpoints
		spec.Endpoints.Localities = []upstream.Locality{{Priority: 0, Endpoints: e[:1]}, {Priority: 1, Endpoints: e[1:]}}
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", "b", retry("5xx", 2, func(p *route.Retry) { p.PreviousPriorities = 2 })))
	})
	for range 3 {
		if resp, _ := r.get("/"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "200|-|via_upstream|3|") {
		t.Errorf("log %q", line)
	}
}

// A streamed body is sent again to the next attempt, as far as it has come, and
// what comes afterwards follows.
func TestRetryReplaysAStreamedBody(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		var seen atomic.Int32
		first := make(chan struct{})
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				if seen.Add(1) == 1 {
					_ = http.NewResponseController(w).EnableFullDuplex() // or it reads all of the request first
					b := make([]byte, 5)
					_, _ = io.ReadFull(r.Body, b)
					w.WriteHeader(503)
					w.(http.Flusher).Flush()
					return
				}
				close(first)
				echo(w, r)
			})))
			s.routes = append(s.routes, to("/", "b", retry("5xx", 1)))
		})
		pr, pw := io.Pipe()
		go func() {
			_, _ = io.WriteString(pw, "first")
			<-first
			_, _ = io.WriteString(pw, strings.Repeat("s", 100_000))
			_ = pw.Close()
		}()
		resp, got := do(t, client(t, two), r.request("POST", "/", pr))
		if want := "POST 100005 first" + strings.Repeat("s", 100_000); resp.StatusCode != 200 || got != want {
			t.Errorf("status %d, %d bytes, want %d", resp.StatusCode, len(got), len(want))
		}
	})
}

func TestTooLargeABodyIsNotRetried(t *testing.T) {
	var seen atomic.Int32
	r := newRig(t, func(s *setup) {
		s.server.BufferLimit = 64 << 10
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(503)
		})))
		s.routes = append(s.routes, to("/", "b", retry("5xx", 3)))
	})
	resp, _ := do(t, client(t, false), r.request("POST", "/", strings.NewReader(strings.Repeat("x", 300_000))))
	if resp.StatusCode != 503 || seen.Load() != 1 {
		t.Errorf("status %d after %d attempts, want 503 after 1", resp.StatusCode, seen.Load())
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "503|-|via_upstream|1|300000|") {
		t.Errorf("log %q", line)
	}
}

func TestRetryBudget(t *testing.T) {
	h, seen := failing(99)
	r := newRig(t, func(s *setup) {
		spec := cluster("b", upstream.HTTP1, backend(t, h))
		spec.Breakers.MaxRetries = 0
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", "b", retry("5xx", 5)))
	})
	if resp, _ := r.get("/"); resp.StatusCode != 503 || seen.Load() != 1 {
		t.Errorf("status %d after %d attempts, want one", resp.StatusCode, seen.Load())
	}
}

// A response that came early is passed on, and the rest of the request with it,
// if there is no budget for the retry that the request would have allowed.
func TestUploadGoesOnWithoutRetryBudget(t *testing.T) {
	const total = 300_000
	r := newRig(t, func(s *setup) {
		s.server.BufferLimit = 64 << 10
		spec := cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(503)
			w.(http.Flusher).Flush()
			n, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n, err)
		}))
		spec.Breakers.MaxRetries = 0
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", "b", retry("5xx", 1)))
	})
	c := r.dial()
	_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", total)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.WriteString(c, strings.Repeat("x", total-1)); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if want := fmt.Sprint(total, nil); err != nil || resp.StatusCode != 503 || string(body) != want {
		t.Errorf("%d %q, %v; want 503 %q", resp.StatusCode, body, err, want)
	}
}

func TestResets(t *testing.T) {
	cut := func(after string) netip.AddrPort {
		return rawBackend(t, func(c net.Conn, in *bufio.Reader) {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, after)
		})
	}
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs,
			cluster("silent", upstream.HTTP1, cut("")),
			cluster("half", upstream.HTTP1, cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")),
			cluster("bad", upstream.HTTP1, cut("what?\r\n\r\n")),
			cluster("reset2", upstream.HTTP2, backend(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })))
		s.routes = append(s.routes, to("/silent", "silent"), to("/half", "half"), to("/bad", "bad"), to("/reset2", "reset2"))
	})
	for i, c := range []struct {
		path, log, body string
		status          int
	}{
		{"/silent", "503|UC|upstream_reset_before_response_started{connection_termination}|1|", "upstream connect error or disconnect/reset before headers. reset reason: connection termination", 503},
		{"/bad", "502|UPE|upstream_reset_before_response_started{protocol_error}|1|", "upstream connect error or disconnect/reset before headers. reset reason: protocol error", 502},
		{"/reset2", "503|UR|upstream_reset_before_response_started{remote_reset}|1|", "upstream connect error or disconnect/reset before headers. reset reason: remote reset", 503},
	} {
		resp, body := r.get(c.path)
		if resp.StatusCode != c.status || body != c.body {
			t.Errorf("%s: %d %q", c.path, resp.StatusCode, body)
		}
		if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, c.log) {
			t.Errorf("%s: log %q", c.path, line)
		}
	}
	resp, err := client(t, false).Do(r.request("GET", "/half", nil))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "abc" {
		t.Errorf("half a response: %q, %v", b, err)
	}
	_ = resp.Body.Close()
	if line := r.logged(4)[3]; !strings.HasPrefix(line, "200|UC|upstream_reset_after_response_started{connection_termination}|1|0|3|") {
		t.Errorf("half: log %q", line)
	}
}

// A kept connection that the server closed just now costs a GET nothing. A POST
// may not be sent twice.
func TestStaleConnection(t *testing.T) {
	var posts atomic.Int32
	addr := rawBackend(t, func(c net.Conn, in *bufio.Reader) {
		// Each connection serves one exchange and dies of the next.
		for n := 0; ; n++ {
			req, err := http.ReadRequest(in)
			if err == nil && req.Method == "POST" {
				posts.Add(1)
			}
			if err != nil || n > 0 {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, addr))
		s.routes = append(s.routes, to("/", "b"))
	})
	for i := range 8 {
		if resp, body := r.get("/"); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("%d: %d %q", i, resp.StatusCode, body)
		}
	}
	do(t, client(t, false), r.request("POST", "/", strings.NewReader("x")))
	if n := posts.Load(); n != 1 {
		t.Errorf("the POST was sent %d times", n)
	}
}

func TestCircuitBreaker(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, func(s *setup) {
		spec := cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) { <-hold }))
		spec.Breakers.MaxRequests = 1
		s.specs = append(s.specs, spec)
		s.routes = append(s.routes, to("/", "b", retry("5xx", 2)))
	})
	done := make(chan int)
	go func() {
		resp, _ := r.get("/")
		done <- resp.StatusCode
	}()
	stats := r.set.Ref("b").Stats()
	eventually(t, "the first request is under way", func() bool { return stats.RequestActive.Load() == 1 })
	resp, body := r.get("/")
	if resp.StatusCode != 503 || resp.Header.Get("x-envoy-overloaded") != "true" || !strings.HasSuffix(body, "reset reason: overflow") {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, body)
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "503|UO|upstream_reset_before_response_started{overflow}|") {
		t.Errorf("log %q", line)
	}
	close(hold)
	if status := <-done; status != 200 {
		t.Errorf("the first request: %d", status)
	}
}

func TestMirror(t *testing.T) {
	got := make(chan string, 4)
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)),
			cluster("shadow", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got <- fmt.Sprintf("%s %s %s %s %s", r.Method, r.Host, r.URL.Path, r.Header.Get("X-One"), b)
			})))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) {
			f.Mirrors = []route.Mirror{{Cluster: "shadow", NoHostSuffix: true}, {Cluster: "shadow"}, {Cluster: "shadow", Fraction: &route.Fraction{Of: 0, Per: 100}}, {Cluster: "none"}}
		}))
	})
	resp, _ := do(t, client(t, false), r.request("POST", "/p", strings.NewReader("body"), "Host", "shop.example:80", "X-One", "1"))
	if resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode)
	}
	want := map[string]bool{"POST shop.example:80 /p 1 body": true, "POST shop.example-shadow:80 /p 1 body": true}
	for range 2 {
		if s := <-got; !want[s] {
			t.Errorf("mirrored %q", s)
		}
	}
	eventually(t, "mirrors end", func() bool { return r.server.mirrors.Load() == 0 })
}

func TestWeightedAndRewrite(t *testing.T) {
	r := newRig(t, func(s *setup) {
		a := backend(t, echo)
		s.specs = append(s.specs, cluster("a", upstream.HTTP1, a), cluster("b", upstream.HTTP1, a))
		f := to("/in", "a", func(f *route.Forward) {
			f.Clusters = []route.Weighted{{Cluster: "a", Weight: 50, RequestHeaders: route.HeaderOps{Add: []route.HeaderOp{{Name: "x-side", Value: "a"}}}},
				{Cluster: "b", Weight: 50, RequestHeaders: route.HeaderOps{Add: []route.HeaderOp{{Name: "x-side", Value: "b"}}}}}
			f.Rewrite = route.Rewrite{Prefix: "/out", HostLiteral: "new.example"}
		})
		f.RequestHeaders = route.HeaderOps{Remove: []string{"x-gone"}, Add: []route.HeaderOp{{Name: "x-from", Value: "%PROTOCOL% %REQ(x-one)%"}}}
		s.routes = append(s.routes, f)
	})
	sides := map[string]int{}
	for range 40 {
		resp, _ := r.get("/in/x?q", "X-One", "1", "X-Gone", "1")
		h := resp.Header
		sides[h.Get("Echo-X-Side")]++
		if h.Get("x-path") != "/out/x?q" || h.Get("x-host") != "new.example" || h.Get("Echo-X-From") != "HTTP/1.1 1" || h.Get("Echo-X-Gone") != "" ||
			h.Get("Echo-X-Envoy-Original-Path") != "/in/x?q" {
			t.Fatalf("upstream saw %v", h)
		}
	}
	if sides["a"] == 0 || sides["b"] == 0 || len(sides) != 2 {
		t.Errorf("clusters were chosen %v", sides)
	}
}

// A host that takes no connections is ejected as one that answers with errors is.
func TestWhoRefusesConnectionsIsEjected(t *testing.T) {
	for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		r := newRig(t, func(s *setup) {
			spec := cluster("b", protocol, deadAddr(t), backend(t, echo))
			spec.Outlier = &upstream.Outlier{
				ConsecutiveGateway: 3, EnforcingConsecutiveGateway: 100, MaxEjectionPercent: 50, Interval: time.Minute, BaseEjection: time.Minute,
			}
			s.specs = append(s.specs, spec)
			s.routes = append(s.routes, to("/", "b"))
		})
		failed := 0
		for range 40 {
			if resp, _ := r.get("/"); resp.StatusCode != 200 {
				failed++
			}
		}
		if failed != 3 {
			t.Errorf("%v: %d requests of 40 failed, want those 3 after which the host is ejected", protocol, failed)
		}
	}
}
