// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const typeAddress = typePrefix + "istio.workload.Address"

func eachDialect(t *testing.T, f func(t *testing.T, sotw bool)) {
	t.Run("delta", func(t *testing.T) { f(t, false) })
	t.Run("sotw", func(t *testing.T) { f(t, true) })
}

func holds(d *desk, want map[string]string) func() bool {
	return func() bool { has, _ := d.look(); return maps.Equal(has, want) }
}

func TestConfigurationArrivesInOrderAndFollowsChanges(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		hub.put(typeCluster, "a", "1")
		hub.put(typeCluster, "b", "1")
		hub.put(typeEndpoints, "a", "10")
		hub.put(typeEndpoints, "b", "20")
		hub.put(typeEndpoints, "unasked", "30")
		hub.put(typeListener, "l", "1")
		hub.put(typeRoute, "r", "1")
		addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		var s *Subscriber
		started := make(chan struct{})
		d.on = func(u Update) {
			<-started
			switch u.TypeURL {
			case typeCluster:
				for _, r := range u.Resources {
					s.Subscribe(typeEndpoints, r.Name)
				}
				for _, n := range u.Removed {
					s.Unsubscribe(typeEndpoints, n)
				}
			case typeEndpoints:
				s.Subscribe(typeListener)
			case typeListener:
				s.Subscribe(typeRoute, "r")
			}
		}
		s = start(t, addr, sotw, d)
		s.Subscribe(typeCluster)
		close(started)
		want := map[string]string{
			"Cluster/a": "1", "Cluster/b": "1", "ClusterLoadAssignment/a": "10", "ClusterLoadAssignment/b": "20",
			"Listener/l": "1", "RouteConfiguration/r": "1",
		}
		eventually(t, "the whole configuration", holds(d, want))
		var asked []string
		for _, line := range hub.said() {
			if strings.HasPrefix(line, "subscribe") {
				asked = append(asked, line)
			}
		}
		if !slices.Equal(asked, []string{
			"subscribe Cluster +[] -[] true",
			"subscribe ClusterLoadAssignment +[a b] -[] false", // together, not one by one
			"subscribe Listener +[] -[] true",
			"subscribe RouteConfiguration +[r] -[] false",
		}) {
			t.Errorf("asked: %q", asked)
		}

		hub.put(typeEndpoints, "a", "11")
		hub.put(typeCluster, "c", "1")
		want["ClusterLoadAssignment/a"], want["Cluster/c"] = "11", "1"
		eventually(t, "the change", holds(d, want))
		hub.take(typeCluster, "b")
		eventually(t, "the removal", func() bool { return slices.Contains(hub.said(), "subscribe ClusterLoadAssignment +[] -[b] false") })
		_, log := d.look()
		if n := slices.Index(log, "del Cluster/b"); n < 0 {
			t.Errorf("no removal in %q", log)
		}
		for _, line := range []string{"set Cluster/a=1", "set Listener/l=1", "full Cluster"} {
			if n := count(log, line); n != 1 {
				t.Errorf("%q came %d times in %q", line, n, log)
			}
		}
		if !s.Connected() {
			t.Error("not connected")
		}
		eventually(t, "every response is acknowledged", func() bool {
			acks := 0
			for _, l := range hub.said() {
				if strings.HasPrefix(l, "ack ") {
					acks++
				}
			}
			hub.mu.Lock()
			defer hub.mu.Unlock()
			for f := range hub.feeds {
				return acks == f.n
			}
			return false
		})
	})
}

func count(log []string, line string) (n int) {
	for _, l := range log {
		if l == line {
			n++
		}
	}
	return n
}

