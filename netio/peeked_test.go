// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/netio/memnet"
)

func TestPeekDoesNotConsume(t *testing.T) {
	a, b := memnet.Pair()
	p := NewPeeked(b)
	_, _ = a.Write([]byte("GET / HTTP/1.1\r\n"))
	got, err := p.Peek(3)
	if err != nil || !bytes.HasPrefix(got, []byte("GET")) {
		t.Fatalf("peek = %q, %v", got, err)
	}
	if _, ok := p.Raw(); ok {
		t.Error("raw while bytes are held")
	}
	_ = a.CloseWrite()
	all, err := io.ReadAll(p)
	if err != nil || string(all) != "GET / HTTP/1.1\r\n" {
		t.Fatalf("read %q, %v", all, err)
	}
	if c, ok := p.Raw(); !ok || c != net.Conn(b) {
		t.Error("not unwrapped when drained")
	}
}

func TestPeekShortAndTooLong(t *testing.T) {
	a, b := memnet.Pair()
	p := NewPeeked(b)
	_, _ = a.Write([]byte("ab"))
	_ = a.CloseWrite()
	if got, err := p.Peek(3); string(got) != "ab" || err != io.EOF {
		t.Errorf("peek = %q, %v", got, err)
	}
	if got, err := io.ReadAll(p); string(got) != "ab" || err != nil {
		t.Errorf("read = %q, %v", got, err)
	}
	if _, err := p.Peek(PeekLimit + 1); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestFillStopsAtLimit(t *testing.T) {
	a, b := memnet.Pair()
	p := NewPeeked(b)
	go func() { _, _ = a.Write(make([]byte, 2*PeekLimit)); _ = a.CloseWrite() }()
	var err error
	for err == nil {
		_, err = p.Fill()
	}
	if !errors.Is(err, io.ErrShortBuffer) || len(p.Buffered()) != PeekLimit {
		t.Fatalf("held %d, %v", len(p.Buffered()), err)
	}
	if n, err := io.Copy(io.Discard, p); n != 2*PeekLimit || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestSniff(t *testing.T) {
	line := func(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 }
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pair()
		p := NewPeeked(b)
		start := time.Now()
		if got, err := p.Sniff(time.Second, line); len(got) != 0 || err != nil {
			t.Errorf("silent peer: %q, %v", got, err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("waited %s for a server-first protocol", d)
		}
		if _, ok := p.Raw(); !ok {
			t.Error("holds a buffer for a silent peer")
		}
		go func() {
			_, _ = a.Write([]byte("half"))
			time.Sleep(time.Millisecond) // fake time
			_, _ = a.Write([]byte(" line\n"))
		}()
		if got, err := p.Sniff(time.Second, line); string(got) != "half line\n" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got, err := p.Sniff(time.Second, line); string(got) != "half line\n" || err != nil {
			t.Errorf("again: %q, %v", got, err)
		}
		_ = a.CloseWrite()
		never := func([]byte) bool { return false }
		if got, err := p.Sniff(time.Second, never); string(got) != "half line\n" || err != nil {
			t.Errorf("at the end: %q, %v", got, err)
		}
		if got, err := io.ReadAll(p); string(got) != "half line\n" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		a.Reset()
		if _, err := p.Sniff(time.Second, never); err == nil {
			t.Error("a reset is an error")
		}
	})
}

func TestPeekedCarriesTLS(t *testing.T) {
	a, b := memnet.Pair()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "x", InsecureSkipVerify: true}).Handshake() }()
	p := NewPeeked(b)
	if hello, err := p.Peek(5); err != nil || hello[0] != 22 {
		t.Fatalf("peek = %v, %v", hello, err)
	}
	var name string
	srv := tls.Server(p, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errors.New("seen enough")
	}})
	_ = srv.Handshake()
	_ = a.Close()
	if name != "x" {
		t.Errorf("server name %q", name)
	}
}

func TestPeekedIOCopy(t *testing.T) {
	l := listen(t, anyPort4)
	c1, s1 := tcpPair(t, l)
	c2, s2 := tcpPair(t, l)
	payload := strings.Repeat("0123456789abcdef", 20_000)
	go func() { _, _ = io.WriteString(c1, payload); _ = c1.CloseWrite() }()
	p := NewPeeked(s1)
	if _, err := p.Peek(10); err != nil {
		t.Fatal(err)
	}
	go func() {
		if n, err := io.Copy(NewPeeked(c2), p); n != int64(len(payload)) || err != nil {
			t.Errorf("copied %d, %v", n, err)
		}
		_ = c2.CloseWrite()
	}()
	if got, err := io.ReadAll(s2); string(got) != payload || err != nil {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}
