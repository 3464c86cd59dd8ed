// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/xds"
)

const moment = 40 * time.Millisecond // more than Quiet, less than Max and RemoveAfter

// script runs fn with a world and a feed in it, in fake time.
func script(t *testing.T, fn func(t *testing.T, w *world, f *feed)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(Config{})
		fn(t, w, w.open(t, "sidecar", "z"))
	})
}

func TestFirstAnswersAreFull(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "b", "1")
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "elsewhere", "1@y")
		f.Subscribe(typeCluster, nil, nil, true)
		expect(t, "clusters", said(t, f, 0+moment), "Cluster full a=1 b=1")
		f.Subscribe(typeEndpoint, []string{"b", "a"}, nil, false)
		expect(t, "endpoints", said(t, f, moment), "ClusterLoadAssignment full a=empty b=empty")
		f.Subscribe(typeListener, nil, nil, true)
		expect(t, "no listeners", said(t, f, moment), "Listener full")
		f.Subscribe(typePrefix+"unheard.Of", []string{"x"}, nil, true)
		expect(t, "an unknown type", said(t, f, moment), "Of full -x")
		f.Subscribe(typeRoute, nil, nil, false)
		expect(t, "nothing wanted yet", said(t, f, moment), "RouteConfiguration full")
	})
}

func TestAnswersDoNotWait(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		began := time.Now()
		f.Subscribe(typeCluster, nil, nil, true)
		took(t, f, moment)
		if d := time.Since(began); d != 0 {
			t.Errorf("an answer took %v", d)
		}
		began = time.Now()
		w.set(typeCluster, "a", "1")
		took(t, f, moment)
		if d := time.Since(began); d != 5*time.Millisecond {
			t.Errorf("a change took %v", d)
		}
	})
}

// Changes that keep coming are sent together, but not held up for ever.
func TestChangesAreSentTogether(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		f.Subscribe(typeCluster, nil, nil, true)
		said(t, f, moment)
		go func() {
			for i := range 50 {
				w.set(typeCluster, fmt.Sprintf("c%02d", i), "1")
				time.Sleep(2 * time.Millisecond)
			}
		}()
		began := time.Now()
		n, updates := 0, 0
		for n < 50 {
			u := took(t, f, time.Second)
			n += len(u.Resources)
			updates++
		}
		if d := time.Since(began); updates != 2 || d > 150*time.Millisecond {
			t.Errorf("%d changes came in %d updates within %v", n, updates, d)
		}
	})
}

func TestOnlyWhatChangedIsSentInOrder(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		for _, typeURL := range []string{typeCluster, typeListener, typeEndpoint, typeRoute} {
			for _, n := range []string{"a", "b", "c"} {
				w.set(typeURL, n, "1")
			}
		}
		f.Subscribe(typeRoute, []string{"a", "b"}, nil, false)
		f.Subscribe(typeListener, nil, nil, true)
		f.Subscribe(typeCluster, nil, nil, true)
		f.Subscribe(typeEndpoint, []string{"a", "b"}, nil, false)
		expect(t, "first", said(t, f, moment), "Cluster full a=1 b=1 c=1; ClusterLoadAssignment full a=1 b=1; "+
			"Listener full a=1 b=1 c=1; RouteConfiguration full a=1 b=1")
		w.set(typeRoute, "a", "2")
		w.set(typeListener, "b", "")
		w.set(typeListener, "d", "1")
		w.set(typeEndpoint, "b", "2")
		w.set(typeEndpoint, "c", "2") // nobody asked
		w.set(typeCluster, "d", "1")
		expect(t, "changes", said(t, f, moment), "Cluster d=1; ClusterLoadAssignment b=2; Listener d=1 -b; RouteConfiguration a=2")
		w.set(typeEndpoint, "b", "")
		expect(t, "endpoints that are gone", said(t, f, moment), "ClusterLoadAssignment b=empty")
		w.set(typeRoute, "a", "3")
		w.set(typeRoute, "a", "2")
		expect(t, "changed back", said(t, f, moment), "")
	})
}

// An Envoy keeps a new or changed cluster aside until endpoints arrive, though they are the same.
func TestEndpointsFollowTheirCluster(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		f.Subscribe(typeCluster, nil, nil, true)
		f.Subscribe(typeEndpoint, []string{"a", "b"}, nil, false)
		said(t, f, moment)
		w.set(typeCluster, "a", "2")
		expect(t, "a changed cluster", said(t, f, moment), "Cluster a=2; ClusterLoadAssignment a=empty")
		f.Subscribe(typeCluster, nil, nil, true)
		expect(t, "clusters again", said(t, f, moment), "Cluster full a=2 b=1; ClusterLoadAssignment a=empty b=empty")
		f.Subscribe(typeCluster, []string{"b"}, nil, false)
		expect(t, "one by name", said(t, f, moment), "Cluster b=1; ClusterLoadAssignment b=empty")
	})
}

