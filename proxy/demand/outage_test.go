// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/wire/nds"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/xds"
)

// try looks an address up and says what came of it, and how long it took.
func (r *rig) try(t *testing.T, addr string) (what string, took time.Duration) {
	t.Helper()
	begun := time.Now()
	d, err := r.Lookup(t.Context(), netip.MustParseAddrPort(addr))
	took = time.Since(begun)
	var f *fault.Fault
	switch {
	case errors.As(err, &f):
		return f.Details, took
	case err != nil:
		t.Fatalf("%s: not a fault: %v", addr, err)
	}
	defer d.Done()
	if !d.Known {
		return "default", took
	}
	return string(d.Host), took
}

func (r *rig) expect(t *testing.T, when, addr, want string, held time.Duration) {
	t.Helper()
	if got, took := r.try(t, addr); got != want || took != held {
		t.Errorf("%s, %s: %s after %v, not %s after %v", when, addr, got, took, want, held)
	}
}

var table = &nds.NameTable{Table: map[string]*nds.NameTable_NameInfo{
	web.host: {Ips: web.vips}, db.host: {Ips: db.vips}, "*.wild.example.com": {Ips: []string{"240.240.0.9", "nonsense"}},
}}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.add(db)
		r := newRig(t, w, nil)
		r.SetKnown(KnownFrom(table))
		r.expect(t, "at first", "10.1.0.1:80", web.host, 0)
		r.expect(t, "at first", "192.0.2.1:80", "default", 0)
		used := r.look(t, "10.1.0.1:80")
		r.stopServer()
		synctest.Wait()

		r.expect(t, "just lost, an address outside", "203.0.113.1:80", "default", 2*time.Second)
		r.expect(t, "just lost", "10.1.0.2:5432", "control_plane_unavailable", 8*time.Second)
		time.Sleep(time.Minute)
		r.expect(t, "away", "10.1.0.1:80", web.host, 0)
		if d := r.look(t, "10.1.0.1:80"); d != used || ready(d) != "" {
			t.Errorf("what was used is not in force: %s", ready(d))
		}
		r.expect(t, "away", "10.1.0.3:5432", "control_plane_unavailable", 0)
		r.expect(t, "away, an address that services are given", "240.240.7.7:80", "control_plane_unavailable", 0)
		r.expect(t, "away, an address outside", "198.51.100.1:80", "default", 0)
		for host, want := range map[string]string{db.host: "control_plane_unavailable", "a.wild.example.com": "control_plane_unavailable", "example.com": ""} {
			d, err := r.LookupHost(t.Context(), host, 5432)
			var f *fault.Fault
			if errors.As(err, &f) && f.Details != want || err == nil && (want != "" || d.Known) {
				t.Errorf("away, %s: %+v, %v", host, d, err)
			}
		}
		_, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.3:5432"))
		if s := err.Error(); !strings.Contains(s, "mesh: no cluster (destination 10.1.0.3:5432)") || !strings.Contains(s, "the control plane has been away for 1m") {
			t.Errorf("the fault says %q", s)
		}

		r.startIt()
		time.Sleep(time.Minute)
		r.expect(t, "back", "10.1.0.2:5432", db.host, 0)
		if d := r.look(t, "10.1.0.1:80"); d != used {
			t.Error("what was used was made anew")
		}
	})
}

// What serves stays while nobody can say anew what it is, and while connections use it, be they older than its last change.
func TestWhatIsInUseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.add(db)
		r := newRig(t, w, func(c *Config) { c.Idle = 20 * time.Second })
		used := r.look(t, "10.1.0.1:80")
		r.expect(t, "at first", "10.1.0.2:5432", db.host, 0)
		d, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
		if err != nil || d != used {
			t.Fatal(err)
		}
		other := web
		other.proto = workload.AppProtocol_HTTP2
		w.add(other)
		synctest.Wait()
		if r.look(t, "10.1.0.1:80") == used {
			t.Fatal("it did not change, so nothing is shown")
		}
		time.Sleep(40 * time.Second) // as long as d is open
		if s := r.Stats(); s.Destinations != 1 || s.Dropped != 1 {
			t.Fatalf("%+v, want the one that is used to be left", s)
		}
		r.stopServer()
		synctest.Wait()
		d.Done()
		time.Sleep(40 * time.Second)
		r.expect(t, "away", "10.1.0.1:80", web.host, 0)
		r.startIt()
		time.Sleep(40 * time.Second)
		if s := r.Stats(); s.Destinations != 0 {
			t.Errorf("%+v, want none to be left", s)
		}
	})
}

