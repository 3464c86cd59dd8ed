// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

func TestResponseIsFramed(t *testing.T) {
	get := head("GET / HTTP/1.1", "Host: a")
	get10 := head("GET / HTTP/1.0")
	tests := []struct {
		name, req string
		resp      *message.Response
		body      string
		want      string
		reusable  bool
	}{
		{"length", get, response(200, 5, "X-a: b", "Content-length: 5", "Y: "), "hello",
			head("HTTP/1.1 200 OK", "X-a: b", "Content-length: 5", "Y: ") + "hello", true},
		{"length from the field alone", get, response(404, 5), "hello",
			head("HTTP/1.1 404 Not Found", "Content-Length: 5") + "hello", true},
		{"the field wins", get, response(200, 2, "Content-Length: 5", "content-length: 7"), "hi",
			head("HTTP/1.1 200 OK", "Content-Length: 2") + "hi", true},
		{"chunked", get, response(200, -1, "Content-Length: 5"), "hello",
			head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n", true},
		{"empty", get, response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), true},
		{"no content", get, response(204, 0, "Content-Length: 0"), "", head("HTTP/1.1 204 No Content"), true},
		{"not modified", get, response(304, 0, "Content-Length: 9"), "", head("HTTP/1.1 304 Not Modified", "Content-Length: 9"), true},
		{"head", head("HEAD / HTTP/1.1", "Host: a"), response(200, 0, "Content-Length: 9"), "", head("HTTP/1.1 200 OK", "Content-Length: 9"), true},
		{"head with a body to count", head("HEAD / HTTP/1.1", "Host: a"), response(200, 3), "abc", head("HTTP/1.1 200 OK"), true},
		{"close", get, &message.Response{Status: 299, Reason: "Fine", Close: true}, "", head("HTTP/1.1 299 Fine", "Content-Length: 0", "Connection: close"), false},
		{"close asked", head("GET / HTTP/1.1", "Host: a", "Connection: close"), response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close"), false},
		{"1.0", get10, response(200, 1), "a", head("HTTP/1.1 200 OK", "Content-Length: 1", "Connection: close") + "a", false},
		{"1.0 keep", head("GET / HTTP/1.0", "Connection: keep-alive"), response(200, 1), "a", head("HTTP/1.1 200 OK", "Content-Length: 1", "Connection: keep-alive") + "a", true},
		{"1.0 keep, unknown length", head("GET / HTTP/1.0", "Connection: keep-alive"), response(200, -1), "a", head("HTTP/1.1 200 OK", "Connection: close") + "a", false},
		{"hop fields that should not be there", get, response(200, 0, "Connection: x", "Transfer-Encoding: gzip", "Keep-Alive: 1", "Upgrade: x"), "",
			head("HTTP/1.1 200 OK", "Content-Length: 0"), true},
		{"connect refused", head("CONNECT a:1 HTTP/1.1", "Host: a"), response(403, 0), "", head("HTTP/1.1 403 Forbidden", "Content-Length: 0", "Connection: close"), false},
		{"upgrade declined", head("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: x"), response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), true},
		{"upgrade declined, data behind", head("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: x") + "GET", response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), false},
		{"body left", head("POST / HTTP/1.1", "Host: a", "Content-Length: 3") + "abc", response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), true},
		{"much body left", head("POST / HTTP/1.1", "Host: a", "Content-Length: 999999") + "abc", response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), false},
		{"much chunked left", head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "fffff\r\n" + strings.Repeat("x", 1<<20-1) + "\r\n0\r\n\r\n", response(200, 0), "", head("HTTP/1.1 200 OK", "Content-Length: 0"), false},
		{"expectation not met", head("POST / HTTP/1.1", "Host: a", "Content-Length: 3", "Expect: 100-continue") + "abc", response(413, 0), "", head("HTTP/1.1 413 Content Too Large", "Content-Length: 0", "Connection: close"), false},
	}
	for _, tt := range tests {
		c, s := serve(tt.req, 0, ServerConfig{AcceptHTTP10: true})
		mustRead(t, c)
		must(t, c.WriteHead(tt.resp, tt.body == ""))
		if _, err := io.WriteString(c, tt.body); err != nil && tt.body != "" {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := c.Finish(nil); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := s.out.String(); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
		if s.writes != 1 {
			t.Errorf("%s: %d writes, want 1", tt.name, s.writes)
		}
		if ok, _ := c.Next(); ok != tt.reusable {
			t.Errorf("%s: reusable is %v", tt.name, ok)
		}
		c.Release()
	}
}

