// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/wire/workload"
)

func TestServicesComeAndGo(t *testing.T) {
	w := newWorld()
	r := newRig(t, w, nil)
	if d := r.look(t, "10.1.0.1:80"); d.Known {
		t.Fatalf("%+v", d)
	}
	w.add(web)
	eventually(t, "a service that was not there is", func() bool { return r.look(t, "10.1.0.1:80").Known })
	if d := r.look(t, "10.1.0.1:80"); ready(d) != "" {
		t.Error(ready(d))
	}
	tcp := web
	tcp.proto = workload.AppProtocol_TCP
	w.add(tcp)
	eventually(t, "its port speaks something else", func() bool { return r.look(t, "10.1.0.1:80").Protocol == TCP })
	if d := r.look(t, "10.1.0.1:80"); d.HTTP != nil || ready(d) != "" {
		t.Errorf("%+v: %s", d, ready(d))
	}
	w.take(TypeAddress, web.address())
	eventually(t, "it is gone", func() bool { return !r.look(t, "10.1.0.1:80").Known })
	moved := service{"new.shop.svc.cluster.local", web.vips, 80, workload.AppProtocol_HTTP11}
	w.add(moved)
	eventually(t, "its address is another's", func() bool { return string(r.look(t, "10.1.0.1:80").Host) == moved.host })
}

// While another service takes an address over, connections find one or the
// other, always ready.
func TestAddressMovesWhileItIsUsed(t *testing.T) {
	w := newWorld()
	w.delay[config.TypeCluster], w.delay[config.TypeRoute] = time.Millisecond, time.Millisecond
	a := service{"a.shop.svc.cluster.local", []string{"10.1.0.1"}, 80, workload.AppProtocol_HTTP11}
	b := service{"b.shop.svc.cluster.local", []string{"10.1.0.1"}, 80, workload.AppProtocol_UNKNOWN}
	w.add(a)
	r := newRig(t, w, nil)
	var lookups atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			d, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
			if err != nil {
				t.Error(err)
				return
			}
			if why := ready(d); why != "" {
				t.Errorf("%s: %s", d.Host, why)
			}
			lookups.Add(1)
			d.Done()
		}
	}()
	for i := range 20 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		w.add(to)
		w.take(TypeAddress, from.address())
		eventually(t, "the address has moved", func() bool {
			return string(r.look(t, "10.1.0.1:80").Host) == to.host
		})
	}
	close(stop)
	<-done
	if lookups.Load() == 0 {
		t.Error("nobody called")
	}
}

// A route table that names clusters nobody has used yet takes over when they are
// there: no request finds a table whose cluster is missing.
func TestRoutesChangeUnderLoad(t *testing.T) {
	w := newWorld()
	w.add(web)
	w.delay[config.TypeCluster], w.delay[config.TypeEndpoint] = 2*time.Millisecond, 2*time.Millisecond
	r := newRig(t, w, nil)
	d, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Done()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var requests atomic.Int64
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if why := ready(d); why != "" {
					t.Errorf("a request finds %s", why)
					return
				}
				requests.Add(1)
			}
		})
	}
	for i := range 30 {
		subset := web.cluster(fmt.Sprintf("v%d", i))
		w.addCluster(subset)
		w.addRoute(web.route(), subset)
		eventually(t, "the new table", func() bool {
			table := d.HTTP.HTTP.Routes.Load()
			return table != nil && table.Clusters()[0] == subset
		})
	}
	close(stop)
	wg.Wait()
	eventually(t, "clusters that no table names have gone", func() bool {
		return len(w.subscribed(config.TypeCluster)) == 1 && r.set.Ref(web.cluster("v3")).Load() == nil
	})
	t.Logf("%d requests, none in vain", requests.Load())
}

func TestUnusedIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.add(db)
		r := newRig(t, w, nil)
		r.look(t, "10.1.0.1:80")
		open, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.2:5432")) // a connection that stays
		if err != nil {
			t.Fatal(err)
		}
		r.look(t, "192.0.2.1:443")
		time.Sleep(29 * time.Second)
		if got := strings.Join(w.subscribed(TypeAddress), " "); got != "net/10.1.0.1 net/10.1.0.2 net/192.0.2.1" {
			t.Errorf("after half a minute: %q", got)
		}
		time.Sleep(10 * time.Second)
		if got := strings.Join(w.subscribed(TypeAddress), " "); got != "net/10.1.0.1 net/10.1.0.2" {
			t.Errorf("the address outside is still asked about: %q", got)
		}
		time.Sleep(8 * time.Minute)
		r.look(t, "10.1.0.1:80")
		time.Sleep(9 * time.Minute)
		if got := strings.Join(r.Keys(), " "); got != "10.1.0.1:80 10.1.0.2:5432" {
			t.Errorf("what was used nine minutes ago: %q", got)
		}
		time.Sleep(2 * time.Minute)
		if got := strings.Join(r.Keys(), " "); got != "10.1.0.2:5432" {
			t.Errorf("after eleven minutes: %q", got)
		}
		for typeURL, want := range map[string]string{TypeAddress: "net/10.1.0.2", config.TypeRoute: "", config.TypeCluster: db.cluster(""), config.TypeEndpoint: db.cluster("")} {
			if got := strings.Join(w.subscribed(typeURL), " "); got != want {
				t.Errorf("%s: subscribed to %q, not %q", typeURL, got, want)
			}
		}
		open.Done()
		time.Sleep(11 * time.Minute)
		if s := r.Stats(); s.Destinations+s.Unknown+s.Asked+s.Busy != 0 || s.Dropped != 3 {
			t.Errorf("%+v", s)
		}
		if d := r.look(t, "10.1.0.1:80"); !d.Known || ready(d) != "" {
			t.Errorf("used again: %+v: %s", d, ready(d))
		}
	})
}

// A destination that changes while connections use it keeps what they need.
func TestReplacedIsKeptWhileUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		r := newRig(t, w, nil)
		old, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		w.take(TypeAddress, web.address())
		time.Sleep(time.Minute)
		if d := r.look(t, "10.1.0.1:80"); d.Known {
			t.Errorf("%+v", d)
		}
		if why := ready(old); why != "" {
			t.Errorf("the open connection finds %s", why)
		}
		old.Done()
		time.Sleep(time.Minute)
		if got := w.subscribed(config.TypeRoute); len(got) != 0 {
			t.Errorf("still subscribed to %q", got)
		}
	})
}

// TestHammer calls, changes and forgets at once; in the end everything is as the
// world has it, and nothing is left over.
func TestHammer(t *testing.T) {
	w := newWorld()
	var list []service
	for i := range 20 {
		list = append(list, service{fmt.Sprintf("h%02d.shop.svc.cluster.local", i), []string{fmt.Sprintf("10.4.0.%d", i+1)}, 80, workload.AppProtocol_HTTP11})
		w.add(list[i])
	}
	r := newRig(t, w, func(c *Config) { c.Idle, c.Unknown, c.MaxUnknown = time.Nanosecond, time.Nanosecond, 8 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 4, 0, byte(rand.IntN(30))}), 80)
				d, err := r.Lookup(t.Context(), to)
				if err != nil {
					continue // limits are low here
				}
				if why := ready(d); d.Known && why != "" && why != "no table" {
					t.Errorf("%v: %s", to, why)
				}
				d.Done()
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			s := list[rand.IntN(len(list))]
			if rand.IntN(3) == 0 {
				w.take(TypeAddress, s.address())
			} else {
				s.proto = workload.AppProtocol(rand.IntN(6))
				w.add(s)
			}
			r.sweep(time.Now())
		}
		close(stop)
	})
	wg.Wait()
	for _, s := range list {
		w.add(s)
	}
	for _, s := range list {
		addr := s.vips[0] + ":80"
		eventually(t, addr+" is as it should be", func() bool {
			d := r.look(t, addr)
			return d.Known && d.Protocol == HTTP && ready(d) == ""
		})
	}
	eventually(t, "nothing is left", func() bool {
		r.sweep(time.Now().Add(time.Hour))
		s := r.Stats()
		return s.Destinations+s.Unknown+s.Asked+s.Busy == 0 && len(w.subscribed(TypeAddress))+len(w.subscribed(config.TypeRoute)) == 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.facts)+len(r.names)+len(r.managers)+len(r.retired)+len(r.entries) != 0 {
		t.Errorf("left over: facts %d, names %d, managers %d, retired %d, entries %d", len(r.facts), len(r.names), len(r.managers), len(r.retired), len(r.entries))
	}
}
