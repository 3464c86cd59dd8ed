// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/message"
)

func seeds(f *testing.F, add func(string)) {
	f.Helper()
	for _, s := range []string{
		head("GET / HTTP/1.1", "Host: a"),
		"\r\n\r\n" + head("POST /a?b HTTP/1.1", "Host: a:80", "Content-Length: 3", "X: y") + "abcGET",
		head("PUT / HTTP/1.1", "Host: [::1]", "Transfer-Encoding: chunked", "TE: trailers") + "3;a=b\r\nabc\r\n0\r\nT: v\r\nHost: x\r\n\r\nrest",
		head("CONNECT a:443 HTTP/1.1", "Host: a") + "data",
		head("OPTIONS * HTTP/1.0", "Connection: keep-alive, x", "X: 1"),
		head("GET http://b/c HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: h2c, WebSocket"),
		head("GET https://b:1?c HTTP/1.1", "Host: a", "Expect: 100-continue", "Content-Length: 0", "content-length: 0"),
		head("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Transfer-Encoding: chunked"),
		head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"),
		head("GET / HTTP/1.1", "Host : a"), head("GET / HTTP/1.1", "Host: a", " b"),
		"GET / HTTP/1.1\nHost: a\n\n", "G", "",
		head("GET / HTTP/1.1", "Host: a", "X: \x01\x80\tz"),
	} {
		add(s)
	}
	add(head("0 / HTTP/1.0", "Host:0]"))
	add(head("CONNECT [::1%251]:1 HTTP/1.1", "Host: [::]"))
	add(head("0 / HTTP/1.1", "Host: ", "Transfer-Encoding: chunked") + "3\r\n000\r\n0\r\n\x00")
}

