// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

func unlimited() Breakers {
	return Breakers{MaxConnections: 1 << 31, MaxPending: 1 << 31, MaxRequests: 1 << 31, MaxRetries: 1 << 31}
}

// eps makes n endpoints of a priority; the first healthy of them are healthy.
func eps(priority, n, healthy int) []Endpoint {
	out := make([]Endpoint, n)
	for i := range out {
		out[i] = Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(priority), byte(i >> 8), byte(i)}), 80), Weight: 1}
		if i >= healthy {
			out[i].Health = Unhealthy
		}
	}
	return out
}

func cluster(t testing.TB, spec *Spec, localities ...Locality) *Cluster {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "c"
	}
	spec.Discovery = Static
	spec.Breakers = unlimited()
	spec.Endpoints = &Assignment{Localities: localities}
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	s.Put(spec)
	return s.Ref(spec.Name).Load()
}

// The load of two priorities, by how many of a hundred hosts of the first are
// healthy: Envoy's documented table for overprovisioning 1.4.
func TestPriorityLoad(t *testing.T) {
	for _, c := range []struct {
		healthy    int
		load, next uint32
	}{{100, 100, 0}, {72, 100, 0}, {71, 99, 1}, {50, 70, 30}, {25, 35, 65}, {0, 0, 100}} {
		cl := cluster(t, &Spec{}, Locality{Priority: 0, Endpoints: eps(0, 100, c.healthy)}, Locality{Priority: 1, Endpoints: eps(1, 100, 100)})
		got := cl.Explain(&Request{}).Priorities
		if got[0].Load != c.load || got[1].Load != c.next {
			t.Errorf("%d%% healthy: load %d/%d, want %d/%d", c.healthy, got[0].Load, got[1].Load, c.load, c.next)
		}
	}
}

func TestNobodyHealthy(t *testing.T) {
	calm := cluster(t, &Spec{}, Locality{Endpoints: eps(0, 4, 0)})
	if h, f := calm.Pick(&Request{}); f == nil || f.Kind != fault.NoEndpoint {
		t.Errorf("without panic: picked %v, fault %v; want NoEndpoint", h, f)
	}
	panics := cluster(t, &Spec{Balance: balance.Config{PanicThreshold: 50}}, Locality{Endpoints: eps(0, 4, 0)})
	if _, f := panics.Pick(&Request{}); f != nil {
		t.Errorf("in panic: %v, want a host", f)
	}
	none := cluster(t, &Spec{Balance: balance.Config{PanicThreshold: 50}})
	if _, f := none.Pick(&Request{}); f == nil {
		t.Error("no endpoints: want NoEndpoint")
	}
}

func TestPanicUsesEveryHost(t *testing.T) {
	c := cluster(t, &Spec{Balance: balance.Config{PanicThreshold: 50, Policy: balance.RoundRobin}}, Locality{Endpoints: eps(0, 10, 3)})
	if seen := spread(t, c, 1000); len(seen) != 10 {
		t.Errorf("30%% healthy under a threshold of 50%%: %d hosts used, want all 10", len(seen))
	}
}

func spread(t *testing.T, c *Cluster, n int) map[string]int {
	t.Helper()
	seen := make(map[string]int)
	for range n {
		h, f := c.Pick(&Request{})
		if f != nil {
			t.Fatal(f)
		}
		seen[h.String()]++
	}
	return seen
}

func TestWeights(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastRequest} {
		e := eps(0, 3, 3)
		e[0].Weight, e[1].Weight, e[2].Weight = 1, 2, 7
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: e})
		const n = 20000
		seen := spread(t, c, n)
		for i, want := range []float64{.1, .2, .7} {
			got := float64(seen[e[i].Addr.String()]) / n
			if got < want-.02 || got > want+.02 {
				t.Errorf("policy %d: host of weight %d got %.3f, want %.2f", policy, e[i].Weight, got, want)
			}
		}
	}
}