func TestAClusterThatGoesKeepsItsEndpoints(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeEndpoint, "a", "1")
		f.Subscribe(typeCluster, nil, nil, true)
		f.Subscribe(typeEndpoint, []string{"a"}, nil, false)
		f.Subscribe(typeRoute, []string{"r"}, nil, false)
		said(t, f, moment)
		w.set(typeCluster, "a", "")
		w.set(typeEndpoint, "a", "")
		w.set(typeRoute, "r", "2")
		expect(t, "at first", said(t, f, moment), "RouteConfiguration r=2")
		w.set(typeCluster, "a", "2")
		w.set(typeEndpoint, "a", "2")
		expect(t, "it comes back", said(t, f, moment), "Cluster a=2; ClusterLoadAssignment a=2")
		w.set(typeCluster, "a", "")
		w.set(typeEndpoint, "a", "")
		expect(t, "it goes", said(t, f, time.Second), "Cluster -a; ClusterLoadAssignment a=empty")
	})
}

// A client that asks for clusters by name says itself when it needs one no more.
func TestAClusterStaysWhileItIsAskedFor(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		f.Subscribe(typeCluster, []string{"a", "b"}, nil, true)
		said(t, f, moment)
		w.set(typeCluster, "b", "")
		expect(t, "while it is asked for", said(t, f, 2*time.Second), "")
		f.Subscribe(typeCluster, nil, []string{"b"}, true)
		expect(t, "after that", said(t, f, time.Second), "Cluster -b")
		w.set(typeCluster, "a", "")
		expect(t, "not for ever", said(t, f, 6*time.Second), "Cluster -a")
	})
}

func TestClustersAreRemovedLast(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		f.Subscribe(typeCluster, nil, nil, true)
		f.Subscribe(typeRoute, []string{"r"}, nil, false)
		said(t, f, moment)
		w.set(typeCluster, "a", "")
		w.set(typeRoute, "r", "2")
		expect(t, "at first", said(t, f, moment), "RouteConfiguration r=2")
		expect(t, "then", said(t, f, time.Second), "Cluster -a")

		w.set(typeCluster, "b", "")
		w.set(typeRoute, "r", "3")
		u := took(t, f, moment)
		began := time.Now()
		expect(t, "unanswered", words(took(t, f, 10*time.Second)), "Cluster -b")
		if d := time.Since(began); d < 4*time.Second || d > 5*time.Second {
			t.Errorf("a client that does not answer was waited for %v", d)
		}
		f.Ack(u.TypeURL, u.Nonce)

		w.set(typeCluster, "c", "1")
		said(t, f, moment)
		w.set(typeCluster, "c", "")
		expect(t, "gone", said(t, f, moment), "")
		w.set(typeCluster, "c", "1")
		expect(t, "and back", said(t, f, time.Second), "Cluster c=1")
	})
}

func TestSubscriptionsByName(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeAddress, "uid", "1 ns/host net/1.2.3.4")
		f.Subscribe(typeAddress, []string{"net/1.2.3.4", "ns/none"}, nil, false)
		expect(t, "by alias", said(t, f, moment), "Address full uid=1 -ns/none")
		f.Subscribe(typeAddress, []string{"ns/host"}, nil, false)
		expect(t, "by another", said(t, f, moment), "Address uid=1")
		f.Subscribe(typeAddress, []string{"ns/none"}, nil, false)
		expect(t, "again", said(t, f, moment), "Address -ns/none")
		w.set(typeAddress, "uid", "2 ns/host net/1.2.3.4")
		expect(t, "once, though asked for twice", said(t, f, moment), "Address uid=2")
		w.set(typeAddress, "uid", "2 ns/host")
		expect(t, "an alias goes", said(t, f, moment), "Address -net/1.2.3.4")
		w.set(typeAddress, "other", "1 ns/none")
		expect(t, "a missing one comes", said(t, f, moment), "Address other=1")
		f.Subscribe(typeAddress, nil, []string{"ns/host", "net/1.2.3.4"}, false)
		w.set(typeAddress, "uid", "3 ns/host")
		expect(t, "unsubscribed", said(t, f, moment), "")
		w.set(typeAddress, "other", "")
		expect(t, "gone", said(t, f, moment), "Address -ns/none -other")
		f.Subscribe(typeAddress, nil, nil, true)
		expect(t, "all", said(t, f, moment), "Address full uid=3 -ns/none")
		f.Subscribe(typeAddress, nil, nil, false)
		w.set(typeAddress, "uid", "4")
		expect(t, "none", said(t, f, moment), "")
		f.Subscribe(typeCluster, []string{"none"}, nil, false)
		expect(t, "a cluster that never was", said(t, f, moment), "Cluster full -none")
	})
}

