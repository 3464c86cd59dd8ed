// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

// strict ejects at the first failure, as many as half of the hosts.
func strict() *Outlier {
	return &Outlier{
		Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 50,
		Interval: time.Second, BaseEjection: time.Minute,
	}
}

// judged is a set with a cluster c of n hosts, which changed changes in what concerns no connection.
func judged(t *testing.T, n int) (s *Set, changed func(*Outlier) *Cluster) {
	t.Helper()
	s = NewSet(Config{})
	t.Cleanup(s.Close)
	hash := uint64(0)
	return s, func(d *Outlier) *Cluster {
		hash++
		s.Put(&Spec{
			Name: "c", Hash: hash, ConnHash: 1, Discovery: Static, Breakers: unlimited(), Outlier: d,
			Endpoints: &Assignment{Localities: []Locality{{Endpoints: eps(0, n, n)}}},
		})
		return s.Ref("c").Load()
	}
}

// consistent checks that who is picked is not ejected, and that ejections are counted.
func consistent(t *testing.T, c *Cluster) {
	t.Helper()
	ejected := int64(0)
	for _, h := range c.members {
		if h.Ejected() {
			ejected++
		}
	}
	if n := c.stats.EjectionsActive.Load(); n != ejected {
		t.Errorf("%d ejections are counted, %d hosts are ejected", n, ejected)
	}
	if seen := spread(t, c, 100); int64(len(seen)) != int64(len(c.members))-ejected {
		t.Errorf("%d of %d hosts are picked, %d are ejected", len(seen), len(c.members), ejected)
	}
}

func TestEjectionEndsWithItsPolicy(t *testing.T) {
	_, changed := judged(t, 2)
	c := changed(strict())
	h := c.members[0]
	c.observe(h, Outcome{Status: 503})
	if !h.Ejected() {
		t.Fatal("want ejected")
	}
	consistent(t, c)
	c = changed(strict())
	if c.members[0] != h || !h.Ejected() {
		t.Fatal("another change lets it back in")
	}
	consistent(t, c)
	if c = changed(nil); c.members[0] != h || h.Ejected() {
		t.Error("ejected, and nobody will let it back in")
	}
	consistent(t, c)
}

// An exchange may end after a change of its cluster.
func TestEjectionByWhoBeganBeforeAChange(t *testing.T) {
	s, changed := judged(t, 2)
	old := changed(strict())
	h := old.members[0]
	next := changed(strict())
	old.observe(h, Outcome{Status: 503})
	if !h.Ejected() {
		t.Error("want ejected")
	}
	consistent(t, next)

	next = changed(nil)
	old.observe(h, Outcome{Status: 503})
	if h.Ejected() {
		t.Error("ejected, though there is no policy any more")
	}
	consistent(t, next)

	next = changed(strict())
	next.assign(&Assignment{Localities: []Locality{{Endpoints: eps(1, 2, 2)}}}, nil)
	old.observe(h, Outcome{Status: 503})
	if h.Ejected() {
		t.Error("ejected, though it is of the cluster no more")
	}
	consistent(t, next)

	s.Remove("c")
	old.observe(h, Outcome{Status: 503})
	if n := s.Ref("c").Stats().EjectionsActive.Load(); n != 0 {
		t.Errorf("%d ejections of a cluster that is gone", n)
	}
}

// Attempts fail and hosts return while the cluster changes.
func TestEjectionsDuringChanges(t *testing.T) {
	s, changed := judged(t, 10)
	changed(strict())
	ref := s.Ref("c")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := ref.Load()
				if h, f := c.Pick(&Request{}); f == nil {
					c.observe(h, Outcome{Status: 503})
				}
			}
		})
	}
	wg.Go(func() {
		for at := time.Now(); ; at = at.Add(time.Minute) {
			select {
			case <-stop:
				return
			default:
				ref.Load().sweep(at)
			}
		}
	})
	for i := range 300 {
		d := strict()
		if i%3 == 0 {
			d = nil
		}
		changed(d)
	}
	c := changed(strict())
	close(stop)
	wg.Wait()
	consistent(t, c)
}

