// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

// patience bounds what must happen sooner or later.
const patience = 20 * time.Second

// eventually waits until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen within %v", what, patience)
		}
	}
}

// checkLeaks fails the test if goroutines of this package are left when it ends.
func checkLeaks(t testing.TB) {
	t.Cleanup(func() {
		var left string
		for end := time.Now().Add(patience); time.Now().Before(end); runtime.Gosched() {
			if left = ourGoroutines(); left == "" {
				return
			}
		}
		t.Errorf("goroutines left:\n%s", left)
	})
}

func ourGoroutines() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var ours []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "http2.(*conn)") || strings.Contains(g, "http2.(*Server)") || strings.Contains(g, "http2.(*ClientConn)") {
			ours = append(ours, g)
		}
	}
	return strings.Join(ours, "\n\n")
}

// socketPair returns the two ends of a TCP connection.
func socketPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// served is a server at work.
type served struct {
	*Server
	done chan struct{}
	err  error // once done is closed
}

func serveOn(t testing.TB, nc net.Conn, cfg ServerConfig, handle func(*ServerStream)) *served {
	t.Helper()
	s := &served{Server: NewServer(nc, cfg, handle), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = s.Serve(nil)
	}()
	t.Cleanup(func() {
		s.Close()
		await(t, s.done)
	})
	return s
}

func await(t testing.TB, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Error("waited too long")
	}
}

// connect returns a client and a server of ours that talk.
func connect(t testing.TB, handle func(*ServerStream), tune ...func(*ServerConfig, *ClientConfig)) (*ClientConn, *served) {
	t.Helper()
	checkLeaks(t)
	sc, cc := ServerDefaults(), ClientDefaults()
	for _, f := range tune {
		f(&sc, &cc)
	}
	a, b := socketPair(t)
	s := serveOn(t, b, sc, handle)
	c, err := NewClientConn(a, cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		await(t, c.Done())
	})
	return c, s
}

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "shop.example.com", Path: path}
}

func post(path string) *message.Request {
	r := get(path)
	r.Method = "POST"
	r.ContentLength = message.LengthUnknown
	return r
}

func open(t testing.TB, c *ClientConn, req *message.Request, end bool) *ClientStream {
	t.Helper()
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	deadline(s)
	if err := s.WriteHead(req, end); err != nil {
		t.Fatal(err)
	}
	return s
}

type deadlined interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// deadline keeps a broken test from hanging.
func deadline(s deadlined) {
	at := time.Now().Add(patience)
	_ = s.SetReadDeadline(at)
	_ = s.SetWriteDeadline(at)
}

func readHead(t testing.TB, s *ClientStream) *message.Response {
	t.Helper()
	var resp message.Response
	if err := s.ReadHead(&resp); err != nil {
		t.Fatalf("ReadHead: %v", err)
	}
	return &resp
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading a body: %v", err)
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reply(s *ServerStream, status int, body string, header ...string) {
	resp := message.Response{Status: status}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Add(header[i], header[i+1])
	}
	if s.WriteHead(&resp, body == "") != nil || body == "" {
		return
	}
	if _, err := s.Write([]byte(body)); err == nil {
		_ = s.Finish(nil)
	}
}

// echo answers with the request's body and its trailers.
func echo(s *ServerStream) {
	resp := message.Response{Status: 200}
	if s.WriteHead(&resp, false) != nil || s.Flush() != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			if _, err := s.Write(buf[:n]); err != nil {
				return
			}
			if s.Flush() != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = s.Finish(s.Trailer())
			return
		}
		if err != nil {
			s.Abort(uint32(CodeCancel))
			return
		}
	}
}

func streamCode(t testing.TB, err error) StreamError {
	t.Helper()
	var se StreamError
	if !errors.As(err, &se) {
		t.Fatalf("error %v (%T), want a StreamError", err, err)
	}
	return se
}
