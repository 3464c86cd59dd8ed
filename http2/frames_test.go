// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meltemi/meltemi/message"
)

// What is legal, though few peers do it, works.
func TestUnusualFrames(t *testing.T) {
	bodies := make(chan string, 1)
	r, s := attack(t, func(s *ServerStream) {
		b, err := io.ReadAll(s)
		if err != nil {
			b = []byte(err.Error())
		}
		bodies <- string(b)
		reply(s, 200, "", "x-same", "value")
	})
	must(t, r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0}, xhttp2.Setting{ID: 0x99, Val: 7},
		xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 1 << 20}))
	prio := xhttp2.PriorityParam{StreamDep: 7, Weight: 3, Exclusive: true}
	must(t, r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.getBlock(), EndHeaders: true, PadLength: 200, Priority: prio}))
	must(t, r.WritePriority(1, prio))
	for range 400 { // padding uses the windows up, and is given back
		must(t, r.WriteDataPadded(1, false, []byte("x"), make([]byte, 255)))
	}
	must(t, r.WriteDataPadded(1, false, nil, make([]byte, 9)))
	must(t, r.WriteRawFrame(0x42, 0xff, 1, []byte("of no meaning")))
	must(t, r.WriteDataPadded(1, true, []byte("y"), nil))
	if got, want := <-bodies, strings.Repeat("x", 400)+"y"; got != want {
		t.Errorf("body of %d bytes, want %d", len(got), len(want))
	}
	if got := r.waitStatus(1); got != "200" {
		t.Errorf("status %s", got)
	}
	must(t, r.headers(3, r.getBlock(), true)) // its own table is unused now
	if <-bodies; r.waitStatus(3) != "200" {
		t.Error("second status")
	}
	must(t, r.WriteGoAway(0, xhttp2.ErrCodeNo, []byte(strings.Repeat("bye ", 200))))
	must(t, r.WritePing(false, [8]byte{1}))
	if r.wait(func(f xhttp2.Frame) bool { p, ok := f.(*xhttp2.PingFrame); return ok && p.IsAck() }) == nil {
		t.Error("no answer after GOAWAY")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in.left+s.in.owed != s.in.size {
		t.Errorf("window %d + %d of %d", s.in.left, s.in.owed, s.in.size)
	}
}

// What is broken costs the stream or the connection, with the code that RFC 9113 wants.
func TestBrokenFrames(t *testing.T) {
	begin := func(r *raw) { must(t, r.headers(1, r.getBlock(), false)) }
	streams := map[string]struct {
		send func(r *raw) error
		code ErrCode
	}{
		"trailers without end": {func(r *raw) error { return r.headers(1, r.block("x", "y"), false) }, CodeProtocol},
		"pseudo trailer":       {func(r *raw) error { return r.headers(1, r.block(":path", "/"), true) }, CodeProtocol},
		"too large trailers":   {func(r *raw) error { return r.headers(1, r.block(strings.Fields(strings.Repeat("x y ", 101))...), true) }, CodeEnhanceYourCalm},
		"priority on itself":   {func(r *raw) error { return r.WritePriority(1, xhttp2.PriorityParam{StreamDep: 1}) }, CodeProtocol},
		"short priority":       {func(r *raw) error { return r.WriteRawFrame(xhttp2.FramePriority, 0, 1, []byte("1234")) }, CodeFrameSize},
		"beyond the window":    {func(r *raw) error { return writeMuch(r, 70_000) }, CodeFlowControl},
		"overflowing window":   {func(r *raw) error { return r.WriteWindowUpdate(1, 1<<31-1) }, CodeFlowControl},
		"data after the end":   {func(r *raw) error { return errors.Join(r.WriteData(1, true, nil), r.WriteData(1, true, nil)) }, CodeStreamClosed},
		"headers after the end": {func(r *raw) error {
			return errors.Join(r.WriteData(1, true, nil), r.headers(1, r.block("x", "y"), true))
		}, CodeStreamClosed},
	}
	for name, c := range streams {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			r, _ := attack(t, func(s *ServerStream) { <-release })
			defer close(release)
			begin(r)
			must(t, c.send(r))
			if code := r.waitReset(1); code != c.code {
				t.Errorf("reset with %v, want %v", code, c.code)
			}
		})
	}
	conns := map[string]struct {
		send func(r *raw) error
		code ErrCode
	}{
		"padding":       {func(r *raw) error { return r.WriteRawFrame(xhttp2.FrameData, xhttp2.FlagDataPadded, 1, []byte{9, 1}) }, CodeProtocol},
		"no pad length": {func(r *raw) error { return r.WriteRawFrame(xhttp2.FrameData, xhttp2.FlagDataPadded, 1, nil) }, CodeFrameSize},
		"short HEADERS": {func(r *raw) error {
			return r.WriteRawFrame(xhttp2.FrameHeaders, xhttp2.FlagHeadersPriority, 3, []byte("123"))
		}, CodeFrameSize},
		"HPACK": {func(r *raw) error { return r.headers(3, []byte{0xff, 0xff, 0xff}, true) }, CodeCompression},
		"other stream": {func(r *raw) error {
			return errors.Join(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3}), r.WriteContinuation(5, true, nil))
		}, CodeProtocol},
		"too many settings": {func(r *raw) error { return r.WriteSettings(make([]xhttp2.Setting, 65)...) }, CodeEnhanceYourCalm},
		"window of a stream": {func(r *raw) error {
			return r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 31})
		}, CodeFlowControl},
		"frame size":        {func(r *raw) error { return r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 1}) }, CodeProtocol},
		"push":              {func(r *raw) error { return r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: 2}) }, CodeProtocol},
		"connection window": {func(r *raw) error { return r.WriteWindowUpdate(0, 1<<31-1) }, CodeFlowControl},
		"short GOAWAY":      {func(r *raw) error { return r.WriteRawFrame(xhttp2.FrameGoAway, 0, 0, []byte("123")) }, CodeFrameSize},
	}
	for name, c := range conns {
		t.Run(name, func(t *testing.T) {
			r, _ := attack(t, func(s *ServerStream) { _, _ = s.Read(make([]byte, 1)) })
			begin(r)
			must(t, c.send(r))
			f := r.wait(func(f xhttp2.Frame) bool { return f.Header().Type == xhttp2.FrameGoAway })
			if f == nil || ErrCode(f.(*xhttp2.GoAwayFrame).ErrCode) != c.code {
				t.Errorf("got %v, want %v", f, c.code)
			}
			r.nc.Close()
		})
	}
}