func TestOneBadResourceRejectsOnlyItself(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		hub.put(typeCluster, "bad1", "1")
		hub.put(typeCluster, "bad2", "1")
		hub.put(typeCluster, "good", "1")
		addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		d.reject["bad1"], d.reject["bad2"] = "unknown filter", "no endpoints"
		s := start(t, addr, sotw, d)
		s.Subscribe(typeCluster)
		eventually(t, "the good one", holds(d, map[string]string{"Cluster/good": "1"}))
		eventually(t, "one rejection", func() bool {
			return slices.Contains(hub.said(), "nack Cluster nonce1 bad1: unknown filter; bad2: no endpoints")
		})
		d.mu.Lock()
		clear(d.reject)
		d.mu.Unlock()
		hub.put(typeCluster, "bad1", "2")
		want := map[string]string{"Cluster/good": "1", "Cluster/bad1": "2"}
		if sotw {
			want["Cluster/bad2"] = "1" // repeated with the complete set, and now taken
		}
		eventually(t, "the corrected one", holds(d, want))
		eventually(t, "its acknowledgement", func() bool { return slices.Contains(hub.said(), "ack Cluster nonce2") })
	})
}

func TestRestartOfTheServerReappliesNothing(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		for _, n := range []string{"a", "b", "gone"} {
			hub.put(typeCluster, n, "1")
			hub.put(typeEndpoints, n, "1")
		}
		addr, stop := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		s := start(t, addr, sotw, d)
		s.Subscribe(typeCluster)
		s.Subscribe(typeEndpoints, "a", "b")
		want := map[string]string{"Cluster/a": "1", "Cluster/b": "1", "Cluster/gone": "1", "ClusterLoadAssignment/a": "1", "ClusterLoadAssignment/b": "1"}
		eventually(t, "the configuration", holds(d, want))
		stop()
		eventually(t, "the outage", func() bool { return !s.Connected() })
		if !holds(d, want)() {
			t.Error("an outage changed the configuration")
		}
		hub.put(typeCluster, "b", "2")
		hub.take(typeCluster, "gone")
		_, before := d.look()
		listen(t, NewServer(hub, ServerConfig{}), addr)
		want["Cluster/b"] = "2"
		delete(want, "Cluster/gone")
		eventually(t, "what changed meanwhile", holds(d, want))
		hub.put(typeEndpoints, "a", "2") // the last thing to arrive
		want["ClusterLoadAssignment/a"] = "2"
		eventually(t, "the new stream goes on", holds(d, want))
		_, log := d.look()
		after := log[len(before):]
		slices.Sort(after)
		if !slices.Equal(after, []string{"del Cluster/gone", "set Cluster/b=2", "set ClusterLoadAssignment/a=2"}) {
			t.Errorf("after the restart: %q", after)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.ups[0] != true || d.ups[1] != false || d.ups[len(d.ups)-1] != true {
			t.Errorf("connection states: %v", d.ups)
		}
	})
}

func TestOnDemandNamesAndAliases(t *testing.T) {
	hub := newShelf()
	hub.put(typeAddress, "uid1", "x", "net/10.0.0.1", "net/fd00::1")
	addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
	d := newDesk()
	s := start(t, addr, false, d)
	s.Subscribe(typeAddress, "net/10.0.0.1")
	eventually(t, "the resource by its alias", holds(d, map[string]string{"Address/uid1": "x"}))
	s.Subscribe(typeAddress, "net/10.9.9.9")
	eventually(t, "that there is none", func() bool { _, log := d.look(); return slices.Contains(log, "del Address/net/10.9.9.9") })
	hub.put(typeAddress, "uid2", "y", "net/10.9.9.9")
	eventually(t, "that now there is one", holds(d, map[string]string{"Address/uid1": "x", "Address/uid2": "y"}))

	s.Unsubscribe(typeAddress, "net/10.0.0.1")
	eventually(t, "the end of the subscription", func() bool {
		return slices.Contains(hub.said(), "subscribe Address +[] -[net/10.0.0.1] false")
	})
	s.Subscribe(typeAddress, "net/fd00::1") // forgotten, hence delivered again
	eventually(t, "the resource anew", func() bool { _, log := d.look(); return count(log, "set Address/uid1=x") == 2 })
}