// Without the mesh's addresses, nothing is certain to be outside.
func TestOutageWithoutNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), nil)
		r.stopServer()
		time.Sleep(time.Minute)
		r.expect(t, "away", "198.51.100.1:80", "control_plane_unavailable", 0)
	})
}

// A control plane that comes back within the grace time is waited for.
func TestShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		r := newRig(t, w, nil)
		time.Sleep(time.Second)
		r.stopServer()
		time.Sleep(100 * time.Millisecond)
		time.AfterFunc(500*time.Millisecond, r.startIt)
		got, took := r.try(t, "10.1.0.1:80")
		if got != web.host || took < 500*time.Millisecond || took > 900*time.Millisecond {
			t.Errorf("%s after %v", got, took)
		}
	})
}

// Who calls first while the control plane is started again is held until it has been asked, however late in the outage.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.add(db)
		r := newRig(t, w, nil)
		r.stopServer()
		time.AfterFunc(6*time.Second, r.startIt)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if got, took := r.try(t, "10.1.0.1:80"); got != web.host || took > 9*time.Second {
				t.Errorf("called at once: %s after %v", got, took)
			}
		}()
		time.Sleep(5 * time.Second)
		if got, took := r.try(t, "10.1.0.2:5432"); got != db.host || took > 4*time.Second {
			t.Errorf("called later: %s after %v", got, took)
		}
		<-done
	})
}

// A control plane that does not answer holds connections for a moment, the first
// ones alone; when it does answer, the destination is there.
func TestSilence(t *testing.T) {
	for typeURL, missing := range map[string]string{
		TypeAddress:         "what net/10.1.0.1 is",
		config.TypeRoute:    "route table " + web.route(),
		config.TypeCluster:  "cluster " + web.cluster(""),
		config.TypeEndpoint: "cluster " + web.cluster(""),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.add(web)
			w.delay[typeURL] = 10 * time.Second
			r := newRig(t, w, nil)
			r.SetKnown(KnownFrom(table))
			time.Sleep(11 * time.Second) // the stream's first answer is late, too
			_, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
			if err == nil || !strings.Contains(err.Error(), "has not sent "+missing) || !strings.Contains(err.Error(), " within 2s") {
				t.Errorf("%s: %v", typeURL, err)
			}
			r.expect(t, typeURL+", the second connection", "10.1.0.1:80", "destination_not_resolved", 0)
			time.Sleep(3 * time.Second)
			if typeURL == TypeAddress {
				r.expect(t, typeURL+", an address outside", "192.0.2.1:80", "default", 2*time.Second)
			}
			// It was forgotten, is asked again and held again, until the answer is there.
			for range 6 {
				_, _ = r.try(t, "10.1.0.1:80")
				time.Sleep(3 * time.Second)
			}
			if got, _ := r.try(t, "10.1.0.1:80"); got != web.host {
				t.Errorf("%s: %s, though all has been answered", typeURL, got)
			}
		})
	}
}

// What the proxy cannot use is not waited for, and never falls back to the default.
func TestRefused(t *testing.T) {
	w := newWorld()
	w.add(db)
	r := newRig(t, w, nil)
	r.SetKnown(NewKnown(nil, nil, nil))
	bad, _ := anypb.New(&clusterv3.Cluster{Name: db.cluster(""), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: 99}})
	r.look(t, "192.0.2.1:80")
	if got := r.store.Apply(xds.Update{TypeURL: config.TypeCluster, Resources: []xds.Resource{{Name: db.cluster(""), Body: bad}}}); len(got) != 1 {
		t.Fatal(got)
	}
	w.mu.Lock()
	w.silent[config.TypeCluster] = true
	w.mu.Unlock()
	if got, _ := r.try(t, "10.1.0.2:5432"); got != "configuration_refused" {
		t.Errorf("%s", got)
	}
}

