// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/sourcetest"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

// large is a mesh of n services in n/20 namespaces, each with two workloads, a VirtualService and a DestinationRule, and
// everything held that proxies of one namespace, a gateway and the status display ask for.
type large struct {
	*world
	memory  *source.Memory
	watcher *derive.Watcher
}

const perNamespace = 20

func nameOf(i int) (mesh.Namespace, string) {
	return mesh.Namespace(fmt.Sprintf("ns-%d", i/perNamespace)), fmt.Sprintf("svc-%d", i)
}

func hostOf(i int) mesh.Hostname {
	ns, name := nameOf(i)
	return mesh.ServiceHost(name, ns, "")
}

func newLarge(t *testing.T, n int) *large {
	m := source.NewMemory("memory")
	var all []source.Entry
	for i := range n {
		ns, name := nameOf(i)
		all = append(all, sourcetest.Service(ns, name, 80), route(i, 1), &source.Object[*source.DestinationRule]{
			Key:  source.Key{Kind: source.KindDestinationRule, Namespace: ns, Name: name},
			Spec: &source.DestinationRule{Host: name, Subsets: []*networking.Subset{{Name: "v1"}, {Name: "v2"}}},
		})
		for j := range 2 {
			all = append(all, workload(i, j, source.Ready))
		}
	}
	all = append(all, &source.Object[*source.Gateway]{
		Key: source.Key{Kind: source.KindGateway, Namespace: "infra", Name: "edge"},
		Spec: &source.Gateway{
			Selector: map[string]string{"istio": "ingressgateway"},
			Servers: []*networking.Server{{
				Port: &networking.Port{Number: 80, Name: "http", Protocol: "HTTP"}, Hosts: []string{"*"},
			}},
		},
	})
	m.Put(all...)
	w := newWorld(m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-w.gather.Synced()
	l := &large{world: w, memory: m, watcher: w.graph.NewWatcher()}
	l.hold(n)
	l.watcher.Drain(func(*derive.Context, *derive.Hold) {})
	return l
}

// route is the VirtualService of service i in a version that tells by its weights; it is bound to sidecars and to the gateway.
func route(i int, weight int32) source.Entry {
	ns, name := nameOf(i)
	o := sourcetest.VirtualService(ns, name, name)
	o.Spec.Gateways = []string{"mesh", "infra/edge"}
	o.Spec.Http[0].Route = []*networking.HTTPRouteDestination{
		{Destination: &networking.Destination{Host: name, Subset: "v1"}, Weight: weight},
		{Destination: &networking.Destination{Host: name, Subset: "v2"}, Weight: 100 - weight},
	}
	return o
}

func workload(i, j int, h source.Health) source.Entry {
	ns, name := nameOf(i)
	return &source.Object[source.Workload]{
		Key:    source.Key{Kind: source.KindWorkload, Namespace: ns, Name: fmt.Sprintf("%s-%d", name, j)},
		Labels: mesh.Labels{mesh.LabelApp: name, mesh.LabelVersion: fmt.Sprintf("v%d", j+1)},
		Spec: source.Workload{
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)})},
			Health: h,
		},
	}
}

// hold asks for what a proxy of namespace ns-0 that knows all services, a gateway and the display of problems ask for.
func (l *large) hold(n int) {
	scope := intent.Scope{Namespace: "ns-0"}
	w := l.watcher
	derive.Watch(w, l.wishes.Visible, scope, nil)
	derive.Watch(w, l.wishes.RouteHosts, scope, nil)
	derive.Watch(w, l.facts.Names, "ns-0", nil)
	derive.Watch(w, l.statuses.Problems, struct{}{}, nil)
	gw := intent.NewSubject("infra", mesh.Labels{"istio": "ingressgateway"})
	derive.Watch(w, l.wishes.VirtualHosts, intent.Table{Subject: gw, Port: 80, Server: -1}, nil)
	for i := range n {
		ns, name := nameOf(i)
		key := registry.ServiceKey{Namespace: ns, Host: hostOf(i)}
		derive.Watch(w, l.wishes.Routes, intent.HostIn{Scope: scope, Host: hostOf(i)}, nil)
		derive.Watch(w, l.wishes.Rules, intent.RuleFor{Client: "ns-0", Service: key}, nil)
		derive.Watch(w, l.facts.Endpoints, registry.PortKey{Service: key, Port: 80}, nil)
		for j := range 2 {
			subject := intent.NewSubject(ns, mesh.Labels{mesh.LabelApp: name, mesh.LabelVersion: fmt.Sprintf("v%d", j+1)})
			derive.Watch(w, l.wishes.PeerAuth, subject, nil)
			derive.Watch(w, l.wishes.Authorization, subject, nil)
			derive.Watch(w, l.wishes.Sidecar, subject, nil)
			derive.Watch(w, l.facts.Served, workload(i, j, 0).ObjectKey(), nil)
		}
	}
}