func TestRoundRobinIsEven(t *testing.T) {
	c := cluster(t, &Spec{Balance: balance.Config{Policy: balance.RoundRobin}}, Locality{Endpoints: eps(0, 7, 7)})
	for host, n := range spread(t, c, 700) {
		if n != 100 {
			t.Errorf("%s: %d picks, want 100", host, n)
		}
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	c := cluster(t, &Spec{Balance: balance.Config{Policy: balance.LeastRequest}}, Locality{Endpoints: eps(0, 2, 2)})
	c.members[0].stats.Active.Store(10)
	seen := spread(t, c, 1000)
	// Two draws with replacement meet the busy host twice in a quarter of the picks.
	if n := seen[c.members[0].String()]; n < 180 || n > 320 {
		t.Errorf("busy host got %d of 1000, want about 250", n)
	}
}

func TestHashPoliciesAreStable(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RingHash, balance.Maglev} {
		e := eps(0, 10, 10)
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: e})
		moved := 0
		fewer := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: e[:9]})
		for range 2000 {
			r := &Request{Hash: rand.Uint64(), HasHash: true}
			a, _ := c.Pick(r)
			b, _ := c.Pick(r)
			if a != b {
				t.Fatalf("policy %d: one hash, two hosts", policy)
			}
			if f, _ := fewer.Pick(r); f.String() != a.String() {
				moved++
			}
		}
		if moved > 400 { // a tenth must move; twice that would be no consistent hash
			t.Errorf("policy %d: %d of 2000 keys moved when one of ten hosts left", policy, moved)
		}
	}
}

func TestRetriesAvoidTriedHosts(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastRequest, balance.Random, balance.RingHash, balance.Maglev} {
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: eps(0, 2, 2)})
		missed := 0
		for range 300 {
			r := &Request{Hash: rand.Uint64(), HasHash: true, MaxReselect: 5}
			first, _ := c.Pick(r)
			r.Tried = []*Host{first}
			if second, _ := c.Pick(r); second == first {
				missed++
			}
		}
		if missed > 60 {
			t.Errorf("policy %d: %d of 300 retries went to the host that had failed", policy, missed)
		}
	}
}

func TestLocalityWeights(t *testing.T) {
	a, b := eps(0, 2, 2), eps(1, 2, 2)
	c := cluster(t, &Spec{Balance: balance.Config{LocalityWeighted: true}}, Locality{Zone: "a", Weight: 1, Endpoints: a}, Locality{Zone: "b", Weight: 3, Endpoints: b})
	seen := spread(t, c, 4000)
	if n := seen[a[0].Addr.String()] + seen[a[1].Addr.String()]; n < 900 || n > 1100 {
		t.Errorf("locality of weight 1 of 4 got %d of 4000", n)
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastRequest, balance.Random, balance.RingHash, balance.Maglev} {
		c := cluster(t, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: eps(0, 50, 50)})
		r := &Request{Hash: 42, HasHash: true}
		if n := testing.AllocsPerRun(200, func() {
			if c.Admit() == nil {
				_, _ = c.Pick(r)
				c.Leave()
			}
		}); n != 0 {
			t.Errorf("policy %d: %v allocations per pick, want 0", policy, n)
		}
	}
}

func TestOutlier(t *testing.T) {
	now := time.Unix(1000, 0)
	s := NewSet(Config{Now: func() time.Time { return now }})
	t.Cleanup(s.Close)
	spec := &Spec{
		Name: "c", Breakers: unlimited(), Endpoints: &Assignment{Localities: []Locality{{Endpoints: eps(0, 2, 2)}}},
		Outlier: &Outlier{Consecutive5xx: 3, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 50, Interval: time.Second, BaseEjection: 10 * time.Second},
	}
	s.Put(spec)
	c := s.Ref("c").Load()
	bad, good := c.members[0], c.members[1]
	fail := func(h *Host, n int) {
		for range n {
			c.observe(h, Outcome{Status: 500})
		}
	}
	fail(bad, 2)
	c.observe(bad, Outcome{Status: 200})
	fail(bad, 2)
	if bad.Ejected() {
		t.Fatal("ejected although a success came between")
	}
	fail(bad, 1)
	if !bad.Ejected() {
		t.Fatal("three 5xx in a row: want ejected")
	}
	fail(good, 3)
	if good.Ejected() || c.stats.EjectionsOverflow.Load() != 1 {
		t.Error("the second of two hosts must stay: max_ejection_percent is 50")
	}
	if seen := spread(t, c, 50); seen[bad.String()] != 0 {
		t.Error("an ejected host was picked")
	}
	now = now.Add(9 * time.Second)
	c.sweepEjections(now)
	if !bad.Ejected() {
		t.Error("returned before base ejection time")
	}
	now = now.Add(2 * time.Second)
	c.sweepEjections(now)
	if bad.Ejected() || c.stats.EjectionsActive.Load() != 0 {
		t.Error("want back after base ejection time")
	}
	fail(bad, 3)
	now = now.Add(15 * time.Second)
	c.sweepEjections(now)
	if !bad.Ejected() {
		t.Error("the second ejection lasts twice as long")
	}
}

