// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

func TestExchange(t *testing.T) {
	c, _ := connect(t, func(s *ServerStream) {
		r := s.Request()
		reply(s, 200, fmt.Sprintf("%s %s://%s%s cookie=%q length=%d", r.Method, r.Scheme, r.Authority, r.Path,
			r.Header.Get("cookie"), r.ContentLength), "Content-Type", "text/plain", "Connection", "close")
	})
	for range 3 { // the dynamic tables fill
		req := get("/a?b=c")
		req.Header.Add("Cookie", "a=1")
		req.Header.Add("COOKIE", "b=2")
		req.Header.Add("X-Thing", "thing")
		s := open(t, c, req, true)
		resp := readHead(t, s)
		if resp.Status != 200 || resp.Version != message.HTTP2 || resp.Header.Get("content-type") != "text/plain" || resp.Header.Has("connection") {
			t.Errorf("head %+v", resp)
		}
		if got, want := readAll(t, s), `GET http://shop.example.com/a?b=c cookie="a=1; b=2" length=0`; got != want {
			t.Errorf("body %s, want %s", got, want)
		}
	}
	eventually(t, "streams end", func() bool { return c.ActiveStreams() == 0 })
}

func TestEchoWithTrailers(t *testing.T) {
	c, _ := connect(t, echo)
	s := open(t, c, post("/"), false)
	must(t, s.Flush())
	if readHead(t, s).Status != 200 {
		t.Error("status")
	}
	for _, word := range []string{"ping", "pong"} { // both ways while neither has ended
		_, err := s.Write([]byte(word))
		must(t, err)
		must(t, s.Flush())
		got := make([]byte, len(word))
		if _, err := io.ReadFull(s, got); err != nil || string(got) != word {
			t.Fatalf("echo %q, %v", got, err)
		}
	}
	var trailer message.Header
	trailer.Add("Grpc-Status", "0")
	must(t, s.Finish(&trailer))
	if rest := readAll(t, s); rest != "" {
		t.Errorf("rest %q", rest)
	}
	if tr := s.Trailer(); tr == nil || tr.Get("grpc-status") != "0" {
		t.Errorf("trailer %v", tr)
	}
}

// Bodies larger than all windows pass both ways, on many streams at once.
func TestLargeBodiesThroughSmallWindows(t *testing.T) {
	c, _ := connect(t, echo, func(sc *ServerConfig, cc *ClientConfig) {
		sc.StreamWindow, sc.MaxStreamWindow, sc.ConnWindow = 1000, 5000, 70000
		cc.StreamWindow, cc.MaxStreamWindow, cc.ConnWindow = 3000, 3000, 65535
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			body := make([]byte, 200_000+i)
			random := rand.NewChaCha8([32]byte{byte(i)})
			_, _ = random.Read(body)
			s, err := c.Open()
			if err != nil {
				t.Error(err)
				return
			}
			deadline(s)
			if err := s.WriteHead(post("/"), false); err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				for rest := body; len(rest) > 0; {
					n := min(len(rest), 1+rand.IntN(40_000))
					if _, err := s.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				if err := s.Finish(nil); err != nil {
					t.Error(err)
				}
			})
			var resp message.Response
			if err := s.ReadHead(&resp); err != nil {
				t.Error(err)
				return
			}
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, body) {
				t.Errorf("stream %d: %d bytes, %v; want %d", i, len(got), err, len(body))
			}
		})
	}
	wg.Wait()
}

