// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/message"
)

func TestRequestIsRefused(t *testing.T) {
	h := "Host: a"
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("f%d: v", i)
	}
	tests := []struct {
		name, in string
		status   int
	}{
		{"no host", head("GET / HTTP/1.1"), 400},
		{"two hosts", head("GET / HTTP/1.1", h, "host: a"), 400},
		{"host with user", head("GET / HTTP/1.1", "Host: u@a"), 400},
		{"host with path", head("GET / HTTP/1.1", "Host: a/b"), 400},
		{"host with two ports", head("GET / HTTP/1.1", "Host: a:1:2"), 400},
		{"host with space", head("GET / HTTP/1.1", "Host: a b"), 400},
		{"host list", head("GET / HTTP/1.1", "Host: a\x00"), 400},
		{"lf only", "GET / HTTP/1.1\nHost: a\n\n", 400},
		{"lf after field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
		{"lf at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
		{"bare cr in value", head("GET / HTTP/1.1", h, "X: a\rb"), 400},
		{"bare cr in line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"nul in value", head("GET / HTTP/1.1", h, "X: a\x00b"), 400},
		{"del in value", head("GET / HTTP/1.1", h, "X: abcdefghijk\x7fb"), 400},
		{"ctl in value", head("GET / HTTP/1.1", h, "X: abcdefghijk\x01b"), 400},
		{"fold", head("GET / HTTP/1.1", h, "X: a", " b"), 400},
		{"fold at once", head("GET / HTTP/1.1", " X: a", h), 400},
		{"space before colon", head("GET / HTTP/1.1", "Host : a"), 400},
		{"space in name", head("GET / HTTP/1.1", h, "X y: a"), 400},
		{"no colon", head("GET / HTTP/1.1", h, "X"), 400},
		{"no name", head("GET / HTTP/1.1", h, ": x"), 400},
		{"high byte in name", head("GET / HTTP/1.1", h, "X\x80: x"), 400},
		{"lengths differ", head("POST / HTTP/1.1", h, "Content-Length: 1", "Content-Length: 2"), 400},
		{"length list", head("POST / HTTP/1.1", h, "Content-Length: 1, 1"), 400},
		{"length signed", head("POST / HTTP/1.1", h, "Content-Length: +1"), 400},
		{"length negative", head("POST / HTTP/1.1", h, "Content-Length: -1"), 400},
		{"length empty", head("POST / HTTP/1.1", h, "Content-Length:"), 400},
		{"length hex", head("POST / HTTP/1.1", h, "Content-Length: 0x1"), 400},
		{"length overflow", head("POST / HTTP/1.1", h, "Content-Length: 9223372036854775808"), 400},
		{"length overflow far", head("POST / HTTP/1.1", h, "Content-Length: 18446744073709551617"), 400},
		{"length and coding", head("POST / HTTP/1.1", h, "Content-Length: 1", "Transfer-Encoding: chunked"), 400},
		{"coding and length", head("POST / HTTP/1.1", h, "Transfer-Encoding: chunked", "Content-Length: 0"), 400},
		{"coding twice", head("POST / HTTP/1.1", h, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400},
		{"coding listed twice", head("POST / HTTP/1.1", h, "Transfer-Encoding: chunked, chunked"), 501},
		{"coding gzip, chunked", head("POST / HTTP/1.1", h, "Transfer-Encoding: gzip, chunked"), 501},
		{"coding gzip", head("POST / HTTP/1.1", h, "Transfer-Encoding: gzip"), 400},
		{"coding chunked, gzip", head("POST / HTTP/1.1", h, "Transfer-Encoding: chunked, gzip"), 400},
		{"coding identity", head("POST / HTTP/1.1", h, "Transfer-Encoding: identity"), 400},
		{"coding quoted", head("POST / HTTP/1.1", h, "Transfer-Encoding: \"chunked\""), 400},
		{"coding with vt", head("POST / HTTP/1.1", h, "Transfer-Encoding: \x0bchunked"), 400},
		{"coding empty", head("POST / HTTP/1.1", h, "Transfer-Encoding:"), 400},
		{"coding in 1.0", head("POST / HTTP/1.0", h, "Transfer-Encoding: chunked"), 400},
		{"method", head("GE(T / HTTP/1.1", h), 400},
		{"method empty", head(" / HTTP/1.1", h), 400},
		{"two spaces", head("GET  / HTTP/1.1", h), 400},
		{"space at the end", head("GET / HTTP/1.1 ", h), 400},
		{"tab", head("GET\t/ HTTP/1.1", h), 400},
		{"no version", head("GET /", h), 400},
		{"two targets", head("GET / /b HTTP/1.1", h), 400},
		{"version", head("GET / HTTP/1.x", h), 400},
		{"version case", head("GET / http/1.1", h), 400},
		{"version 1.2", head("GET / HTTP/1.2", h), 505},
		{"version 2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"fragment", head("GET /a#b HTTP/1.1", h), 400},
		{"relative", head("GET a HTTP/1.1", h), 400},
		{"star", head("GET * HTTP/1.1", h), 400},
		{"other scheme", head("GET ftp://a/ HTTP/1.1", h), 400},
		{"absolute without host", head("GET http:///a HTTP/1.1", h), 400},
		{"absolute with port alone", head("GET http://:80/a HTTP/1.1", h), 400},
		{"absolute with user", head("GET http://u:p@a/ HTTP/1.1", h), 400},
		{"absolute without Host", head("GET http://a/ HTTP/1.1"), 400},
		{"connect path", head("CONNECT /a HTTP/1.1", h), 400},
		{"connect without port", head("CONNECT a HTTP/1.1", h), 400},
		{"connect bracket", head("CONNECT [::1] HTTP/1.1", h), 400},
		{"connect with body", head("CONNECT a:1 HTTP/1.1", h, "Content-Length: 1"), 400},
		{"connect chunked", head("CONNECT a:1 HTTP/1.1", h, "Transfer-Encoding: chunked"), 400},
		{"expectation", head("GET / HTTP/1.1", h, "Expect: tea"), 417},
		{"fields", head(append([]string{"GET / HTTP/1.1"}, many...)...), 431},
		{"fields unfinished", "GET / HTTP/1.1\r\n" + strings.Repeat("a:b\r\n", 102), 431},
		{"head", head("GET / HTTP/1.1", h, "X: "+strings.Repeat("x", 60<<10)), 431},
		{"head unfinished", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 60<<10), 431},
		{"target", head("GET /"+strings.Repeat("x", 60<<10)+" HTTP/1.1", h), 414},
		{"empty lines", "\r\n\r\n\r\n\r\n\r\n" + head("GET / HTTP/1.1", h), 400},
		{"options", head("GET / HTTP/1.1", h, "Connection: "+strings.Repeat("a,", 33)), 431},
		{"upgrade", head("GET / HTTP/1.1", h, "Connection: upgrade", "Upgrade: a b"), 400},
		{"truncated", "GET / HTTP/1.1\r\nHost: a\r\n", 400},
	}
	for _, tt := range tests {
		for _, step := range []int{0, 1, 7} {
			c, _ := serve(tt.in, step, ServerConfig{AcceptHTTP10: true})
			err := c.ReadRequest(new(message.Request))
			var bad *Error
			if !errors.As(err, &bad) || bad.Status != tt.status {
				t.Errorf("%s, %d bytes at once: %v, want status %d", tt.name, step, err, tt.status)
			}
			if err == nil {
				continue
			}
			if err := c.WriteHead(response(tt.status, 0), true); err != nil {
				t.Errorf("%s: answer: %v", tt.name, err)
			}
			if ok, _ := c.Next(); ok {
				t.Errorf("%s: connection is reusable after a refusal", tt.name)
			}
		}
	}
}

func TestRequestIsRead(t *testing.T) {
	type want struct {
		method, scheme, authority, path, protocol, fields string
		length                                            int64
		close, expect                                     bool
	}
	tests := []struct {
		name, in string
		want     want
	}{
		{"plain", head("GET /a?b=c HTTP/1.1", "Host: a.test:80", "X-Case: 1", "x-case:\t 2 \t", "Empty:"),
			want{method: "GET", authority: "a.test:80", path: "/a?b=c", fields: "X-Case: 1\nx-case: 2\nEmpty: \n"}},
		{"empty lines before", "\r\n\r\n" + head("get / HTTP/1.1", "Host:"), want{method: "get", path: "/"}},
		{"obs-text", head("GET /\xff HTTP/1.1", "Host: a", "X: \xe9\t."),
			want{method: "GET", authority: "a", path: "/\xff", fields: "X: \xe9\t.\n"}},
		{"absolute", head("GET HttpS://b:1/x HTTP/1.1", "Host: a"),
			want{method: "GET", scheme: "https", authority: "b:1", path: "/x"}},
		{"absolute without path", head("GET http://b HTTP/1.1", "Host: a"),
			want{method: "GET", scheme: "http", authority: "b", path: "/"}},
		{"absolute query", head("GET http://b?q HTTP/1.1", "Host: a"),
			want{method: "GET", scheme: "http", authority: "b", path: "/?q"}},
		{"absolute options", head("OPTIONS http://b HTTP/1.1", "Host: a"),
			want{method: "OPTIONS", scheme: "http", authority: "b", path: "*"}},
		{"options", head("OPTIONS * HTTP/1.1", "Host: a"), want{method: "OPTIONS", authority: "a", path: "*"}},
		{"connect", head("CONNECT [::1]:443 HTTP/1.1", "Host: a"), want{method: "CONNECT", authority: "[::1]:443"}},
		{"hop fields", head("GET / HTTP/1.1", "Host: a", "Keep-Alive: 1", "Proxy-Connection: x", "A: 1",
			"Connection: b, Cookie ,close", "b: 2", "Cookie: c", "TE: gzip, Trailers", "HTTP2-Settings: x"),
			want{method: "GET", authority: "a", path: "/", close: true, fields: "A: 1\nCookie: c\nTE: trailers\n"}},
		{"te alone", head("GET / HTTP/1.1", "Host: a", "Connection: TE", "TE: gzip"),
			want{method: "GET", authority: "a", path: "/"}},
		{"upgrade", head("GET / HTTP/1.1", "Host: a", "Connection: keep-alive, Upgrade", "Upgrade: h2c, WebSocket"),
			want{method: "GET", authority: "a", path: "/", protocol: "websocket"}},
		{"upgrade unasked", head("GET / HTTP/1.1", "Host: a", "Upgrade: websocket"),
			want{method: "GET", authority: "a", path: "/"}},
		{"upgrade with body", head("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3"),
			want{method: "GET", authority: "a", path: "/", length: 3, fields: "Content-Length: 3\n"}},
		{"lengths alike", head("PUT / HTTP/1.1", "Host: a", "Content-length: 3", "Content-Length: 3"),
			want{method: "PUT", authority: "a", path: "/", length: 3, fields: "Content-length: 3\n"}},
		{"chunked", head("PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked", "Expect: 100-Continue"),
			want{method: "PUT", authority: "a", path: "/", length: -1, expect: true, fields: "Expect: 100-Continue\n"}},
		{"1.0", head("GET / HTTP/1.0"), want{method: "GET", path: "/", close: true}},
		{"1.0 keep", head("GET / HTTP/1.0", "Connection: Keep-Alive", "Host: a"), want{method: "GET", authority: "a", path: "/"}},
	}
	for _, tt := range tests {
		for _, step := range []int{0, 1, 5} {
			c, _ := serve(tt.in, step, ServerConfig{AcceptHTTP10: true})
			r := new(message.Request)
			if err := c.ReadRequest(r); err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			got := want{r.Method, r.Scheme, r.Authority, r.Path, r.Protocol, fieldsOf(&r.Header), r.ContentLength, r.Close, r.Expect100}
			if got != tt.want {
				t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
			}
		}
	}
}

func TestLimitsAreConfigured(t *testing.T) {
	long := head("GET /"+strings.Repeat("x", 20)+" HTTP/1.1", "Host: a")
	for name, tt := range map[string]struct {
		in     string
		cfg    ServerConfig
		status int
	}{
		"low version": {head("GET / HTTP/1.0", "Host: a"), ServerConfig{}, 426},
		"target":      {long, ServerConfig{Limits: Limits{MaxTargetBytes: 20}}, 414},
		"head":        {long, ServerConfig{Limits: Limits{MaxHeadBytes: 45}}, 431},
		"line":        {long, ServerConfig{Limits: Limits{MaxHeadBytes: 25}}, 414},
		"fields":      {head("GET / HTTP/1.1", "Host: a", "a: b"), ServerConfig{Limits: Limits{MaxFields: 1}}, 431},
		"exactly":     {long, ServerConfig{Limits: Limits{MaxHeadBytes: len(long), MaxFields: 1, MaxTargetBytes: 21}}, 0},
		"lenient":     {"\nGET / HTTP/1.1\nHost: a\r\nX: y\n\n", ServerConfig{Limits: Limits{AllowBareLF: true}}, 0},
		"large":       {head("GET / HTTP/1.1", "Host: a", "X: "+strings.Repeat("x", 200<<10)), ServerConfig{Limits: Limits{MaxHeadBytes: 1 << 20}}, 0},
	} {
		for _, step := range []int{0, 1, 1000} {
			c, _ := serve(tt.in, step, tt.cfg)
			err := c.ReadRequest(new(message.Request))
			var bad *Error
			if tt.status == 0 && err != nil || tt.status != 0 && (!errors.As(err, &bad) || bad.Status != tt.status) {
				t.Errorf("%s: %v, want status %d", name, err, tt.status)
			}
			c.Release()
		}
	}
}

func TestEndBetweenRequestsIsEOF(t *testing.T) {
	for _, in := range []string{"", "\r\n", "\r\n\r"} {
		c, _ := serve(in, 1, ServerConfig{})
		if err := c.ReadRequest(new(message.Request)); err != io.EOF {
			t.Errorf("after %q: %v, want EOF", in, err)
		}
	}
	c, _ := serve("G", 1, ServerConfig{})
	if err := c.ReadRequest(new(message.Request)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("inside a head: %v, want an unexpected EOF", err)
	}
}
