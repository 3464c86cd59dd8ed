// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A guest is a caller who may go.
type guest struct{ done chan struct{} }

var gone = &fault.Fault{Side: fault.Client, Kind: fault.ClientGone}

func newGuest() *guest { return &guest{make(chan struct{})} }

func (g *guest) Done() <-chan struct{} { return g.done }

func (g *guest) Cancelled() *fault.Fault {
	select {
	case <-g.done:
		return gone
	default:
		return nil
	}
}

// soonest is when a result must be there that waits for nothing.
const soonest = 5 * time.Second

func (p *pool) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// left checks that nobody is counted who waits no longer.
func left(t *testing.T, name string, c *Cluster, h *Host) {
	t.Helper()
	if n := h.pool.queued(); n != 0 {
		t.Errorf("%s: %d in the queue", name, n)
	}
	if c.stats.RequestPending.Load() != 0 || c.limits.pending.Load() != 0 {
		t.Errorf("%s: %d and %d pending, want none", name, c.stats.RequestPending.Load(), c.limits.pending.Load())
	}
}

func TestQueueIsLeft(t *testing.T) {
	for _, v := range both {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) {
			s.Breakers.MaxConnections, s.MaxConcurrentStreams, s.Breakers.MaxPending = 1, 1, 1
			if v.spec != nil {
				v.spec(s)
			}
		})
		busy := mustOpen(t, c, h, &Request{})
		g := newGuest()
		waits := openLater(c, h, &Request{Caller: g})
		within(t, "it waits", func() bool { return h.pool.queued() == 1 })
		close(g.done)
		select {
		case r := <-waits:
			if r.f != gone {
				t.Errorf("%s: %v, want why the caller is gone", v.name, r.f)
			}
		case <-time.After(soonest):
			t.Fatalf("%s: the caller is gone and its request still waits", v.name)
		}
		left(t, v.name, c, h)
		// Its place in the queue is free, its time may pass there, too.
		begun := time.Now()
		_, f := c.Open(h, &Request{Until: begun.Add(10 * time.Millisecond), Caller: newGuest()})
		if f == nil || f.Kind != fault.ConnectTimeout || time.Since(begun) > soonest {
			t.Errorf("%s: %v after %v, want its own time out", v.name, f, time.Since(begun))
		}
		left(t, v.name, c, h)
		if n := c.stats.RequestOverflow.Load(); n != 0 {
			t.Errorf("%s: %d overflows", v.name, n)
		}
		busy.Done(Outcome{})
		roundTrip(t, c, h, &Request{})
	}
}

// A connection, or leave to open one, that comes at the moment at which its
// waiter goes is the next one's.
func TestWhatComesToAGoneWaiterIsHandedOn(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	p := h.pool
	wait := func(q *part) *waiter {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.enqueueLocked(q)
	}
	wake := func(one *single) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.wakeLocked(one)
	}
	l := mustOpen(t, c, h, &Request{})
	one := l.single
	if _, err := exchange(l, "/"); err != nil {
		t.Fatal(err)
	}
	one.conn.Idle()
	g := newGuest()
	close(g.done)
	for range 50 { // who is woken and gone finds out either first
		first, second := wait(one.part), wait(one.part)
		wake(one)
		if got, f := p.await(c, &Request{Caller: g}, first); f == nil {
			p.handOn(got, c.now())
		}
		if got := <-second.ready; got != one {
			t.Fatalf("the next one gets %v", got)
		}
		first, second = wait(one.part), wait(one.part)
		wake(nil)
		if _, f := p.await(c, &Request{Caller: g}, first); f == nil {
			wake(nil)
		}
		if got := <-second.ready; got != nil {
			t.Fatalf("the next one gets %v", got)
		}
	}
	l.Done(Outcome{})
}

// An afterHeader takes the line of the PROXY protocol away, where there is one.
type afterHeader struct{ net.Listener }

func (l afterHeader) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	if b, _ := r.Peek(1); string(b) == "P" {
		_, _ = r.ReadString('\n')
	}
	return peeked{c, r}, nil
}

