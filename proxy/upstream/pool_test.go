// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

var both = []struct {
	name string
	spec func(*Spec)
}{
	{"HTTP/1", nil},
	{"HTTP/2", func(s *Spec) { s.Protocol = HTTP2 }},
}

func TestConnectionIsReused(t *testing.T) {
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), v.spec)
		for i := range 3 {
			l := mustOpen(t, c, h, &Request{})
			if l.Reused() != (i > 0) || !l.LocalAddr().IsValid() || l.TLS() != nil || l.Version().String()[:6] != v.name {
				t.Errorf("%s, request %d: reused %v, local %v, version %v", v.name, i, l.Reused(), l.LocalAddr(), l.Version())
			}
			if body, err := exchange(l, "/x"); err != nil || body != "/x" {
				t.Errorf("%s: %q, %v", v.name, body, err)
			}
			l.Done(Outcome{Status: 200, Reusable: true})
		}
		if o.count() != 1 || c.stats.ConnTotal.Load() != 1 || h.stats.Active.Load() != 0 {
			t.Errorf("%s: %d connections, want 1", v.name, o.count())
		}
		within(t, "the connection idles", func() bool { return h.pool.idle() == 1 && h.pool.active() == 0 })
	}
}

func TestConnectionIsNotReused(t *testing.T) {
	o := newOrigin(t, nil)
	for name, tt := range map[string]struct {
		spec func(*Spec)
		use  func(*Lease)
		out  Outcome
	}{
		"after a fault":        {nil, func(l *Lease) { _, _ = exchange(l, "/") }, Outcome{Status: 200}},
		"unfinished":           {nil, func(l *Lease) {}, Outcome{Reusable: true}},
		"body unread":          {nil, unread, Outcome{Status: 200, Reusable: true}},
		"after abort":          {nil, func(l *Lease) { l.Abort(0) }, Outcome{Reusable: true}},
		"as often as it may":   {func(s *Spec) { s.MaxRequestsPerConn = 1 }, func(l *Lease) { _, _ = exchange(l, "/") }, Outcome{Status: 200, Reusable: true}},
		"proxy protocol":       {func(s *Spec) { s.Default.ProxyProtocol = 1 }, func(*Lease) {}, Outcome{Reusable: true}},
		"as often as it may/2": {func(s *Spec) { s.MaxRequestsPerConn, s.Protocol = 1, HTTP2 }, func(l *Lease) { _, _ = exchange(l, "/") }, Outcome{Status: 200, Reusable: true}},
	} {
		c, h := toOrigin(t, o.addr(), tt.spec)
		l := mustOpen(t, c, h, &Request{})
		tt.use(l)
		l.Done(tt.out)
		within(t, name+": all connections end", func() bool {
			return c.stats.ConnActive.Load() == 0 && c.limits.connections.Load() == 0 && h.pool.idle() == 0
		})
	}
}

func unread(l *Lease) {
	_ = l.WriteHead(&message.Request{Method: "GET", Authority: "a", Path: "/body"}, true)
	_ = l.ReadHead(new(message.Response))
}

func TestConnectionThatTheServerClosedIsReplaced(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	roundTrip(t, c, h, &Request{})
	o.hangUp()
	within(t, "the server is gone", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.open) == 0 })
	roundTrip(t, c, h, &Request{})
	if c.stats.ConnRemoteClosed.Load() != 1 || o.count() != 2 {
		t.Errorf("%d closed by the server, %d connections", c.stats.ConnRemoteClosed.Load(), o.count())
	}
}