func FuzzAgreesWithTwin(f *testing.F) {
	seeds(f, func(s string) { f.Add([]byte(s), uint16(0)); f.Add([]byte(s), uint16(1)) })
	f.Fuzz(func(t *testing.T, in []byte, step uint16) {
		want, rest, ok := twinRead(string(in))
		s := &script{in: bytes.Clone(in), step: int(step)}
		c := NewServerConn(s, ServerConfig{AcceptHTTP10: true})
		defer c.Release()
		var r message.Request
		err := c.ReadRequest(&r)
		if (err == nil) != ok {
			t.Fatalf("codec: %v; twin accepts: %v", err, ok)
		}
		if !ok {
			return
		}
		got := twinRequest{
			method: r.Method, scheme: r.Scheme, authority: r.Authority, path: r.Path, protocol: r.Protocol,
			length: r.ContentLength, close: r.Close, expect: r.Expect100, minor: "1",
		}
		if r.Version == message.HTTP10 {
			got.minor = "0"
		}
		body, err := io.ReadAll(c)
		if got.bodyOK = err == nil; got.bodyOK {
			got.body, got.trailer = string(body), fieldsOf(c.Trailer())
			if left := string(c.in.unread()) + string(s.in); left != rest {
				t.Errorf("left %q, want %q", left, rest)
			}
		}
		// The head is looked at last: reading the body must not have changed it.
		got.fields = fieldsOf(&r.Header)
		if got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
}

// What we accept, net/http must accept and read alike: it is stricter nowhere
// but about the target.
func FuzzAgreesWithNetHTTP(f *testing.F) {
	seeds(f, func(s string) { f.Add([]byte(s)) })
	f.Fuzz(func(t *testing.T, in []byte) {
		c, _ := serve(string(in), 0, ServerConfig{AcceptHTTP10: true})
		defer c.Release()
		var r message.Request
		if c.ReadRequest(&r) != nil || r.Method == "CONNECT" || r.Method == "PRI" {
			return
		}
		trimmed := strings.TrimLeft(string(in), "\r\n")
		target := strings.Split(trimmed, " ")[1]
		if _, err := url.ParseRequestURI(target); err != nil {
			return
		}
		h, err := http.ReadRequest(bufio.NewReader(strings.NewReader(trimmed)))
		if err != nil {
			t.Fatalf("net/http refuses what we accept: %v", err)
		}
		if h.Method != r.Method || h.ContentLength != r.ContentLength || h.RequestURI != target {
			t.Errorf("net/http: %q %q %d; ours: %q %q %d", h.Method, h.RequestURI, h.ContentLength, r.Method, target, r.ContentLength)
		}
		if r.Authority != h.Host {
			t.Errorf("net/http: host %q; ours: %q", h.Host, r.Authority)
		}
		theirs, err1 := io.ReadAll(h.Body)
		ours, err2 := io.ReadAll(c)
		if err2 == nil && (err1 != nil || !bytes.Equal(theirs, ours)) {
			t.Errorf("net/http: body %q, %v; ours: %q", theirs, err1, ours)
		}
	})
}

// What the client writes, the server reads as it was, however it is cut up;
// what cannot be written leaves nothing.
func FuzzRoundTrip(f *testing.F) {
	f.Add("POST", "/a?b", "a.test", "X-Name", "value", []byte("body"), uint16(3), true, "T", "v")
	f.Add("GET", "*", "", "x", "", []byte(""), uint16(0), false, "", "")
	f.Add("HEAD", "/", "[::1]:1", "Te", "trailers", []byte("12345"), uint16(1), true, "A", "\r\n")
	f.Fuzz(func(t *testing.T, method, path, host, name, value string, body []byte, step uint16, chunked bool, tname, tvalue string) {
		var wire bytes.Buffer
		w := &script{}
		c := NewClientConn(w, ClientConfig{})
		req := &message.Request{Method: method, Path: path, Authority: host, ContentLength: int64(len(body))}
		if chunked {
			req.ContentLength = message.LengthUnknown
		}
		req.Header.Add(name, value)
		if err := c.WriteHead(req, false); err != nil {
			if c.out.n > 0 || w.out.Len() > 0 {
				t.Fatal("a refused head left something")
			}
			return
		}
		if method == "CONNECT" {
			return
		}
		step1 := int(step)%7 + 1
		for i := 0; i < len(body); i += step1 {
			if _, err := c.Write(body[i:min(i+step1, len(body))]); err != nil {
				t.Fatal(err)
			}
		}
		var trailer message.Header
		trailer.Add(tname, tvalue)
		if c.Finish(&trailer) != nil {
			return
		}
		wire.Write(w.out.Bytes())
		s, _ := serve(wire.String(), int(step), ServerConfig{})
		var got message.Request
		if err := s.ReadRequest(&got); err != nil {
			if strings.EqualFold(name, "Expect") {
				return
			}
			t.Fatalf("cannot read what was written: %v\n%q", err, wire.String())
		}
		if got.Method != method || got.Path != path || got.Authority != host {
			t.Errorf("head: %+v", got)
		}
		b, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(b, body) {
			t.Errorf("body: %q, %v", b, err)
		}
		if s.Buffered() != 0 {
			t.Error("something is left")
		}
	})
}

// However a chunked body is cut up by the network, the same comes out.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), uint16(1), uint16(2))
	f.Add([]byte("00a;x=\"y\"\r\n0123456789\r\n1 \r\nx\r\n0\r\nA: b\r\n\r\nmore"), uint16(3), uint16(1))
	f.Add([]byte("FFFFFFFFFFFFFFFF\r\n"), uint16(0), uint16(1))
	f.Fuzz(func(t *testing.T, in []byte, step, size uint16) {
		body, trailer, rest, ok := twinBody(-1, string(in))
		s := &script{in: bytes.Clone(in), step: int(step)}
		r := input{reader: newReader(s), lim: Limits{}.withDefaults()}
		r.begin(bodyChunked, 0)
		var got []byte
		var err error
		for p := make([]byte, int(size)%100+1); err == nil; {
			var n int
			n, err = r.Read(p)
			got = append(got, p[:n]...)
		}
		if (err == io.EOF) != ok {
			t.Fatalf("codec: %v; twin accepts: %v", err, ok)
		}
		if ok && (string(got) != body || fieldsOf(&r.trailer) != trailer || string(r.unread())+string(s.in) != rest) {
			t.Errorf("got %q %q, left %q; want %q %q %q", got, fieldsOf(&r.trailer), r.unread(), body, trailer, rest)
		}
	})
}

func FuzzValidValue(f *testing.F) {
	f.Add("abcdefgh\x7f")
	f.Add("\t\x80 abcdefgh\x1f\xff")
	f.Fuzz(func(t *testing.T, s string) {
		want := true
		for i := range len(s) {
			want = want && (s[i] == '\t' || s[i] >= 0x20 && s[i] != 0x7f)
		}
		if validValue(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	})
}
