// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/wire/workload"
)

func TestFirstUse(t *testing.T) {
	w := newWorld()
	w.add(web)
	w.add(db)
	w.add(mixed)
	r := newRig(t, w, nil)
	d := r.look(t, "10.1.0.1:80")
	if !d.Known || d.Protocol != HTTP || string(d.Host) != web.host || d.Namespace != ns || d.Port != 80 || d.HTTP.HTTP.RouteName != web.route() {
		t.Errorf("web: %+v", d)
	}
	if why := ready(d); why != "" {
		t.Errorf("web: %s", why)
	}
	if again := r.look(t, "[::ffff:10.1.0.1]:80"); again != d {
		t.Error("the second connection got another destination")
	}
	d = r.look(t, "10.1.0.2:5432")
	if !d.Known || d.Protocol != TCP || d.HTTP != nil || d.TCP.TCP.Clusters[0].Cluster != db.cluster("") {
		t.Errorf("db: %+v", d)
	}
	if why := ready(d); why != "" {
		t.Errorf("db: %s", why)
	}
	if d = r.look(t, "10.1.0.4:9000"); d.Protocol != Unset || d.HTTP == nil || ready(d) != "" {
		t.Errorf("mixed: %+v: %s", d, ready(d))
	}
	for _, nobody := range []string{"10.1.0.1:81", "192.0.2.1:80"} {
		if d = r.look(t, nobody); d.Known || d.HTTP != nil || d.TCP.TCP != r.chain.OnDemand.TCP {
			t.Errorf("%s: %+v", nobody, d)
		}
	}
}

// What a table names is wanted, and nothing else: ten services used, ten held.
func TestOnlyWhatIsUsedIsHeld(t *testing.T) {
	w := newWorld()
	const all, used = 500, 10
	for i := range all {
		w.add(service{fmt.Sprintf("s%03d.shop.svc.cluster.local", i), []string{fmt.Sprintf("10.2.%d.%d", i/250, i%250+1)}, 80, workload.AppProtocol_HTTP11})
	}
	split := service{"s000.shop.svc.cluster.local", nil, 80, 0}
	w.addCluster(split.cluster("v1"))
	w.addCluster(split.cluster("v2"))
	w.addRoute(split.route(), split.cluster("v1"), split.cluster("v2"))
	// Nothing comes unasked here: this client asks for clusters by name alone.
	r := newRig(t, w, nil)
	r.client.Unsubscribe(config.TypeCluster)
	for i := range used {
		r.look(t, fmt.Sprintf("10.2.0.%d:80", i+1))
	}
	eventually(t, "the cluster that only saved a round trip is not wanted any more", func() bool {
		return !slices.Contains(w.subscribed(config.TypeCluster), split.cluster(""))
	})
	if got := len(w.subscribed(config.TypeCluster)); got != used+1 {
		t.Errorf("%d clusters are subscribed to, not %d: %q", got, used+1, w.subscribed(config.TypeCluster))
	}
	for _, typeURL := range []string{TypeAddress, config.TypeRoute} {
		if got := len(w.subscribed(typeURL)); got != used {
			t.Errorf("%d of %s are subscribed to, not %d", got, typeURL, used)
		}
	}
	if s := r.Stats(); s.Destinations != used || s.Asked != used || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
}

// Where a TCP service's bytes go is what its listener says, and that may change
// without a connection going astray.
func TestListenerDecides(t *testing.T) {
	w := newWorld()
	w.add(db)
	canary := db.cluster("canary")
	w.addCluster(canary)
	w.addListener("10.1.0.2", 5432, db.cluster(""), canary)
	w.delay[config.TypeCluster] = 2 * time.Millisecond
	r := newRig(t, w, nil)
	d := r.look(t, "10.1.0.2:5432")
	if l := d.Listener(); l == nil || len(l.Default.TCP.Clusters) != 2 || ready(d) != "" {
		t.Fatalf("%+v: %s", l, ready(d))
	}
	if d := r.look(t, "10.1.0.3:5432"); d.Listener() == nil || len(d.Listener().Default.TCP.Clusters) != 1 {
		t.Error("the other address has no listener of its own")
	}
	for i := range 10 {
		next := db.cluster(fmt.Sprintf("v%d", i))
		w.addCluster(next)
		w.addListener("10.1.0.2", 5432, next)
		eventually(t, "the listener follows", func() bool {
			if why := ready(d); why != "" {
				t.Errorf("a connection finds %s", why)
			}
			return d.Listener().Default.TCP.Clusters[0].Cluster == next
		})
	}
	w.take(config.TypeListener, "10.1.0.2_5432")
	eventually(t, "without a listener the cluster of the port takes all", func() bool { return d.Listener() == nil })
	if ready(d) != "" || d.TCP.TCP.Clusters[0].Cluster != db.cluster("") {
		t.Errorf("%+v: %s", d.TCP, ready(d))
	}
	if n := len(r.store.Snapshot().Listeners); n != 0 {
		t.Errorf("%d listeners in the snapshot", n)
	}
}

