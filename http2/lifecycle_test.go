// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/message"
)

// A drained server finishes what is in work, takes what was on its way, and leaves.
func TestServerDrain(t *testing.T) {
	release := make(chan struct{})
	c, s := connect(t, func(s *ServerStream) {
		<-release
		reply(s, 200, "done")
	})
	one := open(t, c, get("/1"), true)
	eventually(t, "the request arrives", func() bool { return s.ActiveStreams() == 1 })
	s.Drain()
	s.Drain()
	eventually(t, "the client knows", c.Drained)
	if _, err := c.Open(); !errors.Is(err, ErrNoStream) || c.Available() != 0 {
		t.Errorf("Open: %v", err)
	}
	close(release)
	if readHead(t, one).Status != 200 || readAll(t, one) != "done" {
		t.Error("the request in work was lost")
	}
	await(t, c.Done())
	await(t, s.done)
	if s.err != nil {
		t.Errorf("Serve: %v", s.err)
	}
}

func TestClientDrain(t *testing.T) {
	c, s := connect(t, echo)
	one := open(t, c, post("/"), false)
	c.Drain()
	if _, err := c.Open(); !errors.Is(err, ErrNoStream) {
		t.Errorf("Open: %v", err)
	}
	_, _ = one.Write([]byte("still works"))
	must(t, one.Finish(nil))
	if readHead(t, one); readAll(t, one) != "still works" {
		t.Error("the request in work was lost")
	}
	await(t, c.Done())
	await(t, s.done)
	if s.err != nil {
		t.Errorf("Serve: %v", s.err)
	}
}

// A rawServer answers a client of ours with what frames it likes.
func rawServer(t testing.TB, tune ...func(*ClientConfig)) (*ClientConn, *raw) {
	t.Helper()
	checkLeaks(t)
	cfg := ClientDefaults()
	cfg.Linger = 100 * time.Millisecond
	for _, f := range tune {
		f(&cfg)
	}
	a, b := socketPair(t)
	c, err := NewClientConn(a, cfg)
	must(t, err)
	t.Cleanup(func() { c.Close(); await(t, c.Done()) })
	r := newRaw(t, b)
	preface := make([]byte, len(frame.Preface))
	_, err = io.ReadFull(b, preface)
	must(t, err)
	if string(preface) != frame.Preface {
		t.Fatalf("preface %q", preface)
	}
	return c, r
}

func (r *raw) waitHeaders(id uint32) {
	r.t.Helper()
	if r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameHeaders && f.Header().StreamID == id }) == nil {
		r.t.Fatal("the connection ended")
	}
}

// Streams that GOAWAY says were ignored, and refused ones, may be retried; others not.
func TestClientGoAway(t *testing.T) {
	changed := make(chan struct{}, 10)
	c, r := rawServer(t, func(c *ClientConfig) { c.Changed = func() { changed <- struct{}{} } })
	must(t, r.WriteSettings())
	<-changed
	one, two, three := open(t, c, get("/1"), true), open(t, c, get("/2"), true), open(t, c, get("/3"), true)
	reserved, err := c.Open()
	must(t, err)
	r.waitHeaders(5)
	must(t, r.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream))
	must(t, r.WriteGoAway(3, xhttp2.ErrCodeEnhanceYourCalm, []byte("too many pings")))
	<-changed
	var resp message.Response
	if err := one.ReadHead(&resp); !Unprocessed(err) || streamCode(t, err).Code != CodeRefusedStream {
		t.Errorf("refused: %v", err)
	}
	err = three.ReadHead(&resp)
	var ce ConnError
	if !Unprocessed(err) || !errors.As(err, &ce) || ce.Code != CodeEnhanceYourCalm || ce.LastStream != 3 || !strings.Contains(err.Error(), "too many pings") {
		t.Errorf("ignored: %v", err)
	}
	if err := reserved.WriteHead(get("/4"), true); !Unprocessed(err) {
		t.Errorf("not begun: %v", err)
	}
	must(t, r.headers(3, r.block(":status", "204"), true))
	if readHead(t, two).Status != 204 || readAll(t, two) != "" {
		t.Error("stream 3 was lost")
	}
	await(t, c.Done())
	if !c.Drained() || c.Err() == nil {
		t.Errorf("drained %v, err %v", c.Drained(), c.Err())
	}
}

// A connection that breaks before an answer proves nothing.
func TestBrokenConnectionIsNotUnprocessed(t *testing.T) {
	c, r := rawServer(t)
	must(t, r.WriteSettings())
	s := open(t, c, get("/"), true)
	r.waitHeaders(1)
	r.nc.Close()
	err := s.ReadHead(new(message.Response))
	var ce ConnError
	if Unprocessed(err) || !errors.As(err, &ce) || !ce.Remote {
		t.Errorf("ReadHead: %v", err)
	}
	await(t, c.Done())
	if _, err := c.Open(); !errors.As(err, &ce) {
		t.Errorf("Open: %v", err)
	}
}