// gate makes a cluster whose endpoint lets connecting hang until open is called.
func gate(t *testing.T, change func(*Spec)) (c *Cluster, h *Host, o *origin, open func()) {
	t.Helper()
	held := make(chan struct{})
	open = sync.OnceFunc(func() { close(held) })
	cert := testCert(t)
	o = newOrigin(t, func(o *origin) {
		o.tls = &tls.Config{NextProtos: []string{"h2"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			<-held
			return &cert, nil
		}}
		o.l = afterHeader{o.l}
	})
	t.Cleanup(open)
	c, h = toOrigin(t, o.addr(), func(s *Spec) {
		s.ConnectTimeout = time.Hour
		s.Default.TLS = &tls.Config{InsecureSkipVerify: true}
		if change != nil {
			change(s)
		}
	})
	return c, h, o, open
}

// joined returns how many have joined the only flight of HTTP/2, -1 if there is none.
func (p *pool) joined() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.parts) == 0 || p.parts[0].flight == nil {
		return -1
	}
	return p.parts[0].flight.joined
}

// ownerless returns how many flights nobody owns.
func (p *pool) ownerless() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.parts {
		n += len(q.left)
	}
	return n
}

// prompt returns what Open returned in another goroutine, which waits for nothing.
func prompt(t *testing.T, ch <-chan result) result {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(soonest):
		t.Fatal("the request still waits")
		return result{}
	}
}

// Who opens a connection may go, when the caller does or its time is over, and the
// next one who would open one gets it.
func TestFlightIsTakenOver(t *testing.T) {
	for _, v := range both {
		c, h, o, open := gate(t, v.spec)
		g := newGuest()
		opens := openLater(c, h, &Request{Caller: g})
		within(t, "the flight begins", func() bool { return h.pool.active() == 1 })
		close(g.done)
		if r := prompt(t, opens); r.f != gone {
			t.Errorf("%s: %v, want why the caller is gone", v.name, r.f)
		}
		left(t, v.name, c, h)
		for _, r := range []*Request{{Until: time.Now().Add(10 * time.Millisecond)}, {Deadline: time.Now().Add(10 * time.Millisecond)}} {
			if r := prompt(t, openLater(c, h, r)); r.f == nil || r.f.Kind != fault.ConnectTimeout {
				t.Errorf("%s: %v, want its own time out", v.name, r.f)
			}
			left(t, v.name, c, h)
		}
		opens = openLater(c, h, &Request{})
		within(t, "the last one waits", func() bool { return c.stats.RequestPending.Load() == 1 })
		open()
		r := prompt(t, opens)
		if r.f != nil {
			t.Fatalf("%s: %v", v.name, r.f)
		}
		if body, err := exchange(r.l, "/x"); err != nil || body != "/x" {
			t.Errorf("%s: %q, %v", v.name, body, err)
		}
		r.l.Done(Outcome{Status: 200, Reusable: true})
		if n := o.count(); n != 1 || c.stats.ConnActive.Load() != 1 || c.limits.connections.Load() != 1 {
			t.Errorf("%s: %d connections, %d counted, want 1", v.name, n, c.limits.connections.Load())
		}
		left(t, v.name, c, h)
	}
}