func TestLimitsAreKept(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Breakers.MaxConnections, s.Breakers.MaxPending = 1, 1 })
	first := mustOpen(t, c, h, &Request{})
	second := openLater(c, h, &Request{})
	within(t, "the second waits", func() bool { h.pool.mu.Lock(); defer h.pool.mu.Unlock(); return len(h.pool.waiting) == 1 })
	if _, f := c.Open(h, &Request{}); f == nil || f.Kind != fault.Overflow {
		t.Errorf("the third: %v, want overflow", f)
	}
	if _, err := exchange(first, "/"); err != nil {
		t.Fatal(err)
	}
	first.Done(Outcome{Status: 200, Reusable: true})
	r := <-second
	if r.f != nil || !r.l.Reused() || o.count() != 1 {
		t.Fatalf("the second: %v; %d connections", r.f, o.count())
	}
	third := openLater(c, h, &Request{SNI: "other"})
	within(t, "the third waits", func() bool { h.pool.mu.Lock(); defer h.pool.mu.Unlock(); return len(h.pool.waiting) == 1 })
	if _, err := exchange(r.l, "/"); err != nil {
		t.Fatal(err)
	}
	r.l.Done(Outcome{Status: 200, Reusable: true}) // of no use to the third, which gets its place
	if r = <-third; r.f != nil || r.l.Reused() || c.stats.ConnTotal.Load() != 2 {
		t.Fatalf("the third: %v; %d connections", r.f, c.stats.ConnTotal.Load())
	}
	if _, err := exchange(r.l, "/"); err != nil {
		t.Fatal(err)
	}
	r.l.Done(Outcome{Status: 200, Reusable: true})
	roundTrip(t, c, h, &Request{}) // closes the idle connection it cannot use
	within(t, "one connection is left", func() bool { return c.limits.connections.Load() == 1 })
	if c.stats.RequestPending.Load() != 0 || c.limits.pending.Load() != 0 {
		t.Error("somebody is still counted as pending")
	}
}

// Under the limit, a request that no idle connection can serve takes the place of one of them.
func TestRoomForOneCostsOne(t *testing.T) {
	const most = 8
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) {
			s.Breakers.MaxConnections = most
			if v.spec != nil {
				v.spec(s)
			}
		})
		for i := range most {
			roundTrip(t, c, h, &Request{SNI: fmt.Sprint(i)})
		}
		within(t, "all connections idle", func() bool { return h.pool.idle() == most })
		roundTrip(t, c, h, &Request{SNI: "another"})
		if n, over := c.limits.connections.Load(), c.stats.ConnOverflow.Load(); n != most || over != 1 {
			t.Errorf("%s: %d connections, %d overflows; want %d and 1", v.name, n, over, most)
		}
		within(t, v.name+": one has ended, the others idle", func() bool {
			return c.stats.ConnActive.Load() == most && h.pool.idle() == most
		})
		h.pool.drain()
		within(t, v.name+": nothing stays counted", func() bool {
			return c.stats.ConnActive.Load() == 0 && c.limits.connections.Load() == 0 && h.pool.active() == 0
		})
	}
}

func TestPendingRequestHasADeadline(t *testing.T) {
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) {
			s.Breakers.MaxConnections, s.MaxConcurrentStreams = 1, 1
			if v.spec != nil {
				v.spec(s)
			}
		})
		l := mustOpen(t, c, h, &Request{})
		if _, f := c.Open(h, &Request{Deadline: time.Now().Add(10 * time.Millisecond)}); f == nil || f.Kind != fault.ConnectTimeout || f.Side != fault.Mesh {
			t.Errorf("%s: %v", v.name, f)
		}
		l.Done(Outcome{})
		roundTrip(t, c, h, &Request{})
	}
}

func TestPoolWithoutConnectionMayAlwaysHaveOne(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Breakers.MaxConnections = 0 })
	roundTrip(t, c, h, &Request{})
	if c.stats.ConnOverflow.Load() != 1 {
		t.Error("the overflow is not counted")
	}
}

func TestIdleConnectionsAreRetired(t *testing.T) {
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) {
			s.IdleTimeout = time.Hour
			if v.spec != nil {
				v.spec(s)
			}
		})
		roundTrip(t, c, h, &Request{})
		within(t, "the connection idles", func() bool { return h.pool.idle() == 1 })
		h.pool.sweep(time.Now().Add(30 * time.Minute))
		if h.pool.idle() != 1 {
			t.Errorf("%s: retired too early", v.name)
		}
		h.pool.sweep(time.Now().Add(2 * time.Hour))
		within(t, "all is closed", func() bool { return c.stats.ConnActive.Load() == 0 })
		if c.stats.ConnIdleRetired.Load() != 1 || len(h.pool.parts) > 1 {
			t.Errorf("%s: %d retired", v.name, c.stats.ConnIdleRetired.Load())
		}
		roundTrip(t, c, h, &Request{})
	}
}