func TestInterimHeads(t *testing.T) {
	c, _ := connect(t, func(s *ServerStream) {
		if s.Request().Expect100 {
			_ = s.WriteHead(&message.Response{Status: 100}, false)
		}
		body, _ := io.ReadAll(s)
		hints := message.Response{Status: 103}
		hints.Header.Add("link", "</a.css>")
		_ = s.WriteHead(&hints, false)
		reply(s, 201, string(body))
	})
	req := post("/")
	req.Header.Add("expect", "100-continue")
	s := open(t, c, req, false)
	must(t, s.Flush())
	if got := readHead(t, s).Status; got != 100 {
		t.Errorf("first head %d", got)
	}
	_, err := s.Write([]byte("body"))
	must(t, err)
	must(t, s.Finish(nil))
	if got := readHead(t, s); got.Status != 103 || got.Header.Get("link") != "</a.css>" {
		t.Errorf("second head %+v", got)
	}
	if got := readHead(t, s).Status; got != 201 {
		t.Errorf("final head %d", got)
	}
	if err := s.ReadHead(new(message.Response)); err == nil {
		t.Error("a head after the final one")
	}
	if got := readAll(t, s); got != "body" {
		t.Errorf("body %q", got)
	}
}

func TestLengths(t *testing.T) {
	c, _ := connect(t, func(s *ServerStream) {
		r := s.Request()
		switch r.Path {
		case "/head":
			reply(s, 200, "", "content-length", "5")
		case "/short":
			reply(s, 200, "abc", "content-length", "5")
		case "/exact":
			if r.ContentLength != 3 {
				reply(s, 500, "")
				return
			}
			_, err := io.ReadAll(s)
			if err != nil {
				return
			}
			reply(s, 200, "abcde", "content-length", "5")
		}
	})
	head := get("/head")
	head.Method = "HEAD"
	s := open(t, c, head, true)
	if resp := readHead(t, s); resp.ContentLength != 0 || resp.Header.Get("content-length") != "5" || readAll(t, s) != "" {
		t.Errorf("HEAD: %+v", resp)
	}
	s = open(t, c, get("/short"), true)
	readHead(t, s)
	if _, err := io.ReadAll(s); streamCode(t, err).Code != CodeProtocol {
		t.Errorf("a short body: %v", err)
	}
	for _, body := range []string{"abc", "ab", "abcd"} {
		req := post("/exact")
		req.Header.Add("content-length", "3")
		s = open(t, c, req, false)
		_, _ = s.Write([]byte(body))
		_ = s.Finish(nil)
		var resp message.Response
		err := s.ReadHead(&resp)
		switch {
		case body == "abc" && (err != nil || resp.ContentLength != 5 || readAll(t, s) != "abcde"):
			t.Errorf("exact: %+v, %v", resp, err)
		case body != "abc" && (err == nil || streamCode(t, err).Code != CodeProtocol || !streamCode(t, err).Remote):
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestResets(t *testing.T) {
	reached := make(chan error, 10)
	c, _ := connect(t, func(s *ServerStream) {
		switch s.Request().Path {
		case "/abort":
			s.Abort(uint32(CodeInternal))
		case "/forget":
		case "/half":
			_ = s.WriteHead(&message.Response{Status: 200}, false)
			_, _ = s.Write([]byte("part"))
			_ = s.Flush()
			s.Abort(uint32(CodeCancel))
		case "/wait":
			gone := make(chan struct{})
			s.OnReset(func() { close(gone) })
			_, err := s.Read(make([]byte, 1))
			<-gone
			reached <- err
		}
	})
	for path, want := range map[string]ErrCode{"/abort": CodeInternal, "/forget": CodeInternal} {
		s := open(t, c, get(path), true)
		if se := streamCode(t, s.ReadHead(new(message.Response))); se.Code != want || !se.Remote || Unprocessed(se) {
			t.Errorf("%s: %v", path, se)
		}
	}
	s := open(t, c, get("/half"), true)
	readHead(t, s)
	if b, err := io.ReadAll(s); string(b) != "part" || streamCode(t, err).Code != CodeCancel {
		t.Errorf("half: %q, %v", b, err)
	}
	s = open(t, c, post("/wait"), false)
	must(t, s.Flush())
	s.Abort(uint32(CodeCancel))
	if _, err := s.Read(make([]byte, 1)); streamCode(t, err).Remote {
		t.Errorf("after our abort: %v", err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("Write after our abort")
	}
	if se := streamCode(t, <-reached); se.Code != CodeCancel || !se.Remote {
		t.Errorf("the server saw %v", se)
	}
	eventually(t, "streams end", func() bool { return c.ActiveStreams() == 0 })
}

// A server that answers before it has the whole request says that it needs no more.
func TestEarlyResponse(t *testing.T) {
	c, _ := connect(t, func(s *ServerStream) { reply(s, 413, "too much") })
	s := open(t, c, post("/"), false)
	var err error
	for err == nil {
		_, err = s.Write(make([]byte, 10_000))
	}
	if se := streamCode(t, err); se.Code != CodeNo || !se.Remote {
		t.Errorf("Write: %v", err)
	}
	if readHead(t, s).Status != 413 || readAll(t, s) != "too much" {
		t.Error("the response was lost")
	}
}

func TestDeadlines(t *testing.T) {
	block, written := make(chan struct{}), make(chan error, 1)
	c, _ := connect(t, func(s *ServerStream) {
		if s.Request().Path == "/write" {
			_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			_ = s.WriteHead(&message.Response{Status: 200}, false)
			var err error
			for err == nil { // nobody reads: the window is used up
				_, err = s.Write(make([]byte, 5000))
			}
			written <- err
		}
		<-block
	})
	t.Cleanup(func() { close(block) })
	s := open(t, c, get("/"), true)
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := s.ReadHead(new(message.Response)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadHead: %v", err)
	}
	_ = s.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	s.Abort(uint32(CodeCancel))
	s = open(t, c, get("/write"), true)
	readHead(t, s)
	if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("server Write: %v", err)
	}
	w := open(t, c, post("/read"), false)
	_ = w.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	var err error
	for err == nil {
		_, err = w.Write(make([]byte, 5000))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("client Write: %v", err)
	}
}

func TestConnectTunnels(t *testing.T) {
	c, _ := connect(t, func(s *ServerStream) {
		r := s.Request()
		if r.Method != "CONNECT" {
			t.Errorf("method %s", r.Method)
		}
		status := 200
		if r.Protocol == "websocket" {
			status = 101
		}
		_ = s.WriteHead(&message.Response{Status: status, Protocol: r.Protocol}, false)
		_ = s.Flush()
		tun := s.Tunnel()
		b, err := io.ReadAll(tun)
		if err != nil {
			t.Error(err)
		}
		_, _ = tun.Write([]byte(strings.ToUpper(string(b))))
		_ = tun.Close()
	})
	plain := &message.Request{Method: "CONNECT", Authority: "10.0.0.1:80"}
	ws := get("/chat")
	ws.Protocol = "websocket"
	ws.Header.Add("Sec-WebSocket-Key", "x")
	for _, req := range []*message.Request{plain, ws} {
		s := open(t, c, req, false)
		must(t, s.Flush())
		if resp := readHead(t, s); resp.Status != 200 || resp.Protocol != req.Protocol {
			t.Errorf("head %+v", resp)
		}
		tun := s.Tunnel()
		_, err := tun.Write([]byte("hello"))
		must(t, err)
		must(t, tun.CloseWrite())
		if got := readAll(t, tun); got != "HELLO" {
			t.Errorf("tunnel gave %q", got)
		}
		must(t, tun.Close())
	}
}

func TestExtendedConnectNeedsThePeersConsent(t *testing.T) {
	c, _ := connect(t, echo, func(sc *ServerConfig, _ *ClientConfig) { sc.ExtendedConnect = false })
	s, err := c.Open()
	must(t, err)
	req := get("/chat")
	req.Protocol = "websocket"
	if err := s.WriteHead(req, false); err == nil || !strings.Contains(err.Error(), "SETTINGS_ENABLE_CONNECT_PROTOCOL") {
		t.Errorf("WriteHead: %v", err)
	}
	s.Abort(0)
	if c.ActiveStreams() != 0 || c.ExtendedConnect() {
		t.Error("the reservation was not given back")
	}
}
