// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

func TestRequestIsWritten(t *testing.T) {
	chunked := "Transfer-Encoding: chunked"
	tests := []struct {
		name string
		req  *message.Request
		body string
		want string
	}{
		{"get", request("GET", "/a?b", 0, "x-Y: z"), "", head("GET /a?b HTTP/1.1", "Host: a.test", "x-Y: z")},
		{"post empty", request("POST", "/", 0), "", head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 0")},
		{"post", request("POST", "/", 2, "A: b", "content-length: 2", "C: d"), "hi", head("POST / HTTP/1.1", "Host: a.test", "A: b", "content-length: 2", "C: d") + "hi"},
		{"get with body", request("GET", "/", 2), "hi", head("GET / HTTP/1.1", "Host: a.test", "Content-Length: 2") + "hi"},
		{"chunked", request("POST", "/", -1, "Content-Length: 9"), "hi", head("POST / HTTP/1.1", "Host: a.test", chunked) + "2\r\nhi\r\n0\r\n\r\n"},
		{"te", request("GET", "/", 0, "TE: trailers"), "", head("GET / HTTP/1.1", "Host: a.test", "TE: trailers", "Connection: TE")},
		{"options", request("OPTIONS", "*", 0), "", head("OPTIONS * HTTP/1.1", "Host: a.test")},
		{"connect", request("CONNECT", "", 0), "", head("CONNECT a.test HTTP/1.1", "Host: a.test")},
		{"close", &message.Request{Method: "GET", Path: "/", Close: true}, "", head("GET / HTTP/1.1", "Host: ", "Connection: close")},
		{"upgrade", &message.Request{Method: "GET", Path: "/", Authority: "a", Protocol: "websocket"}, "", head("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket")},
		{"extended connect", &message.Request{Method: "CONNECT", Path: "/", Authority: "a", Protocol: "websocket", ContentLength: -1}, "", head("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket")},
	}
	for _, tt := range tests {
		c, s := dial("", 0, ClientConfig{})
		must(t, c.WriteHead(tt.req, tt.body == ""))
		if tt.body != "" {
			_, err := io.WriteString(c, tt.body)
			must(t, err)
			must(t, c.Finish(nil))
		}
		if got := s.out.String(); got != tt.want || s.writes != 1 {
			t.Errorf("%s, %d writes:\n got %q\nwant %q", tt.name, s.writes, got, tt.want)
		}
	}
}

func TestRequestIsNotWritten(t *testing.T) {
	for name, req := range map[string]*message.Request{
		"method":    request("GE T", "/", 0),
		"path":      request("GET", "/a b", 0),
		"crlf":      request("GET", "/a\r\nX:", 0),
		"fragment":  request("GET", "/a#b", 0),
		"relative":  request("GET", "a", 0),
		"no path":   request("GET", "", 0),
		"value":     request("GET", "/", 0, "A: b\r\nC: d"),
		"length":    request("GET", "/", 3),
		"authority": {Method: "GET", Path: "/", Authority: "a\r\nb"},
		"connect":   {Method: "CONNECT"},
		"protocol":  {Method: "GET", Path: "/", Protocol: "a\r\nb"},
	} {
		c, s := dial("", 0, ClientConfig{})
		var bad *Error
		if err := c.WriteHead(req, true); !errors.As(err, &bad) || bad.Kind != Misuse || s.out.Len() > 0 {
			t.Errorf("%s: %v; wrote %q", name, err, s.out.String())
		}
	}
}

func TestResponseIsRead(t *testing.T) {
	type want struct {
		status   int
		reason   string
		fields   string
		length   int64
		body     string
		reusable bool
	}
	get, asHead := request("GET", "/", 0), request("HEAD", "/", 0)
	tests := []struct {
		name string
		req  *message.Request
		in   string
		want want
	}{
		{"length", get, head("HTTP/1.1 200 All Right", "A-b: c", "Content-length: 2") + "hi", want{200, "All Right", "A-b: c\nContent-length: 2\n", 2, "hi", true}},
		{"no reason", get, head("HTTP/1.1 200", "Content-Length: 0"), want{200, "", "Content-Length: 0\n", 0, "", true}},
		{"chunked", get, head("HTTP/1.1 200 ", "Transfer-Encoding: chunked") + "2 \r\nhi\r\n000\r\n\r\n", want{200, "", "", -1, "hi", true}},
		{"until close", get, head("HTTP/1.1 200 OK") + "hi", want{200, "OK", "", -1, "hi", false}},
		{"1.0", get, head("HTTP/1.0 200 OK", "Content-Length: 2") + "hi", want{200, "OK", "Content-Length: 2\n", 2, "hi", false}},
		{"1.0 keep", get, head("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 2") + "hi", want{200, "OK", "Content-Length: 2\n", 2, "hi", true}},
		{"close", get, head("HTTP/1.1 200 OK", "Connection: X, close", "X: 1", "Content-Length: 0"), want{200, "OK", "Content-Length: 0\n", 0, "", false}},
		{"head", asHead, head("HTTP/1.1 200 OK", "Content-Length: 2"), want{200, "OK", "Content-Length: 2\n", 0, "", true}},
		{"head chunked", asHead, head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), want{200, "OK", "", 0, "", true}},
		{"204", get, head("HTTP/1.1 204 No Content", "Content-Length: 0"), want{204, "No Content", "Content-Length: 0\n", 0, "", true}},
		{"304", get, head("HTTP/1.1 304 Not Modified", "Content-Length: 9"), want{304, "Not Modified", "Content-Length: 9\n", 0, "", true}},
		{"more than asked", get, head("HTTP/1.1 200 OK", "Content-Length: 2") + "hi!", want{200, "OK", "Content-Length: 2\n", 2, "hi", false}},
		{"unknown status", get, head("HTTP/1.1 799 Odd", "Content-Length: 0"), want{799, "Odd", "Content-Length: 0\n", 0, "", true}},
	}
	for _, tt := range tests {
		for _, step := range []int{0, 1} {
			c, s := dial(tt.in, step, ClientConfig{})
			must(t, c.WriteHead(tt.req, true))
			var r message.Response
			if err := c.ReadHead(&r); err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			got := want{r.Status, r.Reason, fieldsOf(&r.Header), r.ContentLength, mustReadAll(t, c), c.Reusable() && len(s.in) == 0}
			if got != tt.want {
				t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
			}
		}
	}
}