// What a burst needed is closed a minute after it, but for a few, and unless somebody says otherwise.
func TestSurplusConnectionsAreRetired(t *testing.T) {
	for keep, left := range map[bool]int{false: spare, true: 10} {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) { s.IdleTimeout, s.KeepIdle = time.Hour, keep })
		var leases []*Lease
		for range 10 {
			l := mustOpen(t, c, h, &Request{})
			if _, err := exchange(l, "/"); err != nil {
				t.Fatal(err)
			}
			leases = append(leases, l)
		}
		for _, l := range leases {
			l.Done(Outcome{Status: 200, Reusable: true})
		}
		h.pool.sweep(time.Now().Add(surplusIdle / 2))
		if n := h.pool.idle(); n != 10 {
			t.Errorf("%v: %d idle soon after", keep, n)
		}
		h.pool.sweep(time.Now().Add(2 * surplusIdle))
		if n := h.pool.idle(); n != left {
			t.Errorf("%v: %d idle, want %d", keep, n, left)
		}
	}
}

func TestPromisedKeepAliveIsBelieved(t *testing.T) {
	o := newOrigin(t, func(o *origin) {
		o.head = func(r *message.Response) { r.Header.Reset() }
	})
	c, h := toOrigin(t, o.addr(), nil)
	roundTrip(t, c, h, &Request{})
	h.pool.learned.promised(10 * time.Second)
	h.pool.sweep(time.Now().Add(8 * time.Second))
	if h.pool.idle() != 1 {
		t.Error("retired too early")
	}
	h.pool.sweep(time.Now().Add(9500 * time.Millisecond))
	if h.pool.idle() != 0 || c.stats.ConnLearnedRetired.Load() != 1 {
		t.Error("kept although the server said it would close it")
	}
}

func TestKeepAliveIsLearned(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	var k keepAlive
	k.closed(0, seconds(0.5), at(0)) // a restart just after use tells nothing
	k.closed(seconds(4.2), seconds(5.2), at(10))
	k.closed(seconds(4.2), seconds(5.2), at(10.1)) // closed at the same moment: one event
	if k.limit(at(11)) != 0 {
		t.Error("one close is believed")
	}
	k.closed(seconds(4.6), seconds(5.6), at(20))
	if got, want := k.limit(at(21)), seconds(3.2); got != want {
		t.Errorf("learned %v, want %v", got, want)
	}
	k.promised(seconds(60))
	if got, want := k.limit(at(21)), seconds(3.2); got != want {
		t.Errorf("learned %v, want %v: what is seen counts more than what is said", got, want)
	}
	if got, want := k.limit(at(2000)), seconds(54); got != want {
		t.Errorf("%v, want %v: belief does not last", got, want)
	}
	k.closed(seconds(4.4), seconds(5.4), at(2001))
	if k.limit(at(2002)) != seconds(3.2) {
		t.Error("one close confirms")
	}
	k.closed(seconds(29), seconds(30), at(2010))
	if k.limit(at(2011)) != seconds(54) {
		t.Error("a close that contradicts starts over")
	}
}

func TestServerThatClosesIdleConnectionsIsLearned(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	now := time.Now()
	for range 2 {
		l := mustOpen(t, c, h, &Request{})
		if _, err := exchange(l, "/"); err != nil {
			t.Fatal(err)
		}
		l.Done(Outcome{Status: 200, Reusable: true})
		h.pool.sweep(now.Add(5 * time.Second))
		o.hangUp()
		closed := c.stats.ConnRemoteClosed.Load()
		within(t, "the sweep sees the close", func() bool {
			h.pool.sweep(now.Add(6 * time.Second))
			return c.stats.ConnRemoteClosed.Load() > closed
		})
		now = now.Add(time.Minute)
		h.pool.mu.Lock()
		h.pool.learned.last = h.pool.learned.last.Add(-time.Minute) // the clock of the test stands still
		h.pool.mu.Unlock()
		if len(h.pool.parts) == 1 && len(h.pool.parts[0].idle) > 0 {
			t.Fatal("still idle")
		}
		now = time.Now()
	}
	roundTrip(t, c, h, &Request{})
	h.pool.sweep(time.Now().Add(4500 * time.Millisecond))
	if c.stats.ConnLearnedRetired.Load() != 1 {
		t.Error("the connection is kept until the server closes it")
	}
}