func TestManyConnectionsShareOneQuestion(t *testing.T) {
	w := newWorld()
	w.add(web)
	r := newRig(t, w, nil)
	var wg sync.WaitGroup
	got := make([]*Destination, 500)
	for i := range got {
		wg.Go(func() {
			d, err := r.Lookup(t.Context(), netip.MustParseAddrPort("10.1.0.1:80"))
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = d
		})
	}
	wg.Wait()
	for _, d := range got {
		if d == nil || d != got[0] || ready(d) != "" {
			t.Fatal("not all got the same destination, ready")
		}
		d.Done()
	}
	for _, q := range []struct{ typeURL, name string }{
		{TypeAddress, "net/10.1.0.1"}, {config.TypeRoute, web.route()},
	} {
		if n := w.count(q.typeURL, q.name); n != 1 {
			t.Errorf("%s was asked for %d times", q.name, n)
		}
	}
	if n := got[0].users.Load(); n != 0 {
		t.Errorf("%d users are left", n)
	}
}

func TestAddressesOfOneServiceShare(t *testing.T) {
	w := newWorld()
	twin := service{"twin.shop.svc.cluster.local", []string{"10.1.0.8", "fd00::8"}, 80, workload.AppProtocol_HTTP11}
	w.add(twin)
	r := newRig(t, w, nil)
	a, b := r.look(t, "10.1.0.8:80"), r.look(t, "[fd00::8]:80")
	if a.HTTP != b.HTTP || a.Service != b.Service {
		t.Error("two addresses of one service have two connection managers or services")
	}
	c, err := r.LookupHost(t.Context(), "Twin.shop.svc.cluster.local.", 80)
	if err != nil || c.HTTP != a.HTTP {
		t.Errorf("by name: %+v, %v", c, err)
	}
	c.Done()
}

func TestHeadless(t *testing.T) {
	w := newWorld()
	w.add(peers)
	w.add(web)
	pod := func(ip string, services map[string]*workload.PortList) {
		uid := "cluster//Pod/shop/" + ip
		w.put(TypeAddress, uid, &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{Uid: uid, Name: ip, Services: services}}}, "net/"+ip)
	}
	ports := func(service, target uint32) *workload.PortList {
		return &workload.PortList{Ports: []*workload.Port{{ServicePort: service, TargetPort: target}}}
	}
	pod("10.3.0.1", map[string]*workload.PortList{peers.address(): ports(7000, 7000)})
	pod("10.3.0.2", map[string]*workload.PortList{web.address(): ports(80, 8080)})
	r := newRig(t, w, nil)
	d := r.look(t, "10.3.0.1:7000")
	if !d.Known || string(d.Host) != peers.host || d.HTTP.HTTP.RouteName != peers.route() || d.Workload.GetName() != "10.3.0.1" || ready(d) != "" {
		t.Errorf("a member of a headless service: %+v: %s", d, ready(d))
	}
	if d = r.look(t, "10.3.0.1:7001"); d.Known || d.Workload == nil {
		t.Errorf("another port of it: %+v", d)
	}
	if d = r.look(t, "10.3.0.2:8080"); d.Known || d.Workload == nil {
		t.Errorf("a workload behind a service with an address: %+v", d)
	}
}