func TestResponseIsRefused(t *testing.T) {
	for name, in := range map[string]string{
		"both":              head("HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked"),
		"both to 204":       head("HTTP/1.1 204 OK", "Content-Length: 1"),
		"coding to 204":     head("HTTP/1.1 204 OK", "Transfer-Encoding: chunked"),
		"coding":            head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"),
		"coding in 1.0":     head("HTTP/1.0 200 OK", "Transfer-Encoding: chunked"),
		"lengths":           head("HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 2"),
		"fold":              head("HTTP/1.1 200 OK", "A: b", " c"),
		"lf":                "HTTP/1.1 200 OK\n\n",
		"status":            head("HTTP/1.1 20 OK"),
		"status words":      head("HTTP/1.1 two OK"),
		"status of four":    head("HTTP/1.1 2000 OK"),
		"status 0":          head("HTTP/1.1 099 OK"),
		"version":           head("HTTP/2.0 200 OK"),
		"no http":           head("ICY 200 OK"),
		"reason":            head("HTTP/1.1 200 O\x00K"),
		"101 unasked":       head("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: x"),
		"empty line before": "\r\n" + head("HTTP/1.1 200 OK"),
		"hints":             strings.Repeat(head("HTTP/1.1 103 Early Hints"), 17),
		"large":             "HTTP/1.1 200 " + strings.Repeat("x", 61<<10),
	} {
		for _, step := range []int{0, 1} {
			c, _ := dial(in, step, ClientConfig{})
			must(t, c.WriteHead(request("GET", "/", 0), true))
			var r message.Response
			var err error
			for r.Status = 103; err == nil && r.Status == 103; {
				err = c.ReadHead(&r)
			}
			var bad *Error
			if !errors.As(err, &bad) || bad.Kind != Protocol || bad.Status != 502 {
				t.Errorf("%s: %v", name, err)
			}
			if c.Reusable() {
				t.Errorf("%s: reusable", name)
			}
		}
	}
}

func TestBodyOfResponseIsRefused(t *testing.T) {
	chunked := head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
	for name, tt := range map[string]struct {
		in   string
		kind Kind
	}{
		"short":             {head("HTTP/1.1 200 OK", "Content-Length: 3") + "hi", Truncated},
		"chunk short":       {chunked + "3\r\nhi", Truncated},
		"no last chunk":     {chunked + "2\r\nhi\r\n", Truncated},
		"no end":            {chunked + "0\r\n", Truncated},
		"trailer short":     {chunked + "0\r\nA: b\r\n", Truncated},
		"chunk long":        {chunked + "1\r\nhi\r\n0\r\n\r\n", Protocol},
		"no size":           {chunked + "\r\n", Protocol},
		"size with sign":    {chunked + "+1\r\n", Protocol},
		"size with 0x":      {chunked + "0x1\r\n", Protocol},
		"size overflow":     {chunked + "8000000000000000\r\n", Protocol},
		"size far over":     {chunked + "10000000000000001\r\n", Protocol},
		"size of 17 digits": {chunked + "00000000000000001\r\nx\r\n", Protocol},
		"lf":                {chunked + "1\nx\r\n0\r\n\r\n", Protocol},
		"lf after data":     {chunked + "1\r\nx\n0\r\n\r\n", Protocol},
		"cr in extension":   {chunked + "1;a\rb\r\nx\r\n0\r\n\r\n", Protocol},
		"space, then more":  {chunked + "1 1\r\nx\r\n0\r\n\r\n", Protocol},
		"extension long":    {chunked + "1;" + strings.Repeat("a", 300) + "\r\nx\r\n0\r\n\r\n", Protocol},
		"extensions":        {chunked + strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 100) + "0\r\n\r\n", Protocol},
		"trailer fold":      {chunked + "0\r\nA: b\r\n c\r\n\r\n", Protocol},
		"trailer name":      {chunked + "0\r\nA : b\r\n\r\n", Protocol},
		"trailer lf":        {chunked + "0\r\nA: b\n\r\n", Protocol},
		"trailer count":     {chunked + "0\r\n" + strings.Repeat("A: b\r\n", 101) + "\r\n", Protocol},
		"trailer size":      {chunked + "0\r\nA: " + strings.Repeat("b", 61<<10) + "\r\n\r\n", Protocol},
	} {
		for _, step := range []int{0, 1, 100} {
			c, _ := dial(tt.in, step, ClientConfig{})
			must(t, c.WriteHead(request("GET", "/", 0), true))
			must(t, c.ReadHead(new(message.Response)))
			_, err := io.ReadAll(c)
			var bad *Error
			if !errors.As(err, &bad) || bad.Kind != tt.kind || bad.Status != 502 {
				t.Errorf("%s: %v", name, err)
			}
			if _, again := c.Read(make([]byte, 1)); again != err || c.Reusable() {
				t.Errorf("%s: then %v; reusable: %v", name, again, c.Reusable())
			}
		}
	}
}