func TestDrain(t *testing.T) {
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), v.spec)
		busy := mustOpen(t, c, h, &Request{})
		other := mustOpen(t, c, h, &Request{})
		if _, err := exchange(other, "/"); err != nil {
			t.Fatal(err)
		}
		other.Done(Outcome{Status: 200, Reusable: true})
		h.pool.drain()
		within(t, "idle connections close", func() bool { return h.pool.idle() == 0 })
		if body, err := exchange(busy, "/still"); err != nil || body != "/still" {
			t.Errorf("%s: the exchange in flight: %q, %v", v.name, body, err)
		}
		busy.Done(Outcome{Status: 200, Reusable: true})
		roundTrip(t, c, h, &Request{}) // was picked before the host went
		within(t, "all connections end", func() bool { return c.stats.ConnActive.Load() == 0 })
	}
}

func TestFailureToConnectIsShared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	for _, v := range both {
		c, h := toOrigin(t, addr, v.spec)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, f := c.Open(h, &Request{}); f == nil || f.Kind != fault.ConnectFailure || f.Hint == "" {
					t.Errorf("%s: %v", v.name, f)
				}
			})
		}
		wg.Wait()
		if c.limits.connections.Load() != 0 || c.stats.ConnectFail.Load() == 0 || h.pool.total != 0 {
			t.Errorf("%s: %d connections counted", v.name, c.limits.connections.Load())
		}
	}
}

func TestMissingSecretIsTold(t *testing.T) {
	missing := errors.New("secret default is not there")
	c, h := toOrigin(t, netip.MustParseAddrPort("127.0.0.1:1"), func(s *Spec) { s.Default.Broken = func() error { return missing } })
	if _, f := c.Open(h, &Request{}); f == nil || f.Kind != fault.ConnectFailure || f.Side != fault.Mesh || !errors.Is(f, missing) {
		t.Errorf("%v", f)
	}
}

// A name that a client asked for points into what was read from it, and is soon another.
func TestNamesAreKept(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	head := []byte("a.test")
	roundTrip(t, c, h, &Request{SNI: unsafe.String(&head[0], len(head))})
	copy(head, "b.test")
	roundTrip(t, c, h, &Request{SNI: "b.test"})
	if n := o.count(); n != 2 {
		t.Errorf("%d connections for two names", n)
	}
	roundTrip(t, c, h, &Request{SNI: "a.test"})
	if n := o.count(); n != 2 {
		t.Error("the connection for the first name is not found")
	}
}

func TestUpgradeGoesOverHTTP1UnlessAllowed(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol = SameAsClient })
	plain := mustOpen(t, c, h, &Request{Version: message.HTTP2})
	upgrade := mustOpen(t, c, h, &Request{Version: message.HTTP2, Upgrade: true})
	if plain.Version() != message.HTTP2 {
		t.Errorf("plain: %v", plain.Version())
	}
	want := message.HTTP11
	if plain.muxed.conn.ExtendedConnect() {
		want = message.HTTP2
	}
	if upgrade.Version() != want {
		t.Errorf("upgrade: %v, want %v", upgrade.Version(), want)
	}
	one := mustOpen(t, c, h, &Request{Version: message.HTTP11})
	if one.Version() != message.HTTP11 {
		t.Errorf("HTTP/1 client: %v", one.Version())
	}
	for _, l := range []*Lease{plain, upgrade, one} {
		l.Done(Outcome{})
	}
}

func TestTLSIsOfferedByVersion(t *testing.T) {
	o := newOrigin(t, func(o *origin) {
		o.tls = &tls.Config{Certificates: []tls.Certificate{testCert(t)}, NextProtos: []string{"istio-h2", "istio-http/1.1"}}
	})
	c, h := toOrigin(t, o.addr(), func(s *Spec) {
		s.Protocol = SameAsClient
		s.Default = Transport{
			TLS:  &tls.Config{InsecureSkipVerify: true, ServerName: "default.test"},
			ALPN: []string{"none"}, ALPNHTTP1: []string{"istio-http/1.1"}, ALPNHTTP2: []string{"istio-h2"},
		}
	})
	for _, r := range []*Request{{}, {Version: message.HTTP2}, {SNI: "a.test"}, {SNI: "a.test"}} {
		l := mustOpen(t, c, h, r)
		if _, err := exchange(l, "/"); err != nil || l.TLS() == nil {
			t.Error(err, l.TLS())
		}
		l.Done(Outcome{Status: 200, Reusable: true})
	}
	want := []struct{ sni, alpn string }{{"default.test", "istio-http/1.1"}, {"default.test", "istio-h2"}, {"a.test", "istio-http/1.1"}}
	if len(o.states) != len(want) {
		t.Fatalf("%d connections, want %d", len(o.states), len(want))
	}
	for i, s := range o.states {
		if s.ServerName != want[i].sni || s.NegotiatedProtocol != want[i].alpn {
			t.Errorf("connection %d: %s %s, want %v", i, s.ServerName, s.NegotiatedProtocol, want[i])
		}
	}
	if c.stats.SSLHandshake.Load() != 3 {
		t.Errorf("%d handshakes counted", c.stats.SSLHandshake.Load())
	}
}

