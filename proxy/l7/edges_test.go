// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func contextWithCancel(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	return r.WithContext(ctx), cancel
}

// chat is a backend that agrees to an upgrade and then answers each line.
func chat(t *testing.T) netip.AddrPort {
	return rawBackend(t, func(c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") != "websocket" && req.Method != "CONNECT" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
			return
		}
		if req.Method == "CONNECT" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		} else {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Accept: x\r\n\r\n")
		}
		lineEcho(c, in)
	})
}

func lineEcho(c net.Conn, in *bufio.Reader) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "echo "+line)
	}
}

func TestWebSocketOverHTTP1(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, chat(t)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "x" {
		t.Fatalf("%v %v", resp, err)
	}
	for i := range 3 {
		fmt.Fprintf(c, "%d\n", i)
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the tunnel does not end: %v", err)
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "101|-|via_upstream|1|6|21|/chat|") {
		t.Errorf("log %q", line)
	}
}

// A websocket comes over HTTP/2 (RFC 8441) and goes on over HTTP/1.
func TestWebSocketOverHTTP2(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, chat(t)))
		s.routes = append(s.routes, to("/", "b"))
	})
	st, resp := connect2(t, r, &message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "a", Path: "/chat", ContentLength: message.LengthUnknown})
	if resp.Status != 200 {
		t.Fatalf("status %d", resp.Status)
	}
	talk(t, st.Tunnel())
}

func connect2(t *testing.T, r *rig, req *message.Request) (*http2.ClientStream, *message.Response) {
	t.Helper()
	cc, err := http2.NewClientConn(r.dial(), http2.ClientDefaults())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	<-cc.Ready()
	st, err := cc.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.WriteHead(req, false); err != nil {
		t.Fatal(err)
	}
	if err := st.Flush(); err != nil {
		t.Fatal(err)
	}
	var resp message.Response
	if err := st.ReadHead(&resp); err != nil {
		t.Fatal(err)
	}
	return st, &resp
}

func talk(t *testing.T, tunnel http2.Tunnel) {
	t.Helper()
	in := bufio.NewReader(tunnel)
	for i := range 3 {
		fmt.Fprintf(tunnel, "%d\n", i)
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	if err := tunnel.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the tunnel does not end: %v", err)
	}
}

func TestConnect(t *testing.T) {
	connect := []route.Upgrade{{Type: "connect", Enabled: true}}
	raw := []route.Upgrade{{Type: "connect", Enabled: true, Terminate: true}}
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("proxy", upstream.HTTP1, chat(t)), cluster("tcp", upstream.HTTP1, rawBackend(t, lineEcho)))
		for _, u := range []struct {
			host, cluster string
			upgrades      []route.Upgrade
		}{{"proxied.example:443", "proxy", connect}, {"raw.example:443", "tcp", raw}, {"none.example:443", "tcp", nil}} {
			f := to("", u.cluster, func(f *route.Forward) { f.Upgrades = u.upgrades })
			f.Match.Path.Kind = route.PathConnect
			f.Match.Headers = append(f.Match.Headers, authorityIs(u.host))
			s.routes = append(s.routes, f)
		}
	})
	for _, host := range []string{"proxied.example:443", "raw.example:443"} {
		c := r.dial()
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, &http.Request{Method: "CONNECT"})
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v %v", host, resp, err)
		}
		fmt.Fprintf(c, "x\n")
		if line, err := in.ReadString('\n'); err != nil || line != "echo x\n" {
			t.Fatalf("%s: %q %v", host, line, err)
		}
		_ = c.Close()
		st, resp2 := connect2(t, r, &message.Request{Method: "CONNECT", Authority: host, ContentLength: message.LengthUnknown})
		if resp2.Status != 200 {
			t.Fatalf("%s over HTTP/2: %d", host, resp2.Status)
		}
		talk(t, st.Tunnel())
	}
	for _, name := range []string{"proxy", "tcp"} {
		s := r.set.Ref(name).Stats()
		eventually(t, "the bytes of both tunnels of "+name, func() bool {
			return s.BytesOut.Load() >= int64(2*len("x\n")) && s.BytesIn.Load() >= int64(2*len("echo x\n"))
		})
	}
	c := r.dial()
	fmt.Fprintf(c, "CONNECT none.example:443 HTTP/1.1\r\nHost: none.example:443\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 403 {
		t.Errorf("CONNECT that nobody allows: %v %v", resp, err)
	}
}

func TestUpgradeIsNotAllowed(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.http.Upgrades = nil
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 403 {
		t.Errorf("%v %v", resp, err)
	}
	// An offer of HTTP/2 is passed over, not refused.
	c = r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("h2c: %v %v", resp, err)
	}
}

func TestUpgradeDeclined(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "GET 0 " {
		t.Errorf("%q %v", b, err)
	}
}

func TestContinue(t *testing.T) {
	for _, passed := range []bool{true, false} {
		for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
			r := newRig(t, func(s *setup) {
				s.http.Proxy100 = passed
				s.specs = append(s.specs, cluster("b", protocol, backend(t, echo)))
				s.routes = append(s.routes, to("/", "b"))
			})
			c := r.dial()
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
			in := bufio.NewReader(c)
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
				t.Fatalf("%q %v", line, err)
			}
			_, _ = in.ReadString('\n')
			_, _ = io.WriteString(c, "body")
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "POST 4 body" {
				t.Errorf("%q %v", b, err)
			}
		}
	}
}