func TestInformationalResponsesPass(t *testing.T) {
	c, _ := dial(head("HTTP/1.1 100 Continue")+head("HTTP/1.1 103 Early Hints", "Link: x")+head("HTTP/1.1 200 OK", "Content-Length: 0"), 0, ClientConfig{})
	must(t, c.WriteHead(request("GET", "/", 0), true))
	var r message.Response
	for _, want := range []int{100, 103, 200} {
		if err := c.ReadHead(&r); err != nil || r.Status != want {
			t.Fatalf("%v, %d, want %d", err, r.Status, want)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF || !c.Reusable() {
		t.Errorf("%v, reusable %v", err, c.Reusable())
	}
}

func TestClientTunnel(t *testing.T) {
	ws := &message.Request{Method: "GET", Path: "/", Authority: "a", Protocol: "websocket"}
	for name, tt := range map[string]struct {
		req *message.Request
		in  string
	}{
		"upgrade": {ws, head("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: WebSocket")},
		"connect": {request("CONNECT", "", 0), head("HTTP/1.1 200 OK", "Content-Length: 3")},
	} {
		c, _ := dial(tt.in+"first", 0, ClientConfig{})
		must(t, c.WriteHead(tt.req, false))
		var r message.Response
		must(t, c.ReadHead(&r))
		if got := mustReadAll(t, c.Tunnel()); got != "first" || r.Header.Len() > 0 {
			t.Errorf("%s: %q, %v", name, got, r.Header.Fields())
		}
		if c.Reusable() {
			t.Errorf("%s: reusable", name)
		}
	}
	// A 200 to an upgrade declines it.
	c, _ := dial(head("HTTP/1.1 200 OK", "Content-Length: 2")+"hi", 0, ClientConfig{})
	must(t, c.WriteHead(ws, true))
	must(t, c.ReadHead(new(message.Response)))
	if got := mustReadAll(t, c); c.Tunnel() != nil || got != "hi" || !c.Reusable() {
		t.Errorf("declined: %q, reusable %v", got, c.Reusable())
	}
}

func TestKeepAliveIsHeard(t *testing.T) {
	c, _ := dial(head("HTTP/1.1 200 OK", "Keep-Alive: timeout=5, max=99", "Content-Length: 0"), 0, ClientConfig{})
	must(t, c.WriteHead(request("GET", "/", 0), true))
	must(t, c.ReadHead(new(message.Response)))
	if d, n := c.KeepAlive(); d != 5*time.Second || n != 99 {
		t.Errorf("%v, %d", d, n)
	}
}

func TestAliveSeesTheServerClose(t *testing.T) {
	server, client := tcpPair(t)
	c := NewClientConn(client, ClientConfig{})
	if !c.Alive() {
		t.Error("dead while open")
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	within(t, "unasked data is seen", func() bool { return !c.Alive() })
	server, client = tcpPair(t)
	c = NewClientConn(client, ClientConfig{})
	must(t, server.Close())
	within(t, "the end is seen", func() bool { return !c.Alive() })
	if n := testing.AllocsPerRun(10, func() { c.Alive() }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// An exchange is given up at once, whatever TLS would still have to say; who closes lets it.
func TestAbortCutsOff(t *testing.T) {
	for _, abort := range []bool{true, false} {
		under := &script{}
		conn := &wrapped{Conn: under}
		c := NewClientConn(conn, ClientConfig{})
		if abort {
			c.Abort(0)
		} else {
			must(t, c.Close())
		}
		if !under.closed || conn.leaves == abort {
			t.Errorf("abort %v: closed %v, with a word to the peer %v", abort, under.closed, conn.leaves)
		}
	}
}

// wrapped is a connection in another, which takes its leave of the peer.
type wrapped struct {
	net.Conn
	leaves bool
}

func (w *wrapped) NetConn() net.Conn { return w.Conn }
func (w *wrapped) Close() error      { w.leaves = true; return w.Conn.Close() }

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	return server, client
}
