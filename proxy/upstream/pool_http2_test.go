// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

func TestBurstSharesOneConnection(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol = HTTP2 })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { roundTrip(t, c, h, &Request{}) })
	}
	wg.Wait()
	if n := o.count(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestFullConnectionIsJoinedByAnother(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol, s.MaxConcurrentStreams = HTTP2, 2 })
	var leases []*Lease
	for range 5 {
		leases = append(leases, mustOpen(t, c, h, &Request{}))
	}
	if n := c.stats.ConnTotal.Load(); n != 3 {
		t.Errorf("%d connections for 5 streams, want 3", n)
	}
	for _, l := range leases {
		if _, err := exchange(l, "/"); err != nil {
			t.Error(err)
		}
		l.Done(Outcome{Status: 200, Reusable: true})
	}
}

func TestStreamIsWaitedFor(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) {
		s.Protocol, s.MaxConcurrentStreams, s.Breakers.MaxConnections = HTTP2, 1, 1
	})
	first := mustOpen(t, c, h, &Request{})
	second := openLater(c, h, &Request{})
	within(t, "the second waits", func() bool { h.pool.mu.Lock(); defer h.pool.mu.Unlock(); return len(h.pool.waiting) == 1 })
	if _, err := exchange(first, "/"); err != nil {
		t.Fatal(err)
	}
	first.Done(Outcome{Status: 200, Reusable: true})
	r := <-second
	if r.f != nil {
		t.Fatal(r.f)
	}
	if _, err := exchange(r.l, "/"); err != nil || o.count() != 1 {
		t.Errorf("%v, %d connections", err, o.count())
	}
	r.l.Done(Outcome{Status: 200, Reusable: true})
}

func TestGoAwayIsObeyed(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol = HTTP2 })
	roundTrip(t, c, h, &Request{})
	o.goAway()
	within(t, "the connection leaves the pool", func() bool {
		h.pool.sweep(time.Now())
		h.pool.mu.Lock()
		defer h.pool.mu.Unlock()
		return len(h.pool.parts) == 0 || len(h.pool.parts[0].shared) == 0
	})
	roundTrip(t, c, h, &Request{})
	if o.count() != 2 {
		t.Errorf("%d connections", o.count())
	}
}

// Many at once, of all kinds, while connections break and the pool is swept:
// nothing is lost, nothing stays counted.
func TestHammer(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) {
		s.Protocol, s.MaxConcurrentStreams, s.MaxRequestsPerConn = SameAsClient, 3, 20
		s.Breakers.MaxConnections = 4
	})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for range 100 {
				r := &Request{Version: message.HTTP11}
				if rnd.IntN(2) == 0 {
					r.Version = message.HTTP2
				}
				l, f := c.Open(h, r)
				if f != nil {
					continue // a connection that was cut while it began
				}
				o := Outcome{Status: 200, Reusable: true}
				switch rnd.IntN(10) {
				case 0:
					l.Abort(8)
				case 1:
					o.Reusable = false
				default:
					if _, err := exchange(l, "/x"); err != nil {
						o = Outcome{Fault: l.Fault(err)}
					}
				}
				l.Done(o)
			}
		})
	}
	var chaos sync.WaitGroup
	chaos.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				h.pool.sweep(time.Now())
				if i%4 == 3 {
					o.hangUp()
				}
			}
		}
	})
	wg.Wait()
	close(stop)
	chaos.Wait()
	h.pool.drain()
	within(t, "nothing is left", func() bool {
		return c.stats.ConnActive.Load() == 0 && c.limits.connections.Load() == 0 && c.limits.pending.Load() == 0 &&
			h.stats.Active.Load() == 0 && c.stats.RequestActive.Load() == 0 && h.pool.active() == 0
	})
}