// An answer that bears the name asked for is that name's, whoever has it as an alias.
func TestUnsubscribeTakesTheNameBeforeTheAlias(t *testing.T) {
	tp := newTopic(typeAddress)
	tp.subscribe([]string{"net/1", "net/2"})
	tp.accept(Resource{Name: "net/1", Aliases: []string{"uid"}, Body: body(typeAddress, "net/1", "")}, nil)
	tp.accept(Resource{Name: "net/2", Aliases: []string{"uid", "net/1"}, Body: body(typeAddress, "net/2", "")}, nil)
	tp.unsubscribe([]string{"net/1"})
	if _, ok := tp.known["net/1"]; ok {
		t.Error("what was asked for as net/1 is still held")
	}
	if _, ok := tp.known["net/2"]; !ok {
		t.Error("what was asked for as net/2 is not held any more")
	}
}

func TestAliasKeepsAResourceThatAnotherNameHolds(t *testing.T) {
	tp := newTopic(typeAddress)
	tp.subscribe([]string{"net/1", "net/2"})
	tp.accept(Resource{Name: "uid", Aliases: []string{"net/1", "net/2"}, Body: body(typeAddress, "uid", "")}, nil)
	tp.unsubscribe([]string{"net/1"})
	if _, ok := tp.known["uid"]; !ok {
		t.Fatal("forgotten while net/2 asks for it")
	}
	tp.unsubscribe([]string{"net/2"})
	if len(tp.known)+len(tp.aliases) != 0 {
		t.Fatalf("still known: %v %v", tp.known, tp.aliases)
	}
	if _, ok := tp.drop["uid"]; !ok {
		t.Error("the server is not told to drop the resource's own name")
	}
}

func TestMissingListenersAreReportedOnce(t *testing.T) {
	hub := newShelf()
	hub.put(typeListener, "here", "1")
	addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
	d := newDesk()
	s := start(t, addr, true, d)
	s.Subscribe(typeListener, "here", "missing")
	eventually(t, "the listener", holds(d, map[string]string{"Listener/here": "1"}))
	hub.put(typeListener, "here", "2")
	eventually(t, "its change", holds(d, map[string]string{"Listener/here": "2"}))
	if _, log := d.look(); count(log, "del Listener/missing") != 1 {
		t.Errorf("log: %q", log)
	}
	hub.put(typeListener, "missing", "1")
	eventually(t, "the missing one", holds(d, map[string]string{"Listener/here": "2", "Listener/missing": "1"}))
}

func TestMalformedResourcesAreRefusedOneByOne(t *testing.T) {
	x := &session{Subscriber: NewClient(ClientConfig{}, newDesk())}
	tp := newTopic(typeCluster)
	news, _, bad := x.sift(tp, &Update{TypeURL: typeCluster, Resources: []Resource{
		{Name: "", Body: body(typeCluster, "", "")},
		{Name: "a", Body: body(typeCluster, "a", "1")},
		{Name: "a", Body: body(typeCluster, "a", "2")},
		{Name: "b"},
		{Name: "c", Body: body(typeRoute, "c", "")},
	}})
	if len(news.Resources) != 1 || text(news.Resources[0]) != "1" || len(bad) != 4 {
		t.Fatalf("news %v, bad %v", news, bad)
	}
	long := detail([]Rejection{{Name: strings.Repeat("é", maxDetail), Err: bad[0].Err}})
	if len(long) > maxDetail+10 {
		t.Errorf("a rejection of %d bytes", len(long))
	}
}

