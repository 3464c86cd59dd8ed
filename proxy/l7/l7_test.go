// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// pairs runs a test for each client and upstream version.
func pairs(t *testing.T, f func(t *testing.T, two bool, protocol upstream.Protocol)) {
	for _, two := range []bool{false, true} {
		for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
			t.Run(fmt.Sprintf("client2=%v,upstream2=%v", two, protocol == upstream.HTTP2), func(t *testing.T) { f(t, two, protocol) })
		}
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("x-proto", r.Proto)
	w.Header().Set("x-host", r.Host)
	w.Header().Set("x-path", r.URL.RequestURI())
	for k, v := range r.Header {
		w.Header()["Echo-"+k] = v
	}
	fmt.Fprintf(w, "%s %d ", r.Method, len(b))
	_, _ = w.Write(b)
}

func TestForward(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, echo)))
			s.routes = append(s.routes, to("/", "b"))
		})
		c := client(t, two)
		for i, body := range []string{"", "hello", strings.Repeat("x", 100_000), strings.Repeat("y", 3_000_000)} {
			method := "POST"
			var in io.Reader = strings.NewReader(body)
			if body == "" {
				method, in = "GET", nil
			}
			resp, got := do(t, c, r.request(method, "/a?b=c", in, "X-One", "1"))
			want := fmt.Sprintf("%s %d %s", method, len(body), body)
			if resp.StatusCode != 200 || got != want {
				t.Fatalf("%d: status %d, %d bytes, want %d", i, resp.StatusCode, len(got), len(want))
			}
			wantProto := map[upstream.Protocol]string{upstream.HTTP1: "HTTP/1.1", upstream.HTTP2: "HTTP/2.0"}[protocol]
			if resp.Header.Get("x-proto") != wantProto || resp.Header.Get("x-path") != "/a?b=c" || resp.Header.Get("Echo-X-One") != "1" {
				t.Errorf("upstream saw %v", resp.Header)
			}
			if resp.Header.Get("Server") != "envoy" || resp.Header.Get("Date") == "" || resp.Header.Get("x-envoy-upstream-service-time") == "" {
				t.Errorf("response has %v", resp.Header)
			}
			if id := resp.Header.Get("Echo-X-Request-Id"); len(id) != 36 {
				t.Errorf("x-request-id = %q", id)
			}
		}
		proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[two]
		// The next request of a client may be over before the last one is logged.
		if want := "200|-|via_upstream|1|5|12|/a?b=c|to b|b|" + proto; !slices.Contains(r.logged(4), want) {
			t.Errorf("no log line %q in %q", want, r.logged(4))
		}
	})
}

func TestChunkedAndTrailers(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				w.Header().Set("Trailer", "X-Sum")
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				_, _ = io.WriteString(w, r.Trailer.Get("X-In")+string(b))
				w.Header().Set("X-Sum", "42")
			})))
			s.routes = append(s.routes, to("/", "b"))
		})
		for _, body := range []string{"small", strings.Repeat("z", 200_000)} {
			pr, pw := io.Pipe()
			req := r.request("POST", "/", pr)
			req.Trailer = http.Header{"X-In": nil}
			go func() {
				_, _ = io.WriteString(pw, body)
				req.Trailer.Set("X-In", "in-")
				_ = pw.Close()
			}()
			resp, got := do(t, client(t, two), req)
			if got != "in-"+body || resp.Trailer.Get("X-Sum") != "42" {
				t.Errorf("got %d bytes, trailer %v", len(got), resp.Trailer)
			}
		}
	})
}