func TestPipelinedRequestsAreServedInTurn(t *testing.T) {
	in := head("POST /1 HTTP/1.1", "Host: a", "Content-Length: 3") + "abc" +
		head("POST /2 HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "1\r\nx\r\n2;e=\"f\"\r\nyz\r\n0\r\nT: 1\r\nHost: b\r\n\r\n" +
		"\r\n" + head("GET /3 HTTP/1.1", "Host: a")
	for _, step := range []int{0, 1, 2, 3, 50} {
		c, s := serve(in, step, ServerConfig{})
		for i, want := range []string{"/1 abc ", "/2 xyz T: 1\n", "/3  "} {
			req := mustRead(t, c)
			body := mustReadAll(t, c)
			got := req.Path + " " + body + " " + fieldsOf(c.Trailer())
			if got != want {
				t.Errorf("request %d: %q, want %q", i, got, want)
			}
			must(t, c.WriteHead(response(200, 0), true))
			if ok, err := c.Next(); !ok || err != nil {
				t.Fatalf("request %d: not reusable: %v", i, err)
			}
		}
		if err := c.ReadRequest(new(message.Request)); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		if n := strings.Count(s.out.String(), "200 OK"); n != 3 {
			t.Errorf("%d responses", n)
		}
	}
}

func TestHeadOutlivesItsBody(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 5000)
	var chunks strings.Builder
	for i := 0; i < len(body); i += 1000 {
		chunks.WriteString("3e8\r\n" + body[i:i+1000] + "\r\n")
	}
	value := strings.Repeat("v", 3000)
	in := head("POST /path HTTP/1.1", "Host: a", "X: "+value, "Transfer-Encoding: chunked") +
		chunks.String() + "0\r\nTrail: " + value + "\r\n\r\n"
	for _, step := range []int{0, 1, 1500} {
		c, _ := serve(in, step, ServerConfig{})
		req := mustRead(t, c)
		if got := mustReadAll(t, c); got != body {
			t.Errorf("body of %d bytes differs (%d)", len(got), len(body))
		}
		if req.Path != "/path" || req.Header.Get("x") != value || c.Trailer().Get("trail") != value {
			t.Errorf("step %d: head was overwritten", step)
		}
		c.Release()
	}
}

func TestExpectContinue(t *testing.T) {
	c, s := serve(head("POST / HTTP/1.1", "Host: a", "Content-Length: 3", "Expect: 100-continue")+"abc", 0, ServerConfig{})
	mustRead(t, c)
	must(t, c.WriteHead(response(100, 0), false))
	if got := s.out.String(); got != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Errorf("sent at once: %q", got)
	}
	must(t, c.WriteHead(response(103, 0, "Link: x"), false))
	mustReadAll(t, c)
	must(t, c.WriteHead(response(200, 0), true))
	if ok, err := c.Next(); !ok {
		t.Errorf("not reusable: %v", err)
	}
	if got := s.out.String(); !strings.Contains(got, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n") {
		t.Errorf("sent: %q", got)
	}
}

func TestInformationalIsKeptFromHTTP10(t *testing.T) {
	c, s := serve(head("GET / HTTP/1.0"), 0, ServerConfig{AcceptHTTP10: true})
	mustRead(t, c)
	must(t, c.WriteHead(response(103, 0), false))
	if s.out.Len() > 0 {
		t.Errorf("sent %q", s.out.String())
	}
}