// Who scans a network does not flood the control plane, fills no memory, and
// does not keep others from the mesh.
func TestScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.add(db)
		r := newRig(t, w, nil)
		r.SetKnown(KnownFrom(table))
		r.look(t, "10.1.0.1:80")
		const scanned = 20_000
		begun := time.Now()
		for i := range scanned {
			if got, took := r.try(t, fmt.Sprintf("192.0.%d.%d:22", i/250, i%250)); got != "default" || took > 100*time.Millisecond {
				t.Fatalf("%d: %s after %v", i, got, took)
			}
			if i%100 == 0 {
				time.Sleep(10 * time.Millisecond) // 10,000 a second
			}
		}
		asked := w.count(TypeAddress, "")
		if most := 1_000 + int(200*time.Since(begun).Seconds()) + 10; asked > most {
			t.Errorf("%d questions were asked, more than %d", asked, most)
		}
		if s := r.Stats(); s.Unknown > 1_000 || s.Asked > 1_001 || s.Evicted == 0 {
			t.Errorf("%+v", s)
		}
		r.expect(t, "after a scan", "10.1.0.2:5432", db.host, 0)
		r.expect(t, "after a scan", "10.1.0.1:80", web.host, 0)
		time.Sleep(time.Minute)
		if s := r.Stats(); s.Unknown != 0 || s.Asked != 2 {
			t.Errorf("later: %+v", s)
		}
	})
}

// A scan while the control plane does not answer: few are held, the rest goes on at once.
func TestScanInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.add(web)
		w.silent[TypeAddress] = true
		r := newRig(t, w, nil)
		r.SetKnown(KnownFrom(table))
		var held int
		results := make(chan time.Duration, 3000)
		for i := range cap(results) {
			go func() {
				_, took := r.try(t, fmt.Sprintf("192.0.%d.%d:22", i/250, i%250))
				results <- took
			}()
		}
		for range cap(results) {
			if took := <-results; took > 0 {
				held++
			}
		}
		if held > 256 {
			t.Errorf("%d connections were held", held)
		}
		w.mu.Lock()
		w.silent[TypeAddress] = false
		w.mu.Unlock()
		r.expect(t, "after it", "10.1.0.1:80", web.host, 0)
	})
}

// More destinations than there is room for: what was used longest ago makes room,
// what is in use does not.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var open []*Destination
		r := newRig(t, w, func(c *Config) { c.MaxDestinations = 4 })
		r.SetKnown(NewKnown(nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil))
		for i := range 8 {
			s := service{fmt.Sprintf("l%d.shop.svc.cluster.local", i), []string{fmt.Sprintf("10.5.0.%d", i+1)}, 80, 1}
			w.add(s)
			d, err := r.Lookup(t.Context(), netip.MustParseAddrPort(s.vips[0]+":80"))
			switch {
			case i < 4 && err != nil || i >= 4 && err == nil:
				t.Errorf("destination %d: %v", i, err)
			case err == nil:
				open = append(open, d)
			}
			time.Sleep(2 * time.Second)
		}
		open[2].Done()
		r.expect(t, "with room", "10.5.0.8:80", "l7.shop.svc.cluster.local", 0)
		if got := strings.Join(r.Keys(), " "); got != "10.5.0.1:80 10.5.0.2:80 10.5.0.4:80 10.5.0.8:80" {
			t.Errorf("%q", got)
		}
	})
}

func TestKnown(t *testing.T) {
	k := KnownFrom(table)
	for addr, want := range map[string]bool{"10.1.0.3": true, "::ffff:10.1.0.3": true, "240.240.1.2": true, "10.1.0.4": false, "fd00::1": false} {
		if k.Addr(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s is known: %v", addr, !want)
		}
	}
	for host, want := range map[string]bool{
		web.host: true, "x.wild.example.com": true, "x.y.wild.example.com": true, "wild.example.com": false, "com": false, "": false,
	} {
		if k.Host(host) != want {
			t.Errorf("%q is known: %v", host, !want)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add("net/1.2.3.4", "a/b", []byte{10, 0})
	f.Fuzz(func(t *testing.T, name, alias string, body []byte) {
		r, err := newFact(xds.Resource{Name: name, Aliases: []string{alias}, Body: &anypb.Any{TypeUrl: TypeAddress, Value: body}})
		if err == nil && r.service == nil && r.workload == nil {
			t.Error("a fact of nothing")
		}
	})
}