// cost is how many results a change recomputed, by query, and how many of those that are held it changed.
func (l *large) cost(change func()) (computed map[string]int, changed int) {
	count := func() map[string]int {
		m := map[string]int{}
		for _, q := range l.graph.Stats().Queries {
			m[q.Name] += int(q.Computed)
		}
		return m
	}
	before := count()
	change()
	<-l.watcher.Ready()
	l.watcher.Drain(func(*derive.Context, *derive.Hold) { changed++ })
	computed = map[string]int{}
	for name, n := range count() {
		if d := n - before[name]; d > 0 {
			computed[name] = d
		}
	}
	return computed, changed
}

func sum(m map[string]int) (n int) {
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// TestChangesCostWhatTheyConcern counts the results that one edit recomputes: it must not depend on the number of services.
func TestChangesCostWhatTheyConcern(t *testing.T) {
	edits := []struct {
		name    string
		most    int // results recomputed
		changes int // held results that differ
		make    func(l *large)
	}{
		{"a VirtualService", 12, 2, func(l *large) { l.memory.Put(route(7, 20)) }},
		{"a workload becomes unready", 6, 1, func(l *large) { l.memory.Put(workload(7, 0, source.NotReady)) }},
		{"a workload comes", 12, 1, func(l *large) { l.memory.Put(workload(7, 5, source.Ready)) }},
		{"a label of a service", 30, 2, func(l *large) {
			o := sourcetest.Service("ns-0", "svc-7", 80)
			o.Labels = mesh.Labels{"a": "b"}
			l.memory.Put(o)
		}},
		{"a rule", 12, 1, func(l *large) {
			ns, name := nameOf(7)
			l.memory.Put(&source.Object[*source.DestinationRule]{
				Key:  source.Key{Kind: source.KindDestinationRule, Namespace: ns, Name: name},
				Spec: &source.DestinationRule{Host: name, Subsets: []*networking.Subset{{Name: "v1"}, {Name: "v2"}, {Name: "v3"}}},
			})
		}},
		{"a policy of one namespace", 4 * perNamespace, 2 * perNamespace, func(l *large) {
			l.memory.Put(&source.Object[*source.AuthorizationPolicy]{
				Key: source.Key{Kind: source.KindAuthorizationPolicy, Namespace: "ns-3", Name: "p"}, Spec: &source.AuthorizationPolicy{},
			})
		}},
	}
	costs := map[string][]map[string]int{}
	for _, n := range []int{200, 2000} {
		l := newLarge(t, n)
		for _, e := range edits {
			computed, changed := l.cost(func() { e.make(l) })
			if sum(computed) > e.most || changed != e.changes {
				t.Errorf("%d services: %s recomputed %d results and changed %d; want at most %d and %d: %v",
					n, e.name, sum(computed), changed, e.most, e.changes, computed)
			}
			costs[e.name] = append(costs[e.name], computed)
			t.Logf("%d services: %s: %d recomputed, %d changed: %v", n, e.name, sum(computed), changed, computed)
		}
	}
	for _, e := range edits {
		if c := costs[e.name]; !maps.Equal(c[0], c[1]) {
			t.Errorf("%s costs %v with 200 services and %v with 2000", e.name, c[0], c[1])
		}
	}
}

func TestLastGoodVersionStays(t *testing.T) {
	m := source.NewMemory("memory")
	m.Put(route(0, 10), sourcetest.Service("ns-0", "svc-0", 80))
	w := newWorld(m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-w.gather.Synced()
	key := route(0, 0).ObjectKey()
	watcher := w.graph.NewWatcher()
	derive.Watch(watcher, w.statuses.Of, key, nil)
	weight := func() (weight uint32, s *intent.HostRoutes, status string) {
		w.graph.Read(func(c *derive.Context) {
			s = w.wishes.Routes.Get(c, intent.HostIn{Scope: intent.Scope{Namespace: "ns-0"}, Host: hostOf(0)})
			st := w.statuses.Of.Get(c, key)
			status = fmt.Sprintf("accepted %v, in force %v", st.Accepted, st.InForce)
			for _, p := range st.Problems {
				if p.Severity == source.Error {
					status += "; " + p.Message
				}
			}
		})
		if s != nil {
			weight = s.HTTP[0].Forward[0].Weight
		}
		return weight, s, status
	}
	step := func(change func(), want uint32, status string) {
		t.Helper()
		watcher.Drain(func(*derive.Context, *derive.Hold) {})
		change()
		<-watcher.Ready()
		if got, _, s := weight(); got != want || s != status {
			t.Errorf("weight %d, %s; want %d, %s", got, s, want, status)
		}
	}
	watcher.Drain(func(*derive.Context, *derive.Hold) {})
	const bad = "accepted false, in force true; a weight cannot be negative; the version before this one stays in force"
	step(func() { m.Put(route(0, -5)) }, 10, bad)
	step(func() { m.Put(route(0, 30)) }, 30, "accepted true, in force true")
	step(func() { m.Delete(key) }, 0, "accepted false, in force false")
	step(func() { m.Put(route(0, -5)) }, 0, "accepted false, in force false; a weight cannot be negative")
}

// What yields goes last, wherever it comes from, and nobody is told.
func TestWhatYieldsGoesLast(t *testing.T) {
	for yielding, want := range []int32{20, 10} {
		sources := []*source.Memory{source.NewMemory("first"), source.NewMemory("second")}
		for i, m := range sources {
			r := route(0, []int32{10, 20}[i])
			if i == yielding {
				r.(*source.Object[*source.VirtualService]).Annotations = mesh.Labels{source.Yields: "true"}
			}
			m.Put(r)
		}
		w := newWorld(sources[0], sources[1])
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.gather.Run(ctx) }()
		<-w.gather.Synced()
		w.graph.Read(func(c *derive.Context) {
			r := w.wishes.Routes.Get(c, intent.HostIn{Scope: intent.Scope{Namespace: "ns-0"}, Host: hostOf(0)})
			if got := r.HTTP[0].Forward[0].Weight; got != uint32(want) {
				t.Errorf("source %d yields: weight %d, want %d", yielding, got, want)
			}
			for _, p := range w.statuses.Problems.Get(c, struct{}{}) {
				if p.Severity == source.Error {
					t.Errorf("source %d yields: %v", yielding, p)
				}
			}
		})
		cancel()
		<-done
	}
}

// What is wrong with an object that does not count anyway is said, and says nothing of the one that counts.
func TestProblemsOfWhatGoesLast(t *testing.T) {
	for _, yields := range []string{"", "true"} {
		first, second := source.NewMemory("first"), source.NewMemory("second")
		first.Put(route(0, 10))
		bad := route(0, -5)
		bad.(*source.Object[*source.VirtualService]).Annotations = mesh.Labels{source.Yields: yields}
		second.Put(bad)
		w := newWorld(first, second)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.gather.Run(ctx) }()
		<-w.gather.Synced()
		w.graph.Read(func(c *derive.Context) {
			s := w.statuses.Of.Get(c, bad.ObjectKey())
			if !s.Accepted || !s.InForce || !slices.ContainsFunc(s.Problems, func(p source.Problem) bool { return p.Severity == source.Error }) {
				t.Errorf("yields %q: accepted %v, in force %v: %v", yields, s.Accepted, s.InForce, s.Problems)
			}
		})
		cancel()
		<-done
	}
}

