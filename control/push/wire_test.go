// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meltemi/meltemi/xds"
)

// desk is the applying end of a real client: it keeps what it gets, and asks for the endpoints of its clusters.
type desk struct {
	sub *xds.Subscriber

	mu     sync.Mutex
	has    map[string]string
	refuse string
}

func (d *desk) Apply(u xds.Update) (bad []xds.Rejection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var clusters []string
	for _, r := range u.Resources {
		if r.Name == d.refuse {
			bad = append(bad, xds.Rejection{Name: r.Name, Err: errors.New("it cannot be")})
			continue
		}
		// Version is not on the wire in state-of-the-world; the text is field 2, after the name.
		d.has[short(u.TypeURL)+" "+r.Name] = string(r.Body.GetValue()[2+len(r.Name)+2:])
		if u.TypeURL == typeCluster {
			clusters = append(clusters, r.Name)
		}
	}
	for _, n := range u.Removed {
		delete(d.has, short(u.TypeURL)+" "+n)
	}
	if len(clusters) > 0 {
		d.sub.Subscribe(typeEndpoint, clusters...)
	}
	return bad
}

func (d *desk) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(d.has)) {
		out = append(out, k+"="+d.has[k])
	}
	return strings.Join(out, ", ")
}

// connect runs a real client against a real server of w until the test ends.
func connect(t *testing.T, w *world, sotw bool) *desk {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := xds.NewServer(w.hub, xds.ServerConfig{})
	g := grpc.NewServer(srv.Options()...)
	srv.Register(g)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	d := &desk{has: map[string]string{}}
	d.sub = xds.NewClient(xds.ClientConfig{
		Target: l.Addr().String(), SotW: sotw, Node: &corev3.Node{Id: "sidecar", Locality: &corev3.Locality{Zone: "z"}},
		Options:    []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	}, d)
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if err := d.sub.Run(ctx); err != nil {
			t.Errorf("client: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); srv.Close(); g.Stop(); wg.Wait() })
	return d
}

func eventually(t *testing.T, what, want string, got func() string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for got() != want {
		select {
		case <-deadline:
			t.Fatalf("%s: %s, want %s", what, got(), want)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestOverTheWire(t *testing.T) {
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%v", sotw), func(t *testing.T) {
			w := newWorld(Config{RemoveAfter: time.Millisecond})
			w.set(typeCluster, "a", "1")
			w.set(typeCluster, "b", "1")
			w.set(typeEndpoint, "a", "10.0.0.1")
			d := connect(t, w, sotw)
			d.sub.Subscribe(typeCluster)
			d.sub.Subscribe(typeListener)
			eventually(t, "first", "Cluster a=1, Cluster b=1, ClusterLoadAssignment a=10.0.0.1, ClusterLoadAssignment b=empty", d.all)
			w.set(typeEndpoint, "a", "10.0.0.2")
			w.set(typeListener, "l", "1")
			eventually(t, "changed", "Cluster a=1, Cluster b=1, ClusterLoadAssignment a=10.0.0.2, ClusterLoadAssignment b=empty, Listener l=1", d.all)
			w.set(typeCluster, "b", "")
			d.sub.Unsubscribe(typeEndpoint, "b")
			w.set(typeListener, "l", "")
			eventually(t, "removed", "Cluster a=1, ClusterLoadAssignment a=10.0.0.2, ClusterLoadAssignment b=empty", d.all)

			synced := func() string {
				for _, s := range w.hub.Status() {
					for _, ts := range s.Types {
						if !ts.Synced() || ts.Sent != ts.Acked {
							return fmt.Sprintf("%s: %d waiting, rejected %v", short(ts.TypeURL), ts.Waiting, ts.Rejected)
						}
					}
				}
				return "synced"
			}
			eventually(t, "status", "synced", synced)
			d.mu.Lock()
			d.refuse = "bad"
			d.mu.Unlock()
			w.set(typeCluster, "bad", "1")
			w.set(typeCluster, "good", "1")
			eventually(t, "status", "bad", func() string { return rejected(of(w, typeCluster)) })
			d.mu.Lock()
			d.refuse = ""
			d.mu.Unlock()
			w.set(typeCluster, "bad", "2")
			eventually(t, "mended", "synced", synced)
			eventually(t, "all", "Cluster a=1, Cluster bad=2, Cluster good=1, ClusterLoadAssignment a=10.0.0.2, "+
				"ClusterLoadAssignment b=empty, ClusterLoadAssignment bad=empty, ClusterLoadAssignment good=empty", d.all)
		})
	}
}
