// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"testing"
	"time"

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

// Who waits for a connection that another request opens may go; who opens it
// does so for the others.
func TestFlightIsLeft(t *testing.T) {
	silent := newOrigin(t, func(o *origin) { o.tls = &tls.Config{GetConfigForClient: mute} })
	c, h := toOrigin(t, silent.addr(), func(s *Spec) {
		s.Protocol, s.ConnectTimeout = HTTP2, time.Hour
		s.Default.TLS = &tls.Config{InsecureSkipVerify: true}
	})
	opens := openLater(c, h, &Request{Until: time.Now()})
	joined := func() int {
		h.pool.mu.Lock()
		defer h.pool.mu.Unlock()
		if len(h.pool.parts) == 0 || h.pool.parts[0].flight == nil {
			return -1
		}
		return h.pool.parts[0].flight.joined
	}
	within(t, "the flight begins", func() bool { return joined() == 0 })
	g := newGuest()
	joins := openLater(c, h, &Request{Caller: g})
	within(t, "the second joins", func() bool { return joined() == 1 })
	close(g.done)
	select {
	case r := <-joins:
		if r.f != gone {
			t.Errorf("%v, want why the caller is gone", r.f)
		}
	case <-time.After(soonest):
		t.Fatal("the caller is gone and its request still waits")
	}
	if _, f := c.Open(h, &Request{Until: time.Now().Add(10 * time.Millisecond)}); f == nil || f.Kind != fault.ConnectTimeout {
		t.Errorf("%v, want its own time out", f)
	}
	if n := joined(); n != 0 || c.stats.RequestPending.Load() != 1 || c.limits.pending.Load() != 1 {
		t.Errorf("%d wait for the flight, %d pending: want 0, and the one who opens it", n, c.stats.RequestPending.Load())
	}
	silent.hangUp()
	if r := <-opens; r.f == nil || r.f.Kind != fault.ConnectFailure {
		t.Errorf("who opened it: %v", r.f)
	}
	left(t, "in the end", c, h)
}

// mute lets a TLS server wait, once it has been spoken to, until its client hangs up.
func mute(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	_, err := hello.Conn.Read(make([]byte, 1))
	return nil, err
}