// What turns out to be of no use after it was taken is refused then, and acknowledged when it is of use.
func TestAHandlerMayChangeItsMind(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		hub.put(typeListener, "a", "1")
		hub.put(typeListener, "b", "1")
		addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		s := start(t, addr, sotw, d)
		s.Subscribe(typeListener)
		last := func() string {
			said := ""
			for _, line := range hub.said() {
				if strings.HasPrefix(line, "ack") || strings.HasPrefix(line, "nack") {
					said = line
				}
			}
			verb, _, _ := strings.Cut(said, " ")
			_, detail, _ := strings.Cut(said, ": ")
			return strings.TrimSpace(verb + " " + detail)
		}
		becomes := func(want string) {
			t.Helper()
			eventually(t, want, func() bool { return last() == want })
		}
		becomes("ack")
		s.Review(typeListener, map[string]error{"a": errors.New("taken")})
		becomes("nack taken")
		s.Review(typeListener, nil)
		becomes("ack")

		// From within Apply, of what is applied.
		d.on = func(u Update) {
			if len(u.Resources) > 0 {
				s.Review(typeListener, map[string]error{"b": errors.New("taken, too")})
			}
		}
		hub.put(typeListener, "b", "2")
		becomes("nack taken, too")
		s.Subscribe(typeListener, "a") // a change of what is wanted is no answer
		s.Review(typeListener, nil)
		becomes("ack")
	})
}

// What is said of one type while another is being applied is not forgotten: no answer of its own may ever follow.
func TestAHandlerMayChangeItsMindWhileAnotherTypeIsApplied(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		hub.put(typeListener, "a", "1")
		hub.put(typeCluster, "c", "1")
		addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		s := start(t, addr, sotw, d)
		s.Subscribe(typeListener)
		s.Subscribe(typeCluster)
		becomes := func(verb string) {
			t.Helper()
			eventually(t, verb, func() bool {
				said := ""
				for _, line := range hub.said() {
					if strings.HasPrefix(line, "ack "+short(typeListener)) || strings.HasPrefix(line, "nack "+short(typeListener)) {
						said, _, _ = strings.Cut(line, " ")
					}
				}
				return said == verb
			})
		}
		becomes("ack")
		for _, step := range []struct {
			failing map[string]error
			verb    string
		}{{map[string]error{"a": errors.New("taken")}, "nack"}, {nil, "ack"}} {
			d.mu.Lock()
			d.on = func(Update) { s.Review(typeListener, step.failing) }
			d.mu.Unlock()
			hub.put(typeCluster, "c", step.verb)
			becomes(step.verb)
		}
	})
}

// What is refused goes when it is taken away, also while nobody is there to say so.
func TestWhatIsRefusedIsRemoved(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		hub := newShelf()
		for _, name := range []string{"a", "b", "good"} {
			hub.put(typeListener, name, "1")
		}
		addr, stop := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
		d := newDesk()
		d.reject["a"], d.reject["b"] = "no", "no"
		s := start(t, addr, sotw, d)
		s.Subscribe(typeListener)
		eventually(t, "the good one", holds(d, map[string]string{"Listener/good": "1"}))
		hub.take(typeListener, "a")
		eventually(t, "the removal", func() bool { _, log := d.look(); return count(log, "del Listener/a") == 1 })
		stop()
		hub.take(typeListener, "b")
		listen(t, NewServer(hub, ServerConfig{}), addr)
		eventually(t, "the other removal", func() bool { _, log := d.look(); return count(log, "del Listener/b") == 1 })
	})
}

func TestRefusingTheSameAgainTakesPatience(t *testing.T) {
	p := newTopic(typeCluster)
	for i, c := range []struct {
		version, reason string
		want            time.Duration
	}{
		{"1", "bad", 0}, {"1", "bad", firstPatience}, {"1", "bad", 2 * firstPatience}, {"1", "worse", 0}, {"2", "worse", 0},
		{"2", "worse", firstPatience}, {"2", "", 0}, {"2", "worse", 0},
	} {
		if got := p.patience(c.version, c.reason); got != c.want {
			t.Errorf("step %d: %v, want %v", i, got, c.want)
		}
	}
	for range 100 {
		if got := p.patience("2", "worse"); got > lastPatience || got <= 0 {
			t.Fatalf("%v", got)
		}
	}
}
