// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"sync"
	"testing"
	"time"
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
