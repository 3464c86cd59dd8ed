// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A script is a connection whose peer has said everything already; at most step
// bytes of it are read at once.
type script struct {
	in     []byte
	step   int
	out    bytes.Buffer
	writes int
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if s.step > 0 {
		n = min(n, s.step)
	}
	n = copy(p[:n], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)    { s.writes++; return s.out.Write(p) }
func (s *script) Close() error                   { s.closed = true; return nil }
func (*script) LocalAddr() net.Addr              { return nil }
func (*script) RemoteAddr() net.Addr             { return nil }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

func serve(in string, step int, cfg ServerConfig) (*ServerConn, *script) {
	s := &script{in: []byte(in), step: step}
	return NewServerConn(s, cfg), s
}

func dial(in string, step int, cfg ClientConfig) (*ClientConn, *script) {
	s := &script{in: []byte(in), step: step}
	return NewClientConn(s, cfg), s
}

func mustRead(t *testing.T, c *ServerConn) *message.Request {
	t.Helper()
	req := new(message.Request)
	if err := c.ReadRequest(req); err != nil {
		t.Fatalf("ReadRequest: %v", err)
	}
	return req
}

func mustReadAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("body: %v after %q", err, b)
	}
	return string(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func response(status int, length int64, fields ...string) *message.Response {
	r := &message.Response{Status: status, ContentLength: length}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func request(method, path string, length int64, fields ...string) *message.Request {
	r := &message.Request{Method: method, Path: path, Authority: "a.test", ContentLength: length}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// head joins lines with CRLF and adds the empty line.
func head(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

func fieldsOf(h *message.Header) string {
	var b strings.Builder
	for _, f := range h.Fields() {
		b.WriteString(f.Name + ": " + f.Value + "\n")
	}
	return b.String()
}