// What would go first, were it not refused, is what its author has to know of.
func TestProblemsOfWhatWouldGoFirst(t *testing.T) {
	first, second := source.NewMemory("first"), source.NewMemory("second")
	first.Put(route(0, -5))
	second.Put(route(0, 10))
	w := newWorld(first, second)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-w.gather.Synced()
	w.graph.Read(func(c *derive.Context) {
		if s := w.statuses.Of.Get(c, route(0, 10).ObjectKey()); s.Accepted || !s.InForce {
			t.Errorf("accepted %v, in force %v: %v", s.Accepted, s.InForce, s.Problems)
		}
	})
}

func TestEarlierSourceWins(t *testing.T) {
	first, second := source.NewMemory("first"), source.NewMemory("second")
	first.Put(route(0, 10))
	second.Put(route(0, 20), route(1, 20))
	w := newWorld(first, second)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-w.gather.Synced()
	w.graph.Read(func(c *derive.Context) {
		for i, want := range []uint32{10, 20} {
			r := w.wishes.Routes.Get(c, intent.HostIn{Scope: intent.Scope{Namespace: "ns-0"}, Host: hostOf(i)})
			if got := r.HTTP[0].Forward[0].Weight; got != want {
				t.Errorf("svc-%d: weight %d, want %d", i, got, want)
			}
		}
		problems := w.statuses.Problems.Get(c, struct{}{})
		if !slices.ContainsFunc(problems, func(p source.Problem) bool {
			return p.Message == "source first has this object, too, and goes first"
		}) {
			t.Errorf("problems = %v, want one about the second source", problems)
		}
	})
}