// Who has no time to wait for a connection says nothing about the endpoint.
func TestImpatientCallersEjectNobody(t *testing.T) {
	for _, v := range both {
		c, h, _, _ := gate(t, func(s *Spec) {
			if s.Outlier = strict(); v.spec != nil {
				v.spec(s)
			}
			s.Outlier.MaxEjectionPercent = 100
		})
		for _, r := range []*Request{{Until: time.Now()}, {Deadline: time.Now()}} {
			if _, f := c.Open(h, r); f == nil || f.Kind != fault.ConnectTimeout || f.Side != fault.Mesh {
				t.Errorf("%s: %v, want its own time out", v.name, f)
			}
		}
		if h.Ejected() || h.stats.Error.Load() != 0 {
			t.Errorf("%s: ejected, or blamed, though nothing is known of it", v.name)
		}
	}
}

// A failed dial counts for each who waits for it, and also if nobody does.
func TestFailedDialIsJudged(t *testing.T) {
	for _, v := range both {
		c, h, o, _ := gate(t, func(s *Spec) {
			if s.Outlier = strict(); v.spec != nil {
				v.spec(s)
			}
			s.Outlier.Consecutive5xx, s.Outlier.MaxEjectionPercent = 4, 100
		})
		failures := uint32(0)
		opens := []<-chan result{openLater(c, h, &Request{})}
		within(t, "the flight begins", func() bool { return h.pool.active() == 1 })
		if v.spec != nil {
			opens = append(opens, openLater(c, h, &Request{}))
			within(t, "one joins", func() bool { return h.pool.joined() == 1 })
		}
		within(t, "it has connected", func() bool { return o.count() == 1 })
		o.hangUp()
		for _, ch := range opens {
			if r := prompt(t, ch); r.f == nil || r.f.Kind != fault.ConnectFailure {
				t.Errorf("%s: %v, want the failure of all", v.name, r.f)
			}
			failures++
		}
		if n := h.outlier.consecutive5xx.Load(); n != failures || h.stats.Error.Load() != int64(failures) {
			t.Errorf("%s: %d of %d failures judged, %d counted", v.name, n, failures, h.stats.Error.Load())
		}
		g := newGuest()
		left := openLater(c, h, &Request{Caller: g})
		within(t, "the second flight begins", func() bool { return o.count() == 2 })
		close(g.done)
		if r := prompt(t, left); r.f != gone {
			t.Errorf("%s: %v", v.name, r.f)
		}
		o.hangUp()
		within(t, v.name+": the failure that nobody waits for counts", func() bool { return h.outlier.consecutive5xx.Load() == failures+1 })
	}
}

// A dial that was cancelled, as nobody can use it any more, has not failed.
func TestCancelledDialIsNotJudged(t *testing.T) {
	for _, v := range both {
		c, h, _, _ := gate(t, func(s *Spec) {
			if s.Outlier = strict(); v.spec != nil {
				v.spec(s)
			}
			s.Outlier.MaxEjectionPercent = 100
		})
		g := newGuest()
		opens := openLater(c, h, &Request{Caller: g})
		within(t, "the flight begins", func() bool { return h.pool.active() == 1 })
		close(g.done)
		_ = prompt(t, opens)
		h.pool.drain()
		within(t, v.name+": the flight ends", func() bool { return h.pool.active() == 0 })
		if h.Ejected() {
			t.Errorf("%s: ejected", v.name)
		}
	}
}

// A connection that ends before its first use is a failure of the endpoint.
func TestConnectionThatEndsUnusedIsJudged(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) {
		s.Protocol, s.Outlier = HTTP2, strict()
		s.Outlier.MaxEjectionPercent = 100
	})
	l := mustOpen(t, c, h, &Request{})
	fl := &flight{muxed: l.muxed}
	l.Done(Outcome{Status: 200})
	within(t, "it is accepted", func() bool { return o.count() == 1 })
	o.hangUp()
	<-fl.muxed.conn.Done()
	if _, f := fl.first(c); f == nil || f.Kind != fault.ConnectionClosed || !h.Ejected() {
		t.Errorf("%v, ejected %v", f, h.Ejected())
	}
}
