// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// moody is a backend that answers, refuses, breaks off, dawdles or streams, as
// the dice say.
func moody(w http.ResponseWriter, r *http.Request) {
	switch rand.IntN(8) {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		http.Error(w, "no", 503)
		return
	case 2:
		_, _ = io.CopyN(w, r.Body, 100)
		return
	case 3:
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, strings.Repeat("x", rand.IntN(100_000)))
		panic(http.ErrAbortHandler)
	case 4:
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
		}
	}
	_, _ = io.Copy(w, r.Body)
}

// Whatever upstream and client do, nothing is lost: no goroutine, no place in a
// circuit breaker, no exchange without its line in the log, no wrong body.
func TestHammer(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		r := newRig(t, func(s *setup) {
			for _, p := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
				s.specs = append(s.specs, cluster(fmt.Sprint("b", p), p, backend(t, moody), backend(t, moody)))
				s.routes = append(s.routes, to(fmt.Sprint("/", p), fmt.Sprint("b", p), retry("5xx,reset,refused-stream", 2), func(f *route.Forward) {
					f.Timeout = 15 * time.Millisecond
					f.Retry.PerTry = 7 * time.Millisecond
				}))
			}
		})
		exchanges := 400
		if testing.Short() {
			exchanges = 50
		}
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() { hammer(t, r, client(t, worker%2 == 1), exchanges) })
		}
		wg.Wait()
		r.settled()
	})
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func hammer(t *testing.T, r *rig, c *http.Client, n int) {
	for range n {
		body := bytes.Repeat([]byte{'a' + byte(rand.IntN(26))}, []int{0, 10, 5_000, 50_000, 300_000}[rand.IntN(5)])
		var in io.Reader = bytes.NewReader(body)
		if rand.IntN(2) == 0 {
			in = struct{ io.Reader }{in} // of unknown length
		}
		ctx, cancel := context.WithCancel(t.Context())
		if rand.IntN(5) == 0 {
			time.AfterFunc(time.Duration(rand.IntN(15))*time.Millisecond, cancel)
		}
		req := r.request("POST", fmt.Sprint("/", rand.IntN(2)), in).WithContext(ctx)
		resp, err := c.Do(req)
		if err == nil {
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == 200 && !bytes.HasPrefix(body, got) && bytes.Trim(got, "x") != nil && len(bytes.Trim(got, "x")) > 0 {
				t.Errorf("sent %d bytes, got %d others", len(body), len(got))
			}
		}
		cancel()
	}
}

// settled waits until nothing is under way any more.
func (r *rig) settled() {
	r.t.Helper()
	eventually(r.t, "exchanges end", func() bool { return active(r) == 0 })
	for _, st := range r.set.Snapshot() {
		stats := r.set.Ref(st.Spec.Name).Stats()
		eventually(r.t, "leases end", func() bool {
			return stats.RequestActive.Load() == 0 && stats.RequestPending.Load() == 0 && stats.RetryActive.Load() <= 0
		})
	}
}

// bomb panics at one of its calls.
type bomb struct {
	filter.Pass
	at atomic.Int32
}

func (b *bomb) OnRequest(*filter.Exchange) *fault.Fault { b.tick(1); return nil }
func (b *bomb) OnResponse(*filter.Exchange)             { b.tick(2) }
func (b *bomb) OnEnd(*filter.Exchange)                  { b.tick(3) }
func (b *bomb) tick(n int32) {
	if b.at.Load() == n {
		panic("defect of a filter")
	}
}

// A hoarder panics, and leaves somebody behind who holds the exchange.
type hoarder struct {
	filter.Pass
	held chan hoard
}

type hoard struct {
	x    *filter.Exchange
	path string
}

func (h *hoarder) OnRequest(x *filter.Exchange) *fault.Fault {
	if x.Request.Header.Has("x-defect") {
		h.held <- hoard{x, x.Request.Path}
		panic("defect of a filter")
	}
	return nil
}

// What an exchange was made of that met a defect serves no other.
func TestStorageOfADefectIsNotUsedAgain(t *testing.T) {
	h := &hoarder{held: make(chan hoard, 1)}
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, echo)))
		s.entries = []filter.Entry{{Name: "hoarder", Filter: h}}
		s.routes = append(s.routes, to("/", "b"))
	})
	for _, two := range []bool{false, true} {
		var held []hoard
		for i := range 20 {
			_, _ = client(t, two).Do(r.request("GET", fmt.Sprintf("/defect/%02d", i), nil, "x-defect", fmt.Sprint(i)))
			held = append(held, <-h.held)
			r.settled()
			do(t, client(t, two), r.request("GET", "/another/request/of/more/bytes", nil))
		}
		for i, got := range held {
			want := fmt.Sprintf("/defect/%02d", i)
			if got.path != want {
				t.Errorf("HTTP/2 %v: the path %s has become %q", two, want, got.path)
			}
			if x := got.x; x.Request == nil || x.Request.Path != want || x.Request.Header.Get("x-defect") != fmt.Sprint(i) {
				t.Errorf("HTTP/2 %v: the request of %s has become %+v", two, want, x.Request)
			}
		}
	}
}

// A responseHoarder panics, and leaves somebody behind who holds the response.
type responseHoarder struct {
	filter.Pass
	held chan string
}