func TestTunnelBeginsWithWhatWasBuffered(t *testing.T) {
	for name, tt := range map[string]struct {
		req  string
		resp *message.Response
		want string
	}{
		"connect":       {head("CONNECT a:1 HTTP/1.1", "Host: a:1"), response(200, -1, "Content-Length: 3"), head("HTTP/1.1 200 OK")},
		"upgrade":       {head("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: WebSocket"), &message.Response{Status: 101, Protocol: "websocket"}, head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")},
		"upgrade by h2": {head("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: x/1"), &message.Response{Status: 200, Protocol: "x/1", ContentLength: -1}, head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: x/1")},
	} {
		c, s := serve(tt.req+"early data", 0, ServerConfig{})
		mustRead(t, c)
		if b := mustReadAll(t, c); b != "" {
			t.Errorf("%s: early data is body: %q", name, b)
		}
		if c.Tunnel() != nil {
			t.Errorf("%s: a tunnel before the answer", name)
		}
		must(t, c.WriteHead(tt.resp, false))
		tun := c.Tunnel()
		if got := mustReadAll(t, tun); got != "early data" {
			t.Errorf("%s: tunnel gave %q", name, got)
		}
		_, err := tun.Write([]byte("back"))
		must(t, err)
		if got := s.out.String(); got != tt.want+"back" {
			t.Errorf("%s: wrote %q", name, got)
		}
		if ok, _ := c.Next(); ok {
			t.Errorf("%s: reusable", name)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	get := head("GET / HTTP/1.1", "Host: a")
	for name, resp := range map[string]*message.Response{
		"cr in value":  response(200, 0, "X: a\rb"),
		"lf in value":  response(200, 0, "X: a\nb"),
		"nul in value": response(200, 0, "X: a\x00b"),
		"crlf in name": response(200, 0, "X\r\nY: b"),
		"empty name":   response(200, 0, ": b"),
		"reason":       {Status: 200, Reason: "a\r\nb"},
		"status":       response(99, 0),
		"status large": response(1000, 0),
		"101 unasked":  {Status: 101, Protocol: "x"},
		"length":       response(200, 5),
	} {
		c, s := serve(get, 0, ServerConfig{})
		mustRead(t, c)
		err := c.WriteHead(resp, true)
		var bad *Error
		if !errors.As(err, &bad) || bad.Kind != Misuse {
			t.Errorf("%s: %v", name, err)
		}
		must(t, c.WriteHead(response(500, 0), true))
		if got := s.out.String(); !strings.HasPrefix(got, "HTTP/1.1 500 ") {
			t.Errorf("%s: left %q", name, got)
		}
	}
}

func TestBodyKeepsItsLength(t *testing.T) {
	c, _ := serve(head("GET / HTTP/1.1", "Host: a"), 0, ServerConfig{})
	mustRead(t, c)
	must(t, c.WriteHead(response(200, 5), false))
	if _, err := c.Write([]byte("123456")); err == nil {
		t.Error("wrote more than Content-Length")
	}
	if _, err := c.Write([]byte("1234")); err != nil {
		t.Error(err)
	}
	if err := c.Finish(nil); err == nil {
		t.Error("finished with less than Content-Length")
	}
	if ok, _ := c.Next(); ok {
		t.Error("reusable after a short body")
	}
}

func TestTrailersAreWritten(t *testing.T) {
	c, s := serve(head("GET / HTTP/1.1", "Host: a"), 0, ServerConfig{})
	mustRead(t, c)
	must(t, c.WriteHead(response(200, -1), false))
	trailer := response(0, 0, "Grpc-Status: 0", "Content-Length: 3", "Set-Cookie: x").Header
	must(t, c.Finish(&trailer))
	if got, want := s.out.String(), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")+"0\r\nGrpc-Status: 0\r\n\r\n"; got != want {
		t.Errorf("wrote %q", got)
	}
	if ok, _ := c.Next(); !ok {
		t.Error("not reusable")
	}
}

func TestLargeBodiesAreNotBroken(t *testing.T) {
	big := strings.Repeat("x", 100_000)
	for _, length := range []int64{int64(3 * len(big)), -1} {
		c, s := serve(head("GET / HTTP/1.1", "Host: a"), 0, ServerConfig{})
		mustRead(t, c)
		must(t, c.WriteHead(response(200, length), false))
		for range 3 {
			if n, err := io.WriteString(c, big); n != len(big) || err != nil {
				t.Fatal(n, err)
			}
		}
		must(t, c.Finish(nil))
		cl, _ := dial(s.out.String(), 0, ClientConfig{})
		must(t, cl.WriteHead(request("GET", "/", 0), true))
		must(t, cl.ReadHead(new(message.Response)))
		if got := mustReadAll(t, cl); got != big+big+big {
			t.Errorf("length %d: %d bytes came", length, len(got))
		}
	}
}

func TestPreloadComesFirst(t *testing.T) {
	in := head("GET /a HTTP/1.1", "Host: a")
	c, _ := serve(in[10:], 3, ServerConfig{})
	c.Preload([]byte(in[:10]))
	if req := mustRead(t, c); req.Path != "/a" {
		t.Errorf("path %q", req.Path)
	}
	c, _ = serve("", 0, ServerConfig{})
	c.Preload([]byte(strings.Repeat("\r\n", 2) + strings.Repeat("x", 100_000)))
	if err := c.ReadRequest(new(message.Request)); err == nil {
		t.Error("a flood was read as a request")
	}
}

func TestLingerReadsUntilTheEnd(t *testing.T) {
	c, s := serve(head("GET / HTTP/1.1", "Host: a")+strings.Repeat("x", 1000), 10, ServerConfig{})
	mustRead(t, c)
	must(t, c.Linger(time.Second))
	if !s.closed {
		t.Error("not closed")
	}
}

func TestIdleConnectionHoldsNoBuffer(t *testing.T) {
	server, client := tcpPair(t)
	c := NewServerConn(server, ServerConfig{})
	got := make(chan error, 1)
	for range 2 {
		go func() {
			err := c.ReadRequest(new(message.Request))
			if err == nil {
				err = c.WriteHead(response(200, 0), true)
			}
			got <- err
		}()
		_, err := io.WriteString(client, head("GET / HTTP/1.1", "Host: a"))
		must(t, err)
		must(t, <-got)
		if ok, _ := c.Next(); !ok {
			t.Fatal("not reusable")
		}
		_, err = io.ReadFull(client, make([]byte, len(head("HTTP/1.1 200 OK", "Content-Length: 0"))))
		must(t, err)
		c.in.unpin()
		if c.in.buf != nil || c.out.buf != nil {
			t.Error("a buffer is held between requests")
		}
	}
	must(t, client.Close())
	if err := c.ReadRequest(new(message.Request)); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}
