// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// TestFloods attacks a gateway while others are served through it. What it keeps
// is bounded by what it promises for a connection, whatever the attacker sends.
func TestFloods(t *testing.T) {
	m := Start(t)
	app := newApp(t, "web")
	m.Service("web", 80, "http")
	m.Join(&Workload{Name: "web", Labels: map[string]string{"app": "web"}, Account: "web", App: app.Addr})
	gate := freeporttest.Addr(t)
	m.Write("gateway.yaml", fmt.Sprintf(edge, gate.Port()))
	m.Gateway(map[string]string{"istio": "ingressgateway"})
	c := NewCaller(t, gate)
	Eventually(t, "the gateway serves", func() error {
		a, err := c.Get("/")
		if err == nil {
			_, err = OK(a)
		}
		return err
	})
	for _, f := range []struct {
		name string
		run  func(*testing.T, *flood)
	}{
		{"idle", idle}, {"slowloris", slowloris}, {"slow bodies", slowBodies}, {"header bomb", headerBomb},
		{"endless continuation", endlessContinuation}, {"header compression bomb", compressionBomb},
		{"rapid reset", rapidReset}, {"unread pings", unreadPings}, {"slow readers", slowReaders},
	} {
		t.Run(f.name, func(t *testing.T) {
			load := StartLoad(t, 2, 2*time.Millisecond, gate, "/", OK)
			load.More(10)
			f.run(t, &flood{t: t, gate: gate, before: kept()})
			load.More(50)
			total := load.Stop()
			if total.Failed > 0 || total.Ended > 0 {
				t.Errorf("others suffered: %v", total)
			}
		})
	}
}