func TestByName(t *testing.T) {
	w := newWorld()
	w.add(web)
	r := newRig(t, w, nil)
	s, err := r.Resolve(t.Context(), web.host)
	if err != nil || string(s.Host) != web.host || len(s.Addrs) != 1 || s.Ports[0] != (Port{80, 80, HTTP}) {
		t.Errorf("%+v, %v", s, err)
	}
	if w.count(config.TypeRoute, "") != 0 {
		t.Error("a question about a name asked for routes")
	}
	if _, err = r.Resolve(t.Context(), "nobody.example.com"); !errors.Is(err, ErrNoService) {
		t.Error(err)
	}
	d, err := r.LookupHost(t.Context(), web.host, 80)
	if err != nil || !d.Known || ready(d) != "" {
		t.Errorf("%+v, %v", d, err)
	}
	d.Done()
	if d, err = r.LookupHost(t.Context(), "nobody.example.com", 80); err != nil || d.Known {
		t.Errorf("%+v, %v", d, err)
	}
	d.Done()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	w := newWorld()
	w.add(web)
	r := newRig(t, w, nil)
	addr := netip.MustParseAddrPort("10.1.0.1:80")
	r.look(t, addr.String())
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		d, err := r.Lookup(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		d.Done()
	}); n != 0 {
		t.Errorf("%v allocations per lookup", n)
	}
	if d, err := r.LookupHost(ctx, web.host, 80); err != nil || !d.Known {
		t.Fatal(d, err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		d, err := r.LookupHost(ctx, web.host, 80)
		if err != nil {
			t.Fatal(err)
		}
		d.Done()
	}); n != 0 {
		t.Errorf("%v allocations per lookup by name", n)
	}
}

func TestTemplateIsFollowed(t *testing.T) {
	w := newWorld()
	w.add(web)
	r := newRig(t, w, nil)
	before := r.look(t, "10.1.0.1:80")
	r.SetTemplate(nil) // there is none for a moment
	r.SetTemplate(&config.FilterChain{OnDemand: &config.OnDemand{HTTP: &config.HTTP{StatPrefix: "other"}, TCP: r.chain.OnDemand.TCP}})
	eventually(t, "the destination is made of the new template", func() bool {
		d := r.look(t, "10.1.0.1:80")
		return d != before && d.HTTP.HTTP.StatPrefix == "other" && d.HTTP.HTTP.Routes == before.HTTP.HTTP.Routes
	})
}

func TestKeysAndTargets(t *testing.T) {
	w := newWorld()
	w.add(web)
	w.add(db)
	r := newRig(t, w, nil)
	r.look(t, "10.1.0.1:80")
	r.look(t, "192.0.2.1:1")
	if _, err := r.LookupHost(t.Context(), db.host, 5432); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(t.Context(), web.host); err != nil {
		t.Fatal(err)
	}
	keys := r.Keys()
	if got := strings.Join(keys, " "); got != "10.1.0.1:80 db.shop.svc.cluster.local:5432 web.shop.svc.cluster.local" {
		t.Errorf("keys %q", got)
	}
	other := newRig(t, w, nil)
	other.Warm(append(keys, "", ":80", "a/b:1", "host:99999", "::1"))
	eventually(t, "the same destinations", func() bool { return slices.Equal(other.Keys(), keys) })
	for _, k := range append(keys, "[fd00::1]:80") {
		if got, ok := parseTarget(k); !ok || got.String() != k {
			t.Errorf("%q is read as %v, %v", k, got, ok)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	w := newWorld()
	for i := range 100 {
		w.add(service{fmt.Sprintf("s%03d.shop.svc.cluster.local", i), []string{fmt.Sprintf("10.2.0.%d", i+1)}, 80, workload.AppProtocol_TCP})
	}
	r := newRig(b, w, nil)
	var addrs []netip.AddrPort
	for i := range 100 {
		addrs = append(addrs, netip.MustParseAddrPort(fmt.Sprintf("10.2.0.%d:80", i+1)))
		r.look(b, addrs[i].String())
	}
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			d, err := r.Lookup(ctx, addrs[i%len(addrs)])
			if err != nil {
				b.Fatal(err)
			}
			d.Done()
		}
	})
}

// BenchmarkFirstUse is the whole way of a destination nobody has used, over real
// xDS in memory: three round trips.
func BenchmarkFirstUse(b *testing.B) {
	w := newWorld()
	const services = 200 // and as many at once is much for one workload
	for i := range services {
		w.add(service{fmt.Sprintf("s%04d.shop.svc.cluster.local", i), []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}, 80, workload.AppProtocol_HTTP11})
	}
	r := newRig(b, w, nil)
	r.client.Unsubscribe(config.TypeCluster)
	i := 0
	for b.Loop() {
		r.look(b, fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255))
		if i++; i == services {
			b.StopTimer()
			r = newRig(b, w, nil)
			i = 0
			b.StartTimer()
		}
	}
}