func TestExtensionsAreNeverRemoved(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeExtension, "wasm", "1")
		f.Subscribe(typeExtension, []string{"wasm"}, nil, false)
		said(t, f, moment)
		w.set(typeExtension, "wasm", "")
		expect(t, "removed", said(t, f, moment), "")
		w.set(typeExtension, "wasm", "2")
		expect(t, "back", said(t, f, moment), "TypedExtensionConfig wasm=2")
	})
}

func TestWhoIsNotServed(t *testing.T) {
	cfg := Config{}
	w := newWorld(cfg)
	open := func(id string) codes.Code {
		_, err := w.hub.Open(t.Context(), &xds.Client{Node: &corev3.Node{Id: id}})
		return status.Code(err)
	}
	if got := open("bad"); got != codes.InvalidArgument {
		t.Errorf("a bad node: %v", got)
	}
	if got := open("ztunnel"); got != codes.InvalidArgument {
		t.Errorf("a node of no backend: %v", got)
	}
	ready := fmt.Errorf("sources are not read yet")
	w.hub.cfg.Ready = func() error { return ready }
	if got := open("sidecar"); got != codes.Unavailable {
		t.Errorf("not ready: %v", got)
	}
}

// A defect in a query ends the streams that need it, and nothing else.
func TestPanicEndsTheStream(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.broken = "a"
		f.Subscribe(typeCluster, nil, nil, true)
		if _, err := f.Next(t.Context()); status.Code(err) != codes.Internal {
			t.Errorf("error is %v", err)
		}
		g := w.open(t, "another", "z")
		g.Subscribe(typeListener, nil, nil, true)
		expect(t, "another client", said(t, g, moment), "Listener full")
	})
}

func TestClientsThatAreAlikeShare(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		for i := range 100 {
			w.set(typeCluster, fmt.Sprint(i), "1")
		}
		feeds := []*feed{f}
		for range 20 {
			feeds = append(feeds, w.open(t, "sidecar", "z"))
		}
		for _, f := range feeds {
			f.Subscribe(typeCluster, nil, nil, true)
			said(t, f, moment)
		}
		computed := func() (n uint64) {
			for _, q := range w.g.Stats().Queries {
				n += q.Computed
			}
			return n
		}
		before := computed()
		w.set(typeCluster, "7", "2")
		for _, f := range feeds {
			expect(t, "change", said(t, f, moment), "Cluster 7=2")
		}
		if n := computed() - before; n != 2 {
			t.Errorf("%d queries ran for one change, want the resource and the list", n)
		}
	})
}

func TestCloseLetsGo(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		f.Subscribe(typeCluster, nil, nil, true)
		f.Subscribe(typeEndpoint, []string{"a"}, nil, false)
		said(t, f, moment)
		f.Close()
		held := 0
		for _, q := range w.g.Stats().Queries {
			held += q.Held
		}
		if held != 0 || len(w.hub.Status()) != 0 {
			t.Errorf("%d results are held, %d clients known", held, len(w.hub.Status()))
		}
	})
}

// A client that asks and takes back without ever reading makes nothing pile up, and gets what it wants in the end.
func TestRequestsOfAClientThatDoesNotRead(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeEndpoint, "stays", "1")
		w.set(typeEndpoint, "new", "1")
		f.Subscribe(typeEndpoint, []string{"stays", "goes", "returns"}, nil, false)
		said(t, f, moment)
		f.Subscribe(typeEndpoint, nil, []string{"goes", "returns"}, false)
		f.Subscribe(typeEndpoint, []string{"new", "returns"}, nil, false)
		f.Subscribe(typeCluster, nil, nil, true)
		for i := range 10_000 {
			name := []string{fmt.Sprint("n", i)}
			f.Subscribe(typeEndpoint, name, nil, false)
			f.Subscribe(typeEndpoint, nil, name, false)
			f.Subscribe(typeCluster, nil, nil, i%2 == 1)
		}
		if len(f.asks) != 2 || len(f.asks[0].names) != 3 || len(f.asks[1].names) != 0 {
			t.Errorf("%d types are pending, the first with %d names", len(f.asks), len(f.asks[0].names))
		}
		expect(t, "the net change", said(t, f, moment), "Cluster full; ClusterLoadAssignment new=1 returns=empty stays=1")
	})
}