const edge = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: %d, name: http, protocol: HTTP}, bind: 127.0.0.1, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
`

// A flood is an attack under way.
type flood struct {
	t      *testing.T
	gate   netip.AddrPort
	before uint64
}

// kept is the memory in use: heap and stacks, garbage apart.
func kept() uint64 {
	var s runtime.MemStats
	for range 2 { // what pools hold survives one collection
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

// holds fails unless what memory has grown by settles at each for n, and 4 MiB for
// the test itself and those who are served meanwhile.
func (f *flood) holds(n int, each uint64) {
	f.t.Helper()
	const slack = 4 << 20
	var grown uint64
	Eventually(f.t, "memory is bounded", func() error {
		grown = max(kept(), f.before) - f.before
		if grown > uint64(n)*each+slack {
			return fmt.Errorf("%d KiB more in use, want at most %d bytes for each of %d", grown>>10, each, n)
		}
		return nil
	})
	f.t.Logf("%d KiB more in use, %d bytes for each of %d", grown>>10, grown/uint64(n), n)
}

func (f *flood) dial() net.Conn {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.gate.String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// each runs an attack on n connections and waits for all.
func (f *flood) each(n int, attack func(net.Conn) error) {
	f.t.Helper()
	var wg sync.WaitGroup
	for range n {
		conn := f.dial()
		wg.Go(func() {
			if err := attack(conn); err != nil {
				f.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// idle connections that never say a word.
func idle(_ *testing.T, f *flood) {
	f.each(1500, func(net.Conn) error { return nil })
	f.holds(1500, 24<<10)
}

// slowloris: heads that come byte by byte and never end.
func slowloris(_ *testing.T, f *flood) {
	const n = 300
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = f.dial()
	}
	for _, piece := range []string{"GET / HTTP/1.1\r\n", "Host: w", "eb\r\n", "x", "-a", ": ", strings.Repeat("b", 30<<10), "b", "b", "b"} {
		for _, c := range conns {
			if _, err := io.WriteString(c, piece); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	f.holds(n, 160<<10) // a head may have 60 KiB; buffers grow by doubling
}

// slowBodies: requests whose bodies never come.
func slowBodies(_ *testing.T, f *flood) {
	f.each(300, func(c net.Conn) error {
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n0")
		return err
	})
	f.holds(300, 160<<10) // the way to the service is open, too
}

// headerBomb: a head without end, as one field and as many.
func headerBomb(_ *testing.T, f *flood) {
	long, many := bytes.Repeat([]byte("b"), 64<<10), bytes.Repeat([]byte("a: b\r\n"), 10<<10)
	for _, bomb := range [][]byte{long, many} {
		f.each(20, func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nx: y\r\nz: "); err != nil {
				return err
			}
			for range 1024 {
				if _, err := c.Write(bomb); err != nil {
					return nil // refused, as is right
				}
			}
			return errors.New("a head of 64 MiB was read to its end")
		})
	}
	f.holds(40, 64<<10)
}

// A peer speaks HTTP/2 as badly as it likes.
type peer struct {
	*http2.Framer
	conn  net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newPeer(c net.Conn) (*peer, error) {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	p := &peer{Framer: http2.NewFramer(c, c), conn: c}
	p.enc = hpack.NewEncoder(&p.block)
	return p, p.WriteSettings()
}

// head encodes a request's head.
func (p *peer) head(path string, more ...string) []byte {
	p.block.Reset()
	fields := append([]string{":method", "GET", ":scheme", "http", ":authority", "web", ":path", path}, more...)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.block.Bytes()
}

// drain reads what comes until the connection ends, and says why it did.
func (p *peer) drain() (last http2.ErrCode, resets int) {
	for {
		fr, err := p.ReadFrame()
		if err != nil {
			return last, resets
		}
		switch fr := fr.(type) {
		case *http2.GoAwayFrame:
			last = fr.ErrCode
		case *http2.RSTStreamFrame:
			resets++
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = p.WriteSettingsAck()
			}
		}
	}
}

func endlessContinuation(_ *testing.T, f *flood) {
	f.each(10, func(c net.Conn) error {
		p, err := newPeer(c)
		if err != nil {
			return err
		}
		if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.head("/")}); err != nil {
			return err
		}
		piece := bytes.Repeat([]byte{0, 1, 'a', 1, 'b'}, 3000) // literals without indexing
		for range 4096 {
			if p.WriteContinuation(1, false, piece) != nil {
				return nil
			}
		}
		return errors.New("a header block of 60 MiB was read to its end")
	})
	f.holds(10, 512<<10)
}

// compressionBomb: a block of 8 KiB that says one field of 3 KiB eight thousand times.
func compressionBomb(t *testing.T, f *flood) {
	f.each(10, func(c net.Conn) error {
		p, err := newPeer(c)
		if err != nil {
			return err
		}
		head := bytes.Clone(p.head("/", "x-bomb", strings.Repeat("b", 3<<10)))
		head = append(head, bytes.Repeat([]byte{0x80 | 62}, 8<<10)...)
		if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true, EndStream: true}); err != nil {
			return err
		}
		for {
			fr, err := p.ReadFrame()
			if err != nil {
				return nil // closed: as good as refused
			}
			if h, ok := fr.(*http2.HeadersFrame); ok {
				fields, err := hpack.NewDecoder(4096, nil).DecodeFull(h.HeaderBlockFragment())
				if err != nil || fields[0].Value != "431" {
					t.Errorf("answered %v %v, want 431", fields, err)
				}
				return nil
			}
			switch fr.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				return nil
			}
		}
	})
	f.holds(10, 512<<10)
}

// rapidReset: streams that are cancelled as soon as they are opened.
func rapidReset(t *testing.T, f *flood) {
	f.each(4, func(c net.Conn) error {
		p, err := newPeer(c)
		if err != nil {
			return err
		}
		ended := make(chan http2.ErrCode, 1)
		go func() {
			code, _ := p.drain()
			ended <- code
		}()
		for id := uint32(1); id < 100_000; id += 2 {
			err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.head("/"), EndHeaders: true, EndStream: true})
			if err == nil {
				err = p.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			if err != nil {
				if code := <-ended; code != http2.ErrCodeEnhanceYourCalm && code != 0 {
					t.Errorf("ended with %v", code)
				}
				return nil
			}
		}
		_ = c.Close()
		<-ended
		return errors.New("50,000 streams were opened and reset, and nobody minded")
	})
	f.holds(4*1024, 64<<10) // connections to the service for as many streams as were open at once
}

// unreadPings: questions by somebody who does not read the answers.
func unreadPings(_ *testing.T, f *flood) {
	f.each(10, func(c net.Conn) error {
		p, err := newPeer(c)
		if err != nil {
			return err
		}
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		for range 2_000_000 {
			if p.WritePing(false, [8]byte{}) != nil {
				return nil // ended, or nobody reads any more: both bound what is kept
			}
		}
		return errors.New("two million pings were taken in")
	})
	f.holds(10, 1<<20)
}

// slowReaders ask for much and read nothing.
func slowReaders(_ *testing.T, f *flood) {
	const conns, streams = 5, 20
	f.each(conns, func(c net.Conn) error {
		p, err := newPeer(c)
		if err != nil {
			return err
		}
		if err := p.WriteWindowUpdate(0, 1<<30); err != nil {
			return err
		}
		for i := range streams {
			if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: p.head("/big"), EndHeaders: true, EndStream: true}); err != nil {
				return err
			}
		}
		return nil
	})
	f.each(conns, func(c net.Conn) error {
		_, err := io.WriteString(c, "GET /big HTTP/1.1\r\nHost: web\r\n\r\n")
		return err
	})
	f.holds(conns*(streams+1), 256<<10) // in two proxies, and the service
}