func TestTenPercentOfFewHostsEjectsNobody(t *testing.T) {
	c := cluster(t, &Spec{Outlier: &Outlier{EnforcingConsecutive5xx: 100}}, Locality{Endpoints: eps(0, 9, 9)})
	for range 10 {
		c.observe(c.members[0], Outcome{Status: 503})
	}
	if c.members[0].Ejected() {
		t.Error("10% of nine hosts is none")
	}
}

func TestAnUpdateKeepsHosts(t *testing.T) {
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	e := eps(0, 3, 3)
	s.Assign("c", &Assignment{Localities: []Locality{{Endpoints: e}}})
	s.Put(&Spec{Name: "c", Discovery: EDS, Hash: 1, Breakers: unlimited()})
	ref := s.Ref("c")
	before := ref.Load().members
	changed := append([]Endpoint(nil), e[1:]...)
	changed[0].Weight = 9
	s.Assign("c", &Assignment{Localities: []Locality{{Endpoints: changed}}})
	after := ref.Load().members
	if len(after) != 2 || after[0] != before[1] || after[0].Endpoint().Weight != 9 {
		t.Errorf("endpoints that stay must stay the same hosts: %v → %v", before, after)
	}
	s.Put(&Spec{Name: "c", Discovery: EDS, Hash: 2, Breakers: unlimited(), Balance: balance.Config{Policy: balance.Random}})
	if again := ref.Load().members; again[0] != after[0] || ref.Load().spec.Balance.Policy != balance.Random {
		t.Error("a change of policy must keep hosts and their connections")
	}
	s.Remove("c")
	if ref.Load() != nil {
		t.Error("a removed cluster must load nil")
	}
}

func TestOriginalDestination(t *testing.T) {
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	s.Put(&Spec{Name: "o", Discovery: OriginalDst, PortOverride: 15008, Breakers: unlimited(), Balance: balance.Config{Policy: balance.ClusterProvided}})
	c := s.Ref("o").Load()
	dst := netip.MustParseAddrPort("10.1.2.3:80")
	a, f := c.Pick(&Request{OriginalDst: dst})
	if f != nil || a.String() != "10.1.2.3:15008" {
		t.Fatalf("%v, %v", a, f)
	}
	if b, _ := c.Pick(&Request{OriginalDst: dst}); a != b {
		t.Error("one address, one host")
	}
	if _, f := c.Pick(&Request{}); f == nil {
		t.Error("no original destination: want a fault")
	}
}

// A request may pick just after a change of its cluster, which nobody would sweep any more.
func TestOriginalDestinationAfterAChange(t *testing.T) {
	o := newOrigin(t, nil)
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	s.Put(&Spec{Name: "o", Hash: 1, Discovery: OriginalDst, Breakers: unlimited()})
	c := s.Ref("o").Load()
	s.Put(&Spec{Name: "o", Hash: 2, Discovery: OriginalDst, Breakers: unlimited()})
	h, f := c.Pick(&Request{OriginalDst: o.addr()})
	if f != nil {
		t.Fatal(f)
	}
	roundTrip(t, c, h, &Request{OriginalDst: o.addr()})
	if n := c.stats.ConnActive.Load(); n != 0 || len(c.originals) != 0 {
		t.Errorf("%d connections, %d addresses are kept", n, len(c.originals))
	}
}

func TestBreakers(t *testing.T) {
	s := NewSet(Config{})
	t.Cleanup(s.Close)
	s.Put(&Spec{Name: "c", Breakers: Breakers{MaxRequests: 1, MaxRetries: 1}})
	c := s.Ref("c").Load()
	if c.Admit() != nil {
		t.Fatal("the first request must pass")
	}
	if f := c.Admit(); f == nil || f.Kind != fault.Overflow {
		t.Errorf("second request: %v, want Overflow", f)
	}
	c.Leave()
	if c.Admit() != nil {
		t.Error("after Leave there is room")
	}
	if !c.AdmitRetry() || c.AdmitRetry() {
		t.Error("one retry may be in flight")
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastRequest, balance.RingHash} {
		b.Run(fmt.Sprint(policy), func(b *testing.B) {
			c := cluster(b, &Spec{Balance: balance.Config{Policy: policy}}, Locality{Endpoints: eps(0, 100, 100)})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := &Request{Hash: 7, HasHash: true}
				for pb.Next() {
					_, _ = c.Pick(r)
				}
			})
		})
	}
}