func TestDialAndHangup(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Breakers.MaxConnections = 1 })
	conn, f := c.Dial(h, &Request{})
	if f != nil {
		t.Fatal(f)
	}
	if _, f := c.Dial(h, &Request{}); f == nil || f.Kind != fault.Overflow {
		t.Errorf("the second: %v, want overflow", f)
	}
	if c.stats.ConnActive.Load() != 1 {
		t.Error("not counted")
	}
	_ = conn.Close()
	c.Hangup(h, nil)
	if c.stats.ConnActive.Load() != 0 || c.limits.connections.Load() != 0 {
		t.Error("still counted")
	}
}

func TestErrorsBecomeFaults(t *testing.T) {
	c, h := toOrigin(t, netip.MustParseAddrPort("127.0.0.1:1"), nil)
	l := &Lease{host: h, cluster: c, reused: true}
	for _, tt := range []struct {
		err  error
		kind fault.Kind
		side fault.Side
		sent bool
	}{
		{io.EOF, fault.ConnectionClosed, fault.Upstream, true},
		{&http1.Error{Kind: http1.Truncated}, fault.ConnectionClosed, fault.Upstream, true},
		{&http1.Error{Kind: http1.Protocol}, fault.UpstreamProtocol, fault.Upstream, true},
		{&http1.Error{Kind: http1.Misuse}, fault.Internal, fault.Mesh, true},
		{http2.StreamError{Code: http2.CodeRefusedStream, Remote: true, Unprocessed: true}, fault.RefusedStream, fault.Upstream, false},
		{http2.StreamError{Code: http2.CodeInternal, Remote: true}, fault.RemoteReset, fault.Upstream, true},
		{http2.StreamError{Code: http2.CodeProtocol}, fault.UpstreamProtocol, fault.Upstream, true},
		{http2.StreamError{Code: http2.CodeCancel}, fault.LocalReset, fault.Mesh, true},
		{http2.StreamError{Cause: http2.ConnError{Remote: true}}, fault.ConnectionClosed, fault.Upstream, true},
		{&net.OpError{Op: "read", Err: timeoutError{}}, fault.Timeout, fault.Upstream, true},
	} {
		if f := l.Fault(tt.err); f.Kind != tt.kind || f.Side != tt.side || f.Sent != tt.sent || !errors.Is(f, tt.err) {
			t.Errorf("%v: %v (sent %v)", tt.err, f, f.Sent)
		}
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestWarmLeaseDoesNotAllocate(t *testing.T) {
	o := newOrigin(t, nil)
	c, _ := toOrigin(t, o.addr(), nil)
	r := &Request{}
	req := &message.Request{Method: "GET", Authority: "a.test", Path: "/x"}
	var resp message.Response
	buf := make([]byte, 100)
	n := testing.AllocsPerRun(200, func() {
		h, f := c.Pick(r)
		if f != nil {
			t.Fatal(f)
		}
		l, f := c.Open(h, r)
		if f != nil {
			t.Fatal(f)
		}
		if l.WriteHead(req, true) != nil || l.ReadHead(&resp) != nil {
			t.Fatal("exchange failed")
		}
		if _, err := l.Read(buf); err != io.EOF {
			t.Fatal(err)
		}
		l.Done(Outcome{Status: 200, Reusable: true})
	})
	if n > 0 && !poolsForget {
		t.Errorf("%v allocations per exchange at both ends, want 0", n)
	}
}