func TestClientKeepsToThePeersLimit(t *testing.T) {
	c, r := rawServer(t)
	if c.Available() != beforeSettings {
		t.Errorf("before the settings: %d", c.Available())
	}
	must(t, r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2}))
	<-c.Ready()
	one := open(t, c, get("/1"), true)
	open(t, c, get("/2"), true)
	if _, err := c.Open(); !errors.Is(err, ErrNoStream) || c.ActiveStreams() != 2 {
		t.Errorf("Open: %v, active %d", err, c.ActiveStreams())
	}
	r.waitHeaders(3)
	must(t, r.headers(1, r.block(":status", "200"), true))
	readHead(t, one)
	if c.Available() != 1 {
		t.Errorf("available %d", c.Available())
	}
}

// What a server must not send ends the stream, or the connection.
func TestRudeServers(t *testing.T) {
	blocks := map[string][]string{
		"no status":        {"server", "x"},
		"two statuses":     {":status", "200", ":status", "200"},
		"101":              {":status", "101"},
		"status of a word": {":status", "2x0"},
		"request field":    {":status", "200", ":path", "/"},
		"upper case":       {":status", "200", "Server", "x"},
		"connection":       {":status", "200", "connection", "close"},
		"control byte":     {":status", "200", "server", "a\nb"},
	}
	for name, fields := range blocks {
		t.Run(name, func(t *testing.T) {
			c, r := rawServer(t)
			must(t, r.WriteSettings())
			s := open(t, c, get("/"), true)
			r.waitHeaders(1)
			must(t, r.headers(1, r.block(fields...), true))
			if se := streamCode(t, s.ReadHead(new(message.Response))); se.Code != CodeProtocol || se.Remote {
				t.Errorf("ReadHead: %v", se)
			}
			if code := r.waitReset(1); code != CodeProtocol {
				t.Errorf("the server was told %v", code)
			}
		})
	}
	frames := map[string]func(r *raw) error{
		"push": func(r *raw) error {
			return r.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true, BlockFragment: r.getBlock()})
		},
		"enable push":     func(r *raw) error { return r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: 1}) },
		"unopened stream": func(r *raw) error { return r.headers(3, r.block(":status", "200"), true) },
		"even stream":     func(r *raw) error { return r.headers(2, r.block(":status", "200"), true) },
	}
	for name, send := range frames {
		t.Run(name, func(t *testing.T) {
			c, r := rawServer(t)
			must(t, r.WriteSettings())
			open(t, c, get("/"), true)
			r.waitHeaders(1)
			must(t, send(r))
			f := r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameGoAway })
			if f == nil || f.(*xhttp2.GoAwayFrame).ErrCode != xhttp2.ErrCodeProtocol {
				t.Errorf("got %v", f)
			}
			r.nc.Close()
			await(t, c.Done())
			var ce ConnError
			if !errors.As(c.Err(), &ce) || ce.Remote || ce.Code != CodeProtocol {
				t.Errorf("Err: %v", c.Err())
			}
		})
	}
}

func TestTooManyInterimHeads(t *testing.T) {
	c, r := rawServer(t)
	must(t, r.WriteSettings())
	s := open(t, c, get("/"), true)
	r.waitHeaders(1)
	for range c.cfg.Limits.Interim + 1 {
		must(t, r.headers(1, r.block(":status", "103"), false))
	}
	if code := r.waitReset(1); code != CodeEnhanceYourCalm {
		t.Errorf("reset with %v", code)
	}
	s.Abort(0)
}