// A connection that nobody waits for any more idles until it is of use, and one
// that cannot be used is closed.
func TestFlightIsLeft(t *testing.T) {
	for _, v := range both {
		for _, use := range []string{"idles", "is refused", "comes to one in the queue", "comes to a drained pool", "is of one client"} {
			c, h, o, open := gate(t, func(s *Spec) {
				s.Breakers.MaxConnections = 1
				if v.spec != nil {
					v.spec(s)
				}
				if s.MaxConcurrentStreams = 1; use == "is of one client" {
					s.Default.ProxyProtocol = 1
				}
			})
			g := newGuest()
			opens := openLater(c, h, &Request{Caller: g})
			within(t, "the flight begins", func() bool { return h.pool.active() == 1 })
			var queued <-chan result
			if use == "comes to one in the queue" {
				queued = openLater(c, h, &Request{})
				within(t, "the second waits", func() bool { return h.pool.queued() == 1 })
			}
			close(g.done)
			if r := prompt(t, opens); r.f != gone {
				t.Errorf("%s, %s: %v", v.name, use, r.f)
			}
			remain := int64(1)
			switch use {
			case "is refused":
				within(t, "it has connected", func() bool { return o.count() == 1 })
				o.hangUp()
				remain = 0
			case "comes to a drained pool":
				h.pool.drain()
				remain = 0
			case "is of one client":
				remain = 0
			}
			open()
			if queued != nil {
				r := prompt(t, queued)
				if r.f != nil {
					t.Fatalf("%s, %s: %v", v.name, use, r.f)
				}
				_, _ = exchange(r.l, "/")
				r.l.Done(Outcome{Status: 200, Reusable: true})
			}
			within(t, v.name+" "+use, func() bool {
				return h.pool.ownerless() == 0 && c.stats.ConnActive.Load() == remain && c.limits.connections.Load() == remain
			})
			within(t, v.name+" "+use+", idle", func() bool { return int64(h.pool.idle()) == remain })
			left(t, v.name, c, h)
			if use == "is refused" && c.stats.ConnectFail.Load() != 1 {
				t.Errorf("%s: %d failures to connect", v.name, c.stats.ConnectFail.Load())
			}
		}
	}
}

// Who waits for a connection that another request opens may go.
func TestJoinedFlightIsLeft(t *testing.T) {
	c, h, o, _ := gate(t, func(s *Spec) { s.Protocol = HTTP2 })
	opens := openLater(c, h, &Request{})
	within(t, "the flight begins", func() bool { return h.pool.joined() == 0 })
	g := newGuest()
	joins := openLater(c, h, &Request{Caller: g})
	within(t, "the second joins", func() bool { return h.pool.joined() == 1 })
	close(g.done)
	if r := prompt(t, joins); r.f != gone {
		t.Errorf("%v, want why the caller is gone", r.f)
	}
	if _, f := c.Open(h, &Request{Until: time.Now().Add(10 * time.Millisecond)}); f == nil || f.Kind != fault.ConnectTimeout {
		t.Errorf("%v, want its own time out", f)
	}
	if n := h.pool.joined(); n != 0 || c.stats.RequestPending.Load() != 1 || c.limits.pending.Load() != 1 {
		t.Errorf("%d wait for the flight, %d pending: want 0, and the one who opens it", n, c.stats.RequestPending.Load())
	}
	within(t, "it has connected", func() bool { return o.count() == 1 })
	o.hangUp()
	if r := prompt(t, opens); r.f == nil || r.f.Kind != fault.ConnectFailure {
		t.Errorf("who opened it: %v", r.f)
	}
	left(t, "in the end", c, h)
}

// A defect that connecting meets is told to who waits, and ends nothing else.
func TestDefectWhileConnecting(t *testing.T) {
	for _, v := range both {
		c, h := toOrigin(t, netip.MustParseAddrPort("127.0.0.1:1"), func(s *Spec) {
			s.Default.Broken = func() error { panic("defect") }
			if v.spec != nil {
				v.spec(s)
			}
		})
		if _, f := c.Open(h, &Request{}); f == nil || f.Kind != fault.Internal || f.Side != fault.Mesh {
			t.Errorf("%s: %v", v.name, f)
		}
		left(t, v.name, c, h)
		if n := c.limits.connections.Load(); n != 0 {
			t.Errorf("%s: %d connections", v.name, n)
		}
	}
}

// An upgrade that HTTP/2 does not take needs the place of the connection it was refused on.
func TestUpgradeTakesThePlaceOfAnIdleConnection(t *testing.T) {
	o := newOrigin(t, func(o *origin) { o.noUpgrade = true })
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol, s.Breakers.MaxConnections = HTTP2, 1 })
	roundTrip(t, c, h, &Request{})
	r := prompt(t, openLater(c, h, &Request{Upgrade: true}))
	if r.f != nil || r.l.Version() != message.HTTP11 {
		t.Fatalf("%v", r.f)
	}
	r.l.Done(Outcome{})
	roundTrip(t, c, h, &Request{})
	left(t, "in the end", c, h)
}