func (h *responseHoarder) OnResponse(x *filter.Exchange) {
	if x.Request.Header.Has("x-defect") {
		h.held <- x.Response.Header.Get("x-answer")
		panic("defect of a filter")
	}
}

// What an endpoint said to an exchange that met a defect stays as it was.
func TestResponseOfADefectIsNotUsedAgain(t *testing.T) {
	pairs(t, func(t *testing.T, two bool, protocol upstream.Protocol) {
		h := &responseHoarder{held: make(chan string, 1)}
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("x-answer", r.URL.Path)
			})))
			s.entries = []filter.Entry{{Name: "hoarder", Filter: h}}
			s.routes = append(s.routes, to("/", "b"))
		})
		var held []string
		for i := range 20 {
			_, _ = client(t, two).Do(r.request("GET", fmt.Sprintf("/defect/%02d", i), nil, "x-defect", fmt.Sprint(i)))
			held = append(held, <-h.held)
			r.settled()
			do(t, client(t, two), r.request("GET", "/another/request/of/more/bytes", nil))
		}
		for i, got := range held {
			if want := fmt.Sprintf("/defect/%02d", i); got != want {
				t.Errorf("the field %s has become %q", want, got)
			}
		}
	})
}

// A trap is a client's stream that panics at the first head.
type trap struct{ Downstream }

func (trap) WriteHead(*message.Response, bool) error { panic("defect of a codec") }
func (trap) Abort(uint32)                            {}

// What an attempt has taken is given back, even if it has no response yet.
func TestDefectDuringAnAttempt(t *testing.T) {
	for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		gone := make(chan struct{})
		r := newRig(t, func(s *setup) {
			s.specs = append(s.specs, cluster("b", protocol, backend(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusEarlyHints)
				<-r.Context().Done()
				close(gone)
			})))
			s.routes = append(s.routes, to("/", "b"))
		})
		c := r.connection()
		x := take()
		x.down = trap{}
		if !x.start(c, &message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/"}) {
			t.Fatal("no exchange begins")
		}
		func() {
			defer c.recoverPanic(x)
			x.conduct()
		}()
		if !x.abandoned {
			t.Error("there was no defect")
		}
		r.settled()
		<-gone
	}
}

// A badSource is a client's stream that panics when its request is read.
type badSource struct {
	trap
	reads  int
	status int
}

func (b *badSource) Read([]byte) (int, error) {
	if b.reads++; b.reads == 1 {
		return 0, os.ErrDeadlineExceeded // nothing has come
	}
	panic("defect of a codec")
}

func (b *badSource) WriteHead(resp *message.Response, _ bool) error {
	b.status = resp.Status
	return nil
}
func (*badSource) SetReadDeadline(time.Time) error  { return nil }
func (*badSource) SetWriteDeadline(time.Time) error { return nil }

// The request's body is sent by a goroutine of its own; a panic there ends no
// more than the exchange, too.
func TestDefectOfTheUpload(t *testing.T) {
	r := newRig(t, func(s *setup) {
		h, _, _ := stuck(t)
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, backend(t, h)))
		s.routes = append(s.routes, to("/", "b", retry("5xx,reset", 1)))
	})
	c := r.connection()
	bad := &badSource{}
	x := take()
	x.down = bad
	if !x.start(c, &message.Request{Method: "POST", Scheme: "http", Authority: "a", Path: "/", ContentLength: message.LengthUnknown}) {
		t.Fatal("no exchange begins")
	}
	x.conduct()
	x.end()
	if bad.status != 500 {
		t.Errorf("status %d, want 500", bad.status)
	}
	if line := r.logged(1)[0]; !strings.HasPrefix(line, "500|-|internal_error|1|") {
		t.Errorf("log %q", line)
	}
	r.settled()
}

// connection is one whose exchanges the test conducts itself.
func (r *rig) connection() *connection {
	r.t.Helper()
	near, far := net.Pipe()
	r.t.Cleanup(func() { _ = far.Close() })
	st, err := r.server.enter(r.http)
	if err != nil {
		r.t.Fatal(err)
	}
	return newConnection(r.server, st, near, new(filter.Conn), func() *config.HTTP { return r.http }, nil, nil)
}

func TestDefectEndsOneExchangeOnly(t *testing.T) {
	b := &bomb{}
	r := newRig(t, func(s *setup) {
		spec := cluster("b", upstream.HTTP1, backend(t, echo))
		spec.Breakers.MaxRequests = 2
		s.specs = append(s.specs, spec)
		s.entries = []filter.Entry{{Name: "bomb", Filter: b}}
		s.routes = append(s.routes, to("/", "b"))
	})
	for _, two := range []bool{false, true} {
		c := client(t, two)
		for at := range int32(4) {
			b.at.Store(at)
			for range 4 {
				resp, err := c.Do(r.request("POST", "/", strings.NewReader(strings.Repeat("x", 50_000))))
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
		b.at.Store(0)
		eventually(t, "afterwards it serves", func() bool { // what ended last may hold its place in the cluster for a moment
			resp, _ := do(t, c, r.request("GET", "/", nil))
			return resp.StatusCode == 200
		})
	}
	r.settled()
}
