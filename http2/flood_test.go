// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/message"
)

// A raw peer writes what frames it likes.
type raw struct {
	*xhttp2.Framer
	t   testing.TB
	nc  net.Conn
	enc *hpack.Encoder
	buf bytes.Buffer
}

func newRaw(t testing.TB, nc net.Conn) *raw {
	r := &raw{Framer: xhttp2.NewFramer(nc, nc), t: t, nc: nc}
	r.AllowIllegalWrites = true
	r.enc = hpack.NewEncoder(&r.buf)
	_ = nc.SetDeadline(time.Now().Add(patience))
	return r
}

// attack returns a raw client of a server of ours.
func attack(t testing.TB, handle func(*ServerStream), tune ...func(*ServerConfig)) (*raw, *served) {
	t.Helper()
	checkLeaks(t)
	cfg := ServerDefaults()
	cfg.Counters = new(Counters)
	cfg.Linger = 100 * time.Millisecond
	for _, f := range tune {
		f(&cfg)
	}
	a, b := socketPair(t)
	s := serveOn(t, b, cfg, handle)
	r := newRaw(t, a)
	_, err := io.WriteString(a, frame.Preface)
	must(t, err)
	must(t, r.WriteSettings())
	return r, s
}

// block encodes fields, given as name, value, name, value.
func (r *raw) block(fields ...string) []byte {
	r.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(r.t, r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(r.buf.Bytes())
}

func (r *raw) getBlock() []byte {
	return r.block(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "shop.example.com")
}

func (r *raw) headers(id uint32, block []byte, end bool) error {
	return r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end})
}

// wait reads frames until ok accepts one, or the connection ends (nil).
func (r *raw) wait(ok func(xhttp2.Frame) bool) xhttp2.Frame {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			r.t.Fatal("the frame did not come")
		}
		if err != nil {
			return nil
		}
		if ok(f) {
			return f
		}
	}
}

func (r *raw) waitReset(id uint32) ErrCode {
	r.t.Helper()
	f := r.wait(func(f xhttp2.Frame) bool {
		return f.Header().Type == xhttp2.FrameRSTStream && f.Header().StreamID == id
	})
	if f == nil {
		r.t.Fatal("the connection ended instead of the stream")
	}
	return ErrCode(f.(*xhttp2.RSTStreamFrame).ErrCode)
}

// A flood is repeated until the server has had enough, which it must.
func TestFloods(t *testing.T) {
	var id uint32 // of the next stream
	next := func() uint32 { id += 2; return id }
	floods := []struct {
		limit  string
		attack func(r *raw) error // one round
	}{
		{"Resets", func(r *raw) error {
			n := next()
			if err := r.headers(n, r.getBlock(), true); err != nil {
				return err
			}
			return r.WriteRSTStream(n, xhttp2.ErrCodeCancel)
		}},
		{"Resets", func(r *raw) error { // the server is made to reset
			n := next()
			if err := r.headers(n, r.getBlock(), false); err != nil {
				return err
			}
			return r.WriteWindowUpdate(n, 0)
		}},
		{"Resets", func(r *raw) error { return r.headers(next(), r.block(":method", "GET"), true) }},
		{"Resets", func(r *raw) error { // heads that are small on the wire, and answered with 431
			fields := []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "shop.example.com"}
			for range 30 {
				fields = append(fields, "x-bomb", strings.Repeat("b", 3000))
			}
			return r.headers(next(), r.block(fields...), true)
		}},
		{"Pings", func(r *raw) error { return r.WritePing(false, [8]byte{}) }},
		{"Settings", func(r *raw) error { return r.WriteSettings() }},
		{"Settings", func(r *raw) error { return r.WriteSettingsAck() }},
		{"WindowUpdates", func(r *raw) error { return r.WriteWindowUpdate(0, 1) }},
		{"Priorities", func(r *raw) error { return r.WritePriority(1001, xhttp2.PriorityParam{}) }},
		{"Unknown", func(r *raw) error { return r.WriteRawFrame(0xbe, 0, 0, nil) }},
		{"EmptyData", func(r *raw) error {
			if id == 1 {
				next()
				if err := r.headers(3, r.getBlock(), false); err != nil {
					return err
				}
			}
			return r.WriteData(3, false, nil)
		}},
		{"BlockFrames", func(r *raw) error {
			if id == 1 {
				next()
				return r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: r.getBlock()})
			}
			return r.WriteContinuation(3, false, nil)
		}},
		{"BlockBytes", func(r *raw) error {
			if id == 1 {
				next()
				return r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: r.getBlock()})
			}
			return r.WriteContinuation(3, false, r.block("x-filler", strings.Repeat("x", 10_000)))
		}},
	}
	for _, f := range floods {
		t.Run(f.limit, func(t *testing.T) {
			id = 1
			r, s := attack(t, func(s *ServerStream) { _, _ = s.Read(make([]byte, 1)) })
			go func() { _, _ = io.Copy(io.Discard, r.nc) }() // a flooder that reads
			rounds := 0
			for ; rounds < 20_000 && f.attack(r) == nil; rounds++ {
			}
			await(t, s.done)
			var ce ConnError
			if !errors.As(s.err, &ce) || ce.Code != CodeEnhanceYourCalm || ce.Limit != f.limit {
				t.Errorf("after %d rounds: %v, want limit %s", rounds, s.err, f.limit)
			}
			if n := s.cfg.Counters.Floods.Load(); n != 1 {
				t.Errorf("%d floods counted", n)
			}
		})
	}
}