// Both sides talk at once: what is said must arrive before anybody has finished.
func TestBothWaysAtOnce(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP2, backend(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = io.WriteString(w, "echo "+line)
				w.(http.Flusher).Flush()
			}
		})))
		s.routes = append(s.routes, to("/", "b"))
	})
	pr, pw := io.Pipe()
	resp, err := client(t, true).Do(r.request("POST", "/", pr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewReader(resp.Body)
	for i := range 5 {
		fmt.Fprintf(pw, "%d\n", i)
		if line, err := out.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	_ = pw.Close()
	if _, err := out.ReadString('\n'); err != io.EOF {
		t.Errorf("the stream does not end: %v", err)
	}
}

func TestPipelined(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(c)
	for i, want := range []string{"GET 0 ", "POST 3 abc", "GET 0 "} {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != want || resp.Header.Get("x-path") != fmt.Sprintf("/%d", i+1) {
			t.Errorf("%d: %q, %v", i, b, err)
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

func TestLocalAnswers(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("empty", upstream.HTTP1), cluster("dead", upstream.HTTP1, deadAddr(t)))
		s.server.FaultHeader = true
		s.routes = append(s.routes,
			route.Route{Name: "direct", Match: route.Match{Path: route.PathMatch{Value: "/direct"}}, Direct: &route.Direct{Status: 418, Body: "teapot"},
				ResponseHeaders: route.HeaderOps{Add: []route.HeaderOp{{Name: "x-added", Value: "1"}}}},
			route.Route{Name: "redirect", Match: route.Match{Path: route.PathMatch{Value: "/old"}}, Redirect: &route.Redirect{Status: 308, Host: "new.example", HasPrefix: true, Prefix: "/new"}},
			to("/empty", "empty"), to("/dead", "dead"), to("/unknown", "unknown"),
			to("/unknown500", "unknown", func(f *route.Forward) { f.NotFoundStatus = 500 }))
		s.routes[4].Match.Path = route.PathMatch{Kind: route.PathExact, Value: "/unknown"}
	})
	for i, c := range []struct {
		path, body, log string
		status          int
		header          [2]string
	}{
		{"/direct", "teapot", "418|-|direct_response|0|0|6|/direct|direct|-|HTTP/1.1", 418, [2]string{"x-added", "1"}},
		{"/old/x?y", "", "308|-|direct_response|0|0|0|/old/x?y|redirect|-|HTTP/1.1", 308, [2]string{"Location", "http://new.example/new/x?y"}},
		{"/empty", "no healthy upstream", "503|UH|no_healthy_upstream|1|0|19|/empty|to empty|empty|HTTP/1.1", 503, [2]string{"Content-Type", "text/plain"}},
		{"/unknown", "", "503|NC|cluster_not_found|0|0|0|/unknown|to unknown|unknown|HTTP/1.1", 503, [2]string{}},
		{"/unknown500", "", "500|NC|cluster_not_found|0|0|0|/unknown500|to unknown|unknown|HTTP/1.1", 500, [2]string{}},
		{"/none", "", "404|NR|route_not_found|0|0|0|/none|-|-|HTTP/1.1", 404, [2]string{"x-meltemi-fault", "client: no route (route table test); the virtual host was found, but none of its routes matches the request"}},
	} {
		resp, body := r.get(c.path)
		if resp.StatusCode != c.status || body != c.body {
			t.Errorf("%s: %d %q", c.path, resp.StatusCode, body)
		}
		if c.header[0] != "" && resp.Header.Get(c.header[0]) != c.header[1] {
			t.Errorf("%s: %s is %q, want %q", c.path, c.header[0], resp.Header.Get(c.header[0]), c.header[1])
		}
		if line := r.logged(i + 1)[i]; line != c.log {
			t.Errorf("%s: log %q, want %q", c.path, line, c.log)
		}
	}
	resp, body := r.get("/dead")
	if resp.StatusCode != 503 || body != "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure" {
		t.Errorf("dead: %d %q", resp.StatusCode, body)
	}
	if line := r.logged(7)[6]; !strings.HasPrefix(line, "503|UF|upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}|1|") {
		t.Errorf("dead: log %q", line)
	}
	resp, body = r.get("/empty", "Content-Type", "application/grpc")
	if resp.StatusCode != 200 || resp.Header.Get("grpc-status") != "14" || resp.Header.Get("grpc-message") != "no healthy upstream" || body != "" {
		t.Errorf("gRPC: %d %v %q", resp.StatusCode, resp.Header, body)
	}
}
