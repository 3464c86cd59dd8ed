// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// miser is an HTTP/2 endpoint that lets each stream send so many bytes, and
// takes no more. Once it has got them, it answers 413; with no window it is mute.
func miser(t *testing.T, window uint32) netip.AddrPort {
	return rawBackend(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, in)
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
		_ = fr.WriteWindowUpdate(0, 1<<30)
		got := map[uint32]int{}
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = fr.WriteSettingsAck()
				}
			case *http2.DataFrame:
				if got[f.StreamID] += len(f.Data()); got[f.StreamID] == int(window) {
					answer413(fr, f.StreamID)
				}
			}
		}
	})
}

func answer413(fr *http2.Framer, stream uint32) {
	var head bytes.Buffer
	e := hpack.NewEncoder(&head)
	_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "413"})
	_ = e.WriteField(hpack.HeaderField{Name: "content-length", Value: "3"})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true})
	_ = fr.WriteData(stream, true, []byte("big"))
}

// A counter counts what is read of it.
type counter struct {
	io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// An endpoint's answer ends the exchange, whether it reads the rest of the
// request or not.
func TestEarlyResponseOfWhoReadsNoMore(t *testing.T) {
	const length = 64 << 20
	over, sent := make(chan struct{}), &counter{Reader: io.LimitReader(endless{}, length)}
	one := rawBackend(t, func(c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		for last := int64(-1); last != sent.n.Load(); <-time.After(100 * time.Millisecond) {
			last = sent.n.Load() // until what is not read has piled up
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		<-over
	})
	t.Cleanup(func() { close(over) })
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("one", upstream.HTTP1, one), cluster("two", upstream.HTTP2, miser(t, 100_000)))
		s.routes = append(s.routes, to("/one", "one"), to("/two", "two"))
	})
	for i, path := range []string{"/one", "/two"} {
		c := r.dial()
		body := io.LimitReader(endless{}, length)
		if path == "/one" {
			body = sent
		}
		go func() {
			_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, length)
			_, _ = io.Copy(struct{ io.Writer }{c}, body)
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(path, err)
		}
		if b, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(b) != "big" || err != nil {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, b, err)
		}
		if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, "413|-|via_upstream|1|") {
			t.Errorf("%s: log %q", path, line)
		}
		r.settled()
	}
}

// The clocks count while a request is written to an endpoint that does not take
// it, and what they end is tried again.
func TestTimeoutsWhileWriting(t *testing.T) {
	limit := soon
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP2, miser(t, 0)))
		s.routes = append(s.routes,
			to("/total", "b", func(f *route.Forward) { f.Timeout = soon }),
			to("/try", "b", retry("gateway-error", 1, func(p *route.Retry) { p.PerTry = soon })),
			to("/idle", "b", retry("gateway-error", 1, func(p *route.Retry) { p.PerTryIdle = soon })),
			to("/stream", "b", func(f *route.Forward) { f.Stream = &route.StreamLimit{Max: &limit} }))
	})
	coming, end := io.Pipe()
	defer end.Close()
	go func() { _, _ = io.WriteString(end, "hello") }()
	for i, k := range []struct {
		path string
		body io.Reader
		log  string
	}{
		{"/total", strings.NewReader("hello"), "504|UT|response_timeout|1|5|"},
		{"/try", strings.NewReader("hello"), "504|URX,UT|upstream_per_try_timeout|2|5|"},
		{"/idle", strings.NewReader("hello"), "504|URX,UT|upstream_per_try_idle_timeout|2|5|"},
		{"/stream", strings.NewReader("hello"), "504|-|max_duration_timeout|1|5|"},
		{"/stream", coming, "408|-|max_duration_timeout|1|5|"},
	} {
		resp, _ := do(t, client(t, false), r.request("POST", k.path, k.body))
		if line := r.logged(i + 1)[i]; fmt.Sprint(resp.StatusCode) != k.log[:3] || !strings.HasPrefix(line, k.log) {
			t.Errorf("%s: %d, log %q, want %s", k.path, resp.StatusCode, line, k.log)
		}
	}
	r.settled()
}

// The clocks count while the client does not read, though not to the millisecond.
func TestTimeoutsWhileTheClientDoesNotRead(t *testing.T) {
	limit := 6 * soon
	for protocol, two := range map[upstream.Protocol]bool{upstream.HTTP1: false, upstream.HTTP2: true} {
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, endless{})
			})))
			s.routes = append(s.routes,
				to("/stream", "b", func(f *route.Forward) { f.Stream = &route.StreamLimit{Max: &limit} }),
				to("/total", "b", func(f *route.Forward) { f.Timeout = limit }))
		})
		for i, k := range []struct{ path, log string }{
			{"/stream", "200|-|max_duration_timeout|1|0|"},
			{"/total", "200|UT|response_timeout|1|0|"},
		} {
			resp, err := client(t, two).Do(r.request("GET", k.path, nil))
			if err != nil {
				t.Fatal(k.path, err)
			}
			if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, k.log) {
				t.Errorf("%s: log %q, want %s", k.path, line, k.log)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				t.Errorf("%s: a response that was broken off looks complete", k.path)
			}
			_ = resp.Body.Close()
		}
		r.settled()
	}
}

// A stream's duration counts while its request comes, waited for or not.
func TestDurationWhileTheRequestComes(t *testing.T) {
	limit := soon
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.routes = append(s.routes, to("/", "b", func(f *route.Forward) { f.Stream = &route.StreamLimit{Max: &limit} }))
	})
	for i, k := range []struct {
		length int
		log    string
	}{
		{10, "408|-|max_duration_timeout|0|1|"},
		{100_000, "408|-|max_duration_timeout|1|1|"},
	} {
		c := r.dial()
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nx", k.length)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 408 {
			t.Fatalf("of %d bytes: %v %v", k.length, resp, err)
		}
		if line := r.logged(i + 1)[i]; !strings.HasPrefix(line, k.log) {
			t.Errorf("of %d bytes: log %q, want %s", k.length, line, k.log)
		}
	}
	r.settled()
}

// endless is a body of no end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
