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

var browserGet = head("GET /api/v1/products/42?fields=name,price HTTP/1.1",
	"Host: shop.example.com",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
	"Accept: application/json, text/plain, */*",
	"Accept-Encoding: gzip, deflate, br",
	"Accept-Language: en-GB,en;q=0.9",
	"X-Request-Id: 5e8f0c8c-9e7b-4a2f-8a3b-1c2d3e4f5a6b",
	"X-Forwarded-Proto: https",
	"X-B3-TraceId: 463ac35c9f6413ad48485a3953bb6124",
	"X-B3-SpanId: a2fb4a1d1a96d312",
	"Cookie: session=0123456789abcdef0123456789abcdef")

// A loop is a connection that gives the same bytes for ever, one message a
// read, and swallows what is written.
type loop struct {
	script
	msg string
}

func (l *loop) Read(p []byte) (int, error)  { return copy(p, l.msg), nil }
func (l *loop) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkReadRequest(b *testing.B) {
	c := NewServerConn(&loop{msg: browserGet}, ServerConfig{})
	var req message.Request
	b.ReportAllocs()
	b.SetBytes(int64(len(browserGet)))
	for b.Loop() {
		if err := c.ReadRequest(&req); err != nil {
			b.Fatal(err)
		}
		c.busy = false
	}
}

func BenchmarkWriteRequest(b *testing.B) {
	s := NewServerConn(&loop{msg: browserGet}, ServerConfig{})
	var req message.Request
	if err := s.ReadRequest(&req); err != nil {
		b.Fatal(err)
	}
	c := NewClientConn(&loop{}, ClientConfig{})
	b.ReportAllocs()
	for b.Loop() {
		if err := c.WriteHead(&req, true); err != nil {
			b.Fatal(err)
		}
	}
}

// serveEcho answers every request on conn with a body of size bytes.
func serveEcho(conn net.Conn, size int, chunked bool) {
	c := NewServerConn(conn, ServerConfig{})
	defer c.Release()
	defer func() { _ = c.Close() }()
	body, scratch := make([]byte, size), make([]byte, 32<<10)
	var req message.Request
	resp := response(200, int64(size), "Content-Type: text/plain", "Date: Sat, 21 Nov 2026 07:28:00 GMT", "Server: test")
	if chunked {
		resp.ContentLength = message.LengthUnknown
	}
	for c.ReadRequest(&req) == nil {
		var err error
		for err == nil {
			_, err = c.Read(scratch)
		}
		if err != io.EOF || c.WriteHead(resp, false) != nil {
			return
		}
		if _, err = c.Write(body); err != nil || c.Finish(nil) != nil {
			return
		}
		if ok, _ := c.Next(); !ok {
			return
		}
	}
}

// An exchanger does one exchange at a time as a client.
type exchanger struct {
	c    *ClientConn
	req  *message.Request
	resp message.Response
	buf  []byte
	got  int
}

func (e *exchanger) do() error {
	if err := e.c.WriteHead(e.req, true); err != nil {
		return err
	}
	if err := e.c.ReadHead(&e.resp); err != nil {
		return err
	}
	for e.got = 0; ; {
		n, err := e.c.Read(e.buf)
		e.got += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if !e.c.Reusable() || !e.c.Alive() {
		return errors.New("not reusable")
	}
	e.c.Idle()
	return nil
}

func newExchanger(t testing.TB, conn net.Conn) *exchanger {
	t.Helper()
	s := NewServerConn(&loop{msg: browserGet}, ServerConfig{})
	req := new(message.Request)
	if err := s.ReadRequest(req); err != nil {
		t.Fatal(err)
	}
	return &exchanger{c: NewClientConn(conn, ClientConfig{}), req: req, buf: make([]byte, 32<<10)}
}

func TestExchangeDoesNotAllocate(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		server, client := tcpPair(t)
		done := make(chan struct{})
		go func() { serveEcho(server, 1024, chunked); close(done) }()
		e := newExchanger(t, client)
		n := testing.AllocsPerRun(200, func() {
			if err := e.do(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 && !poolsForget || e.got != 1024 {
			t.Errorf("chunked %v: %v allocations per exchange at both ends, want 0; %d bytes", chunked, n, e.got)
		}
		must(t, client.Close())
		<-done
	}
}

func TestUploadDoesNotAllocate(t *testing.T) {
	in := head("POST / HTTP/1.1", "Host: a", "Connection: close, x-hop", "X-Hop: 1", "Transfer-Encoding: chunked", "TE: trailers") +
		"400\r\n" + strings.Repeat("x", 1024) + "\r\n0\r\nGrpc-Status: 0\r\n\r\n"
	conn := &loop{msg: in}
	c := NewServerConn(conn, ServerConfig{})
	var req message.Request
	scratch := make([]byte, 4096)
	n := testing.AllocsPerRun(100, func() {
		if err := c.ReadRequest(&req); err != nil {
			t.Fatal(err)
		}
		for err := error(nil); err != io.EOF; {
			if _, err = c.Read(scratch); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		if c.Trailer().Get("grpc-status") != "0" {
			t.Fatal("no trailer")
		}
		c.busy = false
	})
	if n != 0 && !poolsForget {
		t.Errorf("%v allocations, want 0", n)
	}
}

func benchmarkExchange(b *testing.B, server, client net.Conn, size int, chunked bool) {
	done := make(chan struct{})
	go func() { serveEcho(server, size, chunked); close(done) }()
	e := newExchanger(b, client)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.do(); err != nil {
			b.Fatal(err)
		}
	}
	_ = client.Close()
	<-done
}

func BenchmarkExchangePipe(b *testing.B) {
	server, client := net.Pipe()
	benchmarkExchange(b, server, client, 1024, false)
}

func BenchmarkExchangeTCP(b *testing.B) {
	server, client := tcpPair(b)
	benchmarkExchange(b, server, client, 1024, false)
}

func BenchmarkExchangeTCPChunked64K(b *testing.B) {
	server, client := tcpPair(b)
	b.SetBytes(64 << 10)
	benchmarkExchange(b, server, client, 64<<10, true)
}

func TestDeadlinesAreTold(t *testing.T) {
	server, _ := tcpPair(t)
	c := NewServerConn(server, ServerConfig{})
	must(t, c.SetReadDeadline(time.Unix(1, 0)))
	err := c.ReadRequest(new(message.Request))
	if !isTimeout(err) {
		t.Errorf("%v, want a timeout", err)
	}
	must(t, c.WriteHead(response(408, 0), true))
}