func TestInterimResponses(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			w.WriteHeader(204)
		})))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	in := bufio.NewReader(c)
	first, err := http.ReadResponse(in, nil)
	if err != nil || first.StatusCode != 103 || first.Header.Get("Link") != "</a.css>" {
		t.Fatalf("%v %v", first, err)
	}
	if second, err := http.ReadResponse(in, nil); err != nil || second.StatusCode != 204 {
		t.Errorf("%v %v", second, err)
	}
}

func TestHeadAndEmptyResponses(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/head":
					w.Header().Set("Content-Length", "1000")
				case "/204":
					w.WriteHeader(204)
				case "/304":
					w.Header().Set("Etag", `"x"`)
					w.WriteHeader(304)
				}
			})))
			s.routes = append(s.routes, to("/", "b"))
		})
		c := client(t, two)
		resp, body := do(t, c, r.request("HEAD", "/head", nil))
		if resp.StatusCode != 200 || resp.ContentLength != 1000 || body != "" {
			t.Errorf("HEAD: %d, length %d, %q", resp.StatusCode, resp.ContentLength, body)
		}
		for path, want := range map[string]int{"/204": 204, "/304": 304, "/": 200} {
			if resp, body := do(t, c, r.request("GET", path, nil)); resp.StatusCode != want || body != "" {
				t.Errorf("%s: %d %q", path, resp.StatusCode, body)
			}
		}
	})
}

func TestBadRequests(t *testing.T) {
	r := newRig(t, func(s *setup) { s.http.MaxHeaders = 10 })
	for _, c := range []struct {
		in, log string
		status  int
	}{
		{"GET / HTTP/1.1\r\n\r\n", "400|DPE|", 400},
		{"GET / HTTP/1.0\r\n\r\n", "426|DPE|low_version|", 426},
		{"what\r\n\r\n", "400|DPE|http1.codec_error|", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a: b\r\n", 20) + "\r\n", "431|DPE|http1.headers_too_large|", 431},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400|DPE|http1.codec_error|", 400},
	} {
		conn := r.dial()
		_, _ = io.WriteString(conn, c.in)
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%q: %v %v", c.in, resp, err)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%q: the connection stays: %v", c.in, err)
		}
	}
	lines := r.logged(5)
	for i, want := range []string{"400|DPE|", "426|DPE|low_version|", "400|DPE|http1.codec_error|", "431|DPE|http1.headers_too_large|", "400|DPE|http1.codec_error|"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("log %q, want %q", lines[i], want)
		}
	}
}

// What the chain refuses is not forwarded, and what it says of responses counts
// for our own answers, too.
func TestChain(t *testing.T) {
	reached := make(chan struct{}, 1)
	g := &gate{}
	r := newRig(t, func(s *setup) {
		s.access = filter.Guarded
		s.entries = []filter.Entry{{Name: "gate", Filter: g}}
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(http.ResponseWriter, *http.Request) { reached <- struct{}{} })))
		s.routes = append(s.routes, to("/", "b"))
	})
	resp, body := r.get("/", "X-Deny", "1")
	if resp.StatusCode != 403 || body != "RBAC: access denied" || resp.Header.Get("x-seen") != "403" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	resp, _ = r.get("/", "X-Silent", "1")
	if resp.StatusCode != 403 {
		t.Errorf("without a permit: %d", resp.StatusCode)
	}
	select {
	case <-reached:
		t.Fatal("a denied request was forwarded")
	default:
	}
	if resp, _ = r.get("/"); resp.StatusCode != 200 || resp.Header.Get("x-seen") != "200" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestTLSFactsReachTheUpstream(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.http.ForwardCert = 2 // APPEND_FORWARD
		s.http.SetCert.URI = true
		s.facts = func(c *filter.Conn) {
			c.TLS, c.Mutual = &tls.ConnectionState{}, true
			c.Peer.URISANs = []string{"spiffe://td/ns/a/sa/b"}
		}
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b"))
	})
	resp, _ := r.get("/")
	if got := resp.Header.Get("Echo-X-Forwarded-Client-Cert"); got != "URI=spiffe://td/ns/a/sa/b" {
		t.Errorf("x-forwarded-client-cert: %q", got)
	}
	if got := resp.Header.Get("Echo-X-Forwarded-Proto"); got != "https" {
		t.Errorf("x-forwarded-proto: %q", got)
	}
}

func TestSlowReaderIsBounded(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.http.StreamIdleTimeout = 3 * soon
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, func(w http.ResponseWriter, r *http.Request) {
			b := make([]byte, 1<<20)
			for range 64 {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})))
		s.routes = append(s.routes, to("/", "b"))
	})
	c := r.dial()
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	line := r.logged(1)[0] // it ends although the client reads nothing
	if !strings.HasPrefix(line, "200|SI|") {
		t.Errorf("log %q", line)
	}
}

// gate is a guard that tests steer by headers.
type gate struct{ filter.Pass }

func (*gate) Guards() {}

func (*gate) OnRequest(x *filter.Exchange) *fault.Fault {
	switch {
	case x.Request.Header.Has("x-deny"):
		return stock.Denial(authz.Verdict{})
	case x.Request.Header.Has("x-silent"):
		return nil
	}
	x.Grant()
	return nil
}

func (*gate) OnResponse(x *filter.Exchange) {
	x.Response.Header.Set("x-seen", strconv.Itoa(x.Response.Status))
}

func authorityIs(host string) match.Header {
	return match.Header{Name: ":authority", Test: match.HeaderString, Value: match.Exact(host)}
}