func writeMuch(r *raw, n int) error {
	for n > 0 {
		k := min(n, 16<<10)
		if err := r.WriteData(1, false, make([]byte, k)); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// While the socket takes nothing, deadlines of those who wait for it hold.
func TestDeadlineWhileTheSocketIsStuck(t *testing.T) {
	stuck, errs := make(chan struct{}), make(chan error, 1)
	r, s := attack(t, func(s *ServerStream) {
		_ = s.WriteHead(&message.Response{Status: 200}, false)
		if s.Request().Path != "/late" {
			for { // until the test ends
				if _, err := s.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}
		<-stuck
		_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 1<<16))
		}
		errs <- err
	})
	must(t, r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30}))
	must(t, r.WriteWindowUpdate(0, 1<<30))
	must(t, r.headers(1, r.getBlock(), true))
	must(t, r.headers(3, r.block(":method", "GET", ":scheme", "http", ":path", "/late", ":authority", "a"), true))
	window, since := 0, time.Now()
	eventually(t, "the socket is stuck", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.writing || s.sendWin != window {
			window, since = s.sendWin, time.Now()
		}
		return time.Since(since) > 50*time.Millisecond
	})
	close(stuck)
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) || s.err != nil {
		t.Errorf("Write: %v", err)
	}
	s.Close()
}

// The table of errors that operators read.
func TestErrorsReadWell(t *testing.T) {
	conn := ConnError{Code: CodeEnhanceYourCalm, Remote: true, Reason: "too many pings"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{StreamError{Stream: 3, Code: CodeCancel, Remote: true}, "http2: peer reset stream 3: CANCEL"},
		{StreamError{Stream: 3, Code: CodeProtocol, Reason: "host comes twice"}, "http2: we reset stream 3: PROTOCOL_ERROR: host comes twice"},
		{StreamError{Stream: 3, Code: CodeCancel, Cause: conn}, "http2: stream 3 ended with its connection: http2: peer closed the connection: ENHANCE_YOUR_CALM: too many pings"},
		{flooding("Pings", "9 PING frames"), "http2: we closed the connection: ENHANCE_YOUR_CALM: 9 PING frames (limit Pings)"},
		{ConnError{Code: 99, Cause: io.EOF}, "http2: we closed the connection: code 0x63: EOF"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