// A peer that provokes answers and does not read them is cut off.
func TestRepliesToADeafPeer(t *testing.T) {
	r, s := attack(t, echo, func(c *ServerConfig) { c.Limits.Pings = 1 << 30 })
	must(t, s.nc.(*net.TCPConn).SetWriteBuffer(4096))
	for r.WritePing(false, [8]byte{}) == nil {
	}
	await(t, s.done)
	var ce ConnError
	if !errors.As(s.err, &ce) || ce.Limit != "Replies" {
		t.Errorf("Serve: %v", s.err)
	}
}

func TestGoAwayNamesTheLimit(t *testing.T) {
	r, _ := attack(t, echo)
	go func() {
		for r.WriteSettings() == nil {
		}
	}()
	f := r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameGoAway })
	if f == nil {
		t.Skip("the kernel dropped GOAWAY with the connection")
	}
	if g := f.(*xhttp2.GoAwayFrame); g.ErrCode != xhttp2.ErrCodeEnhanceYourCalm || !strings.Contains(string(g.DebugData()), "SETTINGS") {
		t.Errorf("GOAWAY %v %q", g.ErrCode, g.DebugData())
	}
}

// Header lists beyond the limits are answered, not kept, however small they are
// on the wire; the connection goes on.
func TestHeaderBombs(t *testing.T) {
	r, s := attack(t, func(s *ServerStream) { reply(s, 200, "") })
	base := []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "shop.example.com"}
	big := append(base[:8:8], "x-bomb", strings.Repeat("b", 3000))
	var bomb, crumbs []string
	bomb = append(bomb, base...)
	crumbs = append(crumbs, base...)
	for range 60 {
		bomb = append(bomb, "x-bomb", big[9]) // one byte each
	}
	for range 150 {
		crumbs = append(crumbs, "cookie", "a=b")
	}
	for i, c := range []struct {
		fields []string
		status string
	}{
		{big, "200"}, {bomb, "431"}, {crumbs, "431"}, {base, "200"},
		{append(base[:8:8], "x-long", strings.Repeat("l", 65_000)), "431"}, {base, "200"},
	} {
		id := uint32(2*i + 1)
		b := r.block(c.fields...)
		must(t, r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: b[:min(len(b), 16000)], EndHeaders: len(b) <= 16000, EndStream: true}))
		for b = b[min(len(b), 16000):]; len(b) > 0; b = b[min(len(b), 16000):] {
			must(t, r.WriteContinuation(id, len(b) <= 16000, b[:min(len(b), 16000)]))
		}
		if got := r.waitStatus(id); got != c.status {
			t.Errorf("request %d: %s, want %s", i, got, c.status)
		}
	}
	if n := s.cfg.Counters.HeadersTooLarge.Load(); n != 3 {
		t.Errorf("%d counted", n)
	}
}