// Requests that RFC 9113 section 8 calls malformed are reset.
func TestMalformedRequests(t *testing.T) {
	ok := []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}
	cases := map[string][]string{
		"space in path":      {":method", "GET", ":scheme", "http", ":path", "/a b"},
		"no slash":           {":method", "GET", ":scheme", "http", ":path", "a"},
		"empty path":         {":method", "GET", ":scheme", "http", ":path", ""},
		"star":               {":method", "GET", ":scheme", "http", ":path", "*"},
		"method with space":  {":method", "GET /", ":scheme", "http", ":path", "/"},
		"userinfo":           {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@a"},
		"slash in authority": {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"},
		"other host":         append(ok[:8:8], "host", "b"),
		"two hosts":          {":method", "GET", ":scheme", "http", ":path", "/", "host", "a", "host", "b"},
		"te":                 append(ok[:8:8], "te", "gzip"),
		"transfer-encoding":  append(ok[:8:8], "transfer-encoding", "chunked"),
		"two lengths":        append(ok[:8:8], "content-length", "0", "content-length", "1"),
		"signed length":      append(ok[:8:8], "content-length", "+0"),
		"long length":        append(ok[:8:8], "content-length", "18446744073709551616"),
		"blank before":       append(ok[:8:8], "x", " a"),
		"blank after":        append(ok[:8:8], "x", "a\t"),
		"nul":                append(ok[:8:8], "x", "a\x00b"),
		"colon in name":      append(ok[:8:8], "x:y", "a"),
		"protocol":           append(ok[:8:8], ":protocol", "websocket"),
		"connect with path":  {":method", "CONNECT", ":path", "/", ":authority", "a:1"},
		"bare connect":       {":method", "CONNECT"},
		"connect no scheme":  {":method", "CONNECT", ":protocol", "websocket", ":path", "/", ":authority", "a"},
	}
	r, s := attack(t, func(s *ServerStream) { t.Errorf("a malformed request was handled: %+v", s.Request()) })
	id := uint32(1)
	for name, fields := range cases {
		must(t, r.headers(id, r.block(fields...), true))
		if code := r.waitReset(id); code != CodeProtocol {
			t.Errorf("%s: reset with %v", name, code)
		}
		id += 2
	}
	if n := s.cfg.Counters.Malformed.Load(); n != uint64(len(cases)) {
		t.Errorf("%d counted, want %d", n, len(cases))
	}
}

func TestPrefaces(t *testing.T) {
	for name, bytes := range map[string]string{
		"HTTP/1":    "GET / HTTP/1.1\r\n\r\n",
		"TLS":       "\x16\x03\x01",
		"truncated": frame.Preface[:10],
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			a, b := socketPair(t)
			cfg := ServerDefaults()
			cfg.PrefaceTimeout = 50 * time.Millisecond
			s := serveOn(t, b, cfg, echo)
			_, err := io.WriteString(a, bytes)
			must(t, err)
			go func() { _, _ = io.Copy(io.Discard, a); a.Close() }()
			await(t, s.done)
			var ce ConnError
			if !errors.As(s.err, &ce) || ce.Code != CodeProtocol {
				t.Errorf("Serve: %v", s.err)
			}
		})
	}
}

// What was read while sniffing comes first.
func TestPreRead(t *testing.T) {
	for _, n := range []int{1, 23, 24, 25, 60} {
		checkLeaks(t)
		a, b := socketPair(t)
		c, err := NewClientConn(a, ClientDefaults())
		must(t, err)
		one := open(t, c, get("/"), true)
		pre := make([]byte, n)
		_, err = io.ReadFull(b, pre)
		must(t, err)
		s := NewServer(b, ServerDefaults(), func(s *ServerStream) { reply(s, 200, "hello") })
		done := make(chan error, 1)
		go func() { done <- s.Serve(pre) }()
		if readHead(t, one); readAll(t, one) != "hello" {
			t.Errorf("%d bytes read before", n)
		}
		c.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		await(t, c.Done())
	}
}

// A silent peer is asked, and given up if it does not answer.
func TestKeepAlive(t *testing.T) {
	cfg := ClientDefaults()
	cfg.KeepAlive, cfg.KeepAliveTimeout = 10*time.Second, 3*time.Second
	t.Run("alive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, err := NewClientConn(a, cfg)
			must(t, err)
			done := make(chan error)
			go func() { done <- NewServer(b, ServerDefaults(), echo).Serve(nil) }()
			time.Sleep(time.Hour)
			if c.Err() != nil {
				t.Fatalf("a live peer was given up: %v", c.Err())
			}
			c.Close()
			<-done
		})
	})
	t.Run("dead", func(t *testing.T) {
		cfg.Counters = new(Counters)
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, err := NewClientConn(a, cfg)
			must(t, err)
			go func() { _, _ = io.Copy(io.Discard, b) }()
			begun := time.Now()
			<-c.Done()
			if took := time.Since(begun); took != 13*time.Second {
				t.Errorf("took %v", took)
			}
			if !strings.Contains(c.Err().Error(), "keep-alive") || cfg.Counters.KeepAliveLost.Load() != 1 {
				t.Errorf("Err: %v", c.Err())
			}
		})
	})
}

func TestCloseFailsStreams(t *testing.T) {
	c, s := connect(t, func(s *ServerStream) { _, _ = s.Read(make([]byte, 1)) })
	one := open(t, c, post("/"), false)
	must(t, one.Flush())
	eventually(t, "the request arrives", func() bool { return s.ActiveStreams() == 1 })
	s.Close()
	await(t, s.done)
	if err := one.ReadHead(new(message.Response)); Unprocessed(err) || streamCode(t, err).Cause == nil {
		t.Errorf("ReadHead: %v", err)
	}
	await(t, c.Done())
	if s.LastActive().IsZero() || c.LastActive().IsZero() {
		t.Error("LastActive")
	}
}
