// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// An origin is a server that answers every request with 200 and its path, in
// whatever version the client speaks. It counts connections.
type origin struct {
	l    net.Listener
	tls  *tls.Config
	wg   sync.WaitGroup
	head func(*message.Response) // changes what is answered

	noUpgrade bool // HTTP/2 without extended CONNECT

	mu       sync.Mutex
	accepted int
	open     map[net.Conn]*http2.Server // nil: HTTP/1
	states   []tls.ConnectionState
}

func newOrigin(t testing.TB, change func(*origin)) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{l: l, open: make(map[net.Conn]*http2.Server)}
	if change != nil {
		change(o)
	}
	o.wg.Go(func() {
		for {
			c, err := o.l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.accepted++
			o.open[c] = nil
			o.mu.Unlock()
			o.wg.Go(func() { o.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); o.hangUp(); o.wg.Wait() })
	return o
}

func (o *origin) addr() netip.AddrPort { return netip.MustParseAddrPort(o.l.Addr().String()) }

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// hangUp closes every connection.
func (o *origin) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c, s := range o.open {
		if s != nil {
			_ = s.Close()
		}
		_ = c.Close()
	}
}

// goAway lets every HTTP/2 connection say GOAWAY.
func (o *origin) goAway() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.open {
		if s != nil {
			s.Drain()
		}
	}
}

// A peeked connection gives the bytes that were looked at again.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func (o *origin) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		o.mu.Lock()
		delete(o.open, c)
		o.mu.Unlock()
	}()
	inner := c
	if o.tls != nil {
		s := tls.Server(c, o.tls)
		if s.Handshake() != nil {
			return
		}
		o.mu.Lock()
		o.states = append(o.states, s.ConnectionState())
		o.mu.Unlock()
		inner = s
	}
	r := bufio.NewReader(inner)
	first, err := r.Peek(3)
	if err != nil {
		return
	}
	inner = peeked{inner, r}
	if string(first) == "PRI" {
		cfg := http2.ServerDefaults()
		cfg.ExtendedConnect = !o.noUpgrade
		s := http2.NewServer(inner, cfg, func(st *http2.ServerStream) {
			_, _ = io.Copy(io.Discard, st)
			resp := message.Response{Status: 200, ContentLength: int64(len(st.Request().Path))}
			if st.WriteHead(&resp, false) == nil {
				_, _ = io.WriteString(st, st.Request().Path)
				_ = st.Finish(nil)
			}
		})
		o.mu.Lock()
		o.open[c] = s
		o.mu.Unlock()
		_ = s.Serve(nil)
		return
	}
	o.serveHTTP1(http1.NewServerConn(inner, http1.ServerConfig{}))
}

func (o *origin) serveHTTP1(s *http1.ServerConn) {
	var req message.Request
	resp := message.Response{Status: 200}
	var body []byte
	for s.ReadRequest(&req) == nil {
		resp.Status, resp.ContentLength = 200, int64(len(req.Path))
		if o.head != nil {
			o.head(&resp)
		}
		_, err := io.Copy(io.Discard, s)
		if err != nil || s.WriteHead(&resp, false) != nil {
			return
		}
		body = append(body[:0], req.Path...)
		if _, err = s.Write(body); err != nil || s.Finish(nil) != nil {
			return
		}
		if ok, _ := s.Next(); !ok {
			return
		}
	}
}

// toOrigin makes a cluster of one endpoint. change may be nil.
func toOrigin(t testing.TB, addr netip.AddrPort, change func(*Spec)) (*Cluster, *Host) {
	t.Helper()
	spec := &Spec{
		Name: "c", Discovery: Static, Breakers: unlimited(), ConnectTimeout: 10 * time.Second,
		Endpoints: &Assignment{Localities: []Locality{{Endpoints: []Endpoint{{Addr: addr, Weight: 1}}}}},
	}
	if change != nil {
		change(spec)
	}
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	s.Put(spec)
	c := s.Ref("c").Load()
	h, f := c.Pick(&Request{})
	if f != nil {
		t.Fatal(f)
	}
	return c, h
}

func mustOpen(t testing.TB, c *Cluster, h *Host, r *Request) *Lease {
	t.Helper()
	l, f := c.Open(h, r)
	if f != nil {
		t.Fatalf("Open: %v", f)
	}
	return l
}

// exchange sends one request over l and returns the body of the answer.
func exchange(l *Lease, path string) (string, error) {
	req := &message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Path: path}
	if err := l.WriteHead(req, true); err != nil {
		return "", err
	}
	var resp message.Response
	if err := l.ReadHead(&resp); err != nil {
		return "", err
	}
	b, err := io.ReadAll(l)
	return string(b), err
}

// roundTrip opens, exchanges, and gives back.
func roundTrip(t testing.TB, c *Cluster, h *Host, r *Request) {
	t.Helper()
	l := mustOpen(t, c, h, r)
	body, err := exchange(l, "/x")
	if err != nil || body != "/x" {
		t.Errorf("%q, %v", body, err)
	}
	l.Done(Outcome{Status: 200, Reusable: true})
}

func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// result is what Open returned in another goroutine.
type result struct {
	l *Lease
	f *fault.Fault
}

func openLater(c *Cluster, h *Host, r *Request) <-chan result {
	ch := make(chan result, 1)
	go func() {
		l, f := c.Open(h, r)
		ch <- result{l, f}
	}()
	return ch
}