func (r *raw) waitStatus(id uint32) (status string) {
	r.t.Helper()
	if r.ReadMetaHeaders == nil {
		r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	}
	f := r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameHeaders && f.Header().StreamID == id })
	if f == nil {
		r.t.Fatalf("stream %d: the connection ended", id)
	}
	return f.(*xhttp2.MetaHeadersFrame).PseudoValue("status")
}

// What resets do not free are the places of handlers that still run.
func TestResetStreamsKeepTheirPlace(t *testing.T) {
	release := make(chan struct{})
	r, s := attack(t, func(s *ServerStream) { <-release }, func(c *ServerConfig) { c.MaxStreams = 3 })
	for id := uint32(1); id < 7; id += 2 {
		must(t, r.headers(id, r.getBlock(), true))
		must(t, r.WriteRSTStream(id, xhttp2.ErrCodeCancel))
	}
	must(t, r.headers(7, r.getBlock(), true))
	if code := r.waitReset(7); code != CodeRefusedStream {
		t.Errorf("reset with %v", code)
	}
	if s.cfg.Counters.StreamsRefused.Load() != 1 || s.cfg.Counters.ResetsReceived.Load() != 3 {
		t.Error("not counted")
	}
	close(release)
	eventually(t, "places are free", func() bool { return s.ActiveStreams() == 0 })
	must(t, r.headers(9, r.getBlock(), true))
	if code := r.waitReset(9); code != CodeInternal {
		t.Errorf("reset with %v", code) // the handler ran, and did not answer
	}
}

// Handlers that write to a peer with no window wait; nothing piles up.
func TestNoWindowNoMemory(t *testing.T) {
	errs := make(chan error, 100)
	r, s := attack(t, func(s *ServerStream) {
		_ = s.WriteHead(&message.Response{Status: 200}, false)
		_, err := s.Write(make([]byte, 1<<20))
		errs <- err
	})
	must(t, r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}))
	for i := range uint32(100) {
		must(t, r.headers(2*i+1, r.getBlock(), true))
	}
	eventually(t, "handlers wait", func() bool { return s.ActiveStreams() == 100 })
	eventually(t, "the output is empty", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.out) == 0 && !s.writing && s.first == nil
	})
	r.nc.Close()
	for range 100 {
		if err := <-errs; err == nil {
			t.Error("a Write succeeded")
		}
	}
}

// A peer whose socket takes nothing is given up after WriteTimeout, and a
// stream's deadline holds meanwhile.
func TestWriteTimeout(t *testing.T) {
	errs := make(chan error, 2)
	r, s := attack(t, func(s *ServerStream) {
		_ = s.WriteHead(&message.Response{Status: 200}, false)
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 1<<16))
		}
		errs <- err
	}, func(c *ServerConfig) { c.WriteTimeout = 100 * time.Millisecond })
	must(t, r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30}))
	must(t, r.WriteWindowUpdate(0, 1<<30))
	must(t, r.headers(1, r.getBlock(), true))
	must(t, r.headers(3, r.getBlock(), true))
	for range 2 { // it never reads
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
	}
	await(t, s.done)
	if !errors.Is(s.err, os.ErrDeadlineExceeded) {
		t.Errorf("Serve: %v", s.err)
	}
}

// What a peer sends and nobody reads is bounded by its windows.
func TestUnreadDataIsBounded(t *testing.T) {
	release := make(chan struct{})
	r, s := attack(t, func(s *ServerStream) { <-release })
	const streams = 40
	payload := make([]byte, 16<<10)
	var sent int
	for i := range uint32(streams) {
		must(t, r.headers(2*i+1, r.getBlock(), false))
	}
	for i := uint32(0); sent+len(payload) <= s.cfg.ConnWindow; i++ {
		must(t, r.WriteData(2*(i%streams)+1, false, payload))
		sent += len(payload)
	}
	must(t, r.WriteData(1, false, payload)) // beyond the connection's window
	f := r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameGoAway })
	close(release)
	if f == nil || f.(*xhttp2.GoAwayFrame).ErrCode != xhttp2.ErrCodeFlowControl {
		t.Errorf("got %v", f)
	}
	await(t, s.done)
	var ce ConnError
	if !errors.As(s.err, &ce) || ce.Code != CodeFlowControl {
		t.Errorf("Serve: %v", s.err)
	}
}
