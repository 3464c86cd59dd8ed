// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/message"
)

// A scripted connection gives what a peer said, then EOF, and swallows the rest.
type scripted struct {
	in   *bytes.Reader
	mu   sync.Mutex
	sent int
	shut bool
}

func (c *scripted) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return 0, net.ErrClosed
	}
	return c.in.Read(p)
}

func (c *scripted) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return 0, net.ErrClosed
	}
	c.sent += len(p)
	return len(p), nil
}

func (c *scripted) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	return nil
}

func (c *scripted) LocalAddr() net.Addr              { return nil }
func (c *scripted) RemoteAddr() net.Addr             { return nil }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// frames turns any bytes into frames that are mostly well-formed, so that
// fuzzing gets past the first check.
func frames(script []byte, server bool) []byte {
	var b bytes.Buffer
	fr := xhttp2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	var hb bytes.Buffer
	enc := hpack.NewEncoder(&hb)
	for len(script) >= 4 {
		op, id, n, v := script[0], uint32(script[1]%16), int(script[2]), script[3]
		script = script[4:]
		switch op % 12 {
		case 0, 1, 2:
			hb.Reset()
			fields := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/" + strings.Repeat("p", n)}, {"x-n", string(rune(v))}}
			if server {
				fields = [][2]string{{":status", [...]string{"200", "103", "204"}[n%3]}, {"x-n", strings.Repeat("n", n)}}
			}
			if v >= 0xf0 {
				fields = fields[len(fields)-1:] // a trailer section
			}
			for _, f := range fields {
				_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			cut := hb.Len()
			if op%12 == 2 {
				cut = min(n, cut)
			}
			_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: hb.Bytes()[:cut], EndStream: v&1 == 0, EndHeaders: cut == hb.Len(), PadLength: v & 2})
			if cut < hb.Len() {
				_ = fr.WriteContinuation(id, v&4 == 0, hb.Bytes()[cut:])
			}
		case 3, 4:
			_ = fr.WriteDataPadded(id, v&1 == 0, make([]byte, n*int(v)), make([]byte, v&7))
		case 5:
			_ = fr.WriteRSTStream(id, xhttp2.ErrCode(v))
		case 6:
			_ = fr.WriteWindowUpdate(id, uint32(n)<<(v&31))
		case 7:
			_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingID(n & 15), Val: uint32(v) << (id * 2)})
		case 8:
			_ = fr.WritePing(v&1 == 0, [8]byte{v})
		case 9:
			_ = fr.WriteGoAway(id, xhttp2.ErrCode(v), nil)
		case 10:
			_ = fr.WriteRawFrame(xhttp2.FrameType(v), xhttp2.Flags(n), id, script[:min(len(script), n)])
		case 11:
			_ = fr.WritePriority(id, xhttp2.PriorityParam{StreamDep: uint32(n)})
		}
	}
	return b.Bytes()
}

// Whatever a client says, the server neither panics, nor hangs, nor answers with
// more than it was asked for.
func FuzzServer(f *testing.F) {
	f.Add([]byte("\x00\x01\x05\x00\x03\x01\x10\x04\x05\x01\x00\x00"), false)
	f.Add([]byte("\x02\x01\x05\x05\x06\x00\xff\xff\x07\x00\x04\xff"), false)
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), true)
	f.Fuzz(func(t *testing.T, script []byte, verbatim bool) {
		in := []byte(frame.Preface)
		if verbatim {
			in = append(in, script...)
		} else {
			in = append(frame.AppendHead(in, 0, frame.Settings, 0, 0), frames(script, false)...)
		}
		nc := &scripted{in: bytes.NewReader(in)}
		cfg := ServerDefaults()
		cfg.MaxStreams = 4
		s := NewServer(nc, cfg, func(s *ServerStream) {
			if s.Request().Path == "/p" {
				s.Abort(uint32(CodeCancel))
				return
			}
			echo(s)
		})
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(nil) }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("the server hangs:\n%s", ourGoroutines())
		}
		if limit := 64<<10 + 4*len(in); nc.sent > limit {
			t.Errorf("%d bytes were answered to %d", nc.sent, len(in))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.streams) != 0 || s.active != 0 || s.first != nil {
			t.Errorf("left over: %d streams, %d active", len(s.streams), s.active)
		}
	})
}

// Whatever a server says, the client neither panics nor hangs.
func FuzzClient(f *testing.F) {
	f.Add([]byte("\x00\x01\x05\x00\x03\x01\x10\x04\x05\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		in := append(frame.AppendHead(nil, 0, frame.Settings, 0, 0), frames(script, true)...)
		held := &held{scripted: scripted{in: bytes.NewReader(in)}, begin: make(chan struct{})}
		c, err := NewClientConn(held, ClientDefaults())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			s, err := c.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.WriteHead(post("/"), false); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _, _ = s.Write(make([]byte, 70_000)); _ = s.Finish(nil) })
			wg.Go(func() {
				var resp message.Response
				for s.ReadHead(&resp) == nil && resp.Status < 200 {
				}
				_, _ = io.Copy(io.Discard, s)
				s.Abort(uint32(CodeCancel))
			})
		}
		close(held.begin)
		await(t, c.Done())
		wg.Wait()
		if c.ActiveStreams() != 0 {
			t.Errorf("%d streams left", c.ActiveStreams())
		}
	})
}

// A held connection gives nothing before begin.
type held struct {
	scripted
	begin chan struct{}
}

func (h *held) Read(p []byte) (int, error) {
	<-h.begin
	return h.scripted.Read(p)
}
