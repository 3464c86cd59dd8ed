// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/xds"
)

// demandStore is a store whose wants a test reads.
type demandStore struct{ *Store }

func newDemandStore(t *testing.T) demandStore {
	set := upstream.NewSet(upstream.Config{})
	t.Cleanup(set.Close)
	registry, self := telemetry.NewRegistry(telemetry.Config{}), &filter.Peer{}
	s, err := NewStore(Config{
		Clusters: set, Registry: registry, Self: self, Metrics: stock.NewMetrics(self, "test", registry),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return demandStore{s}
}

func (d demandStore) put(t *testing.T, typeURL, name string, m proto.Message) {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	if bad := d.Apply(xds.Update{TypeURL: typeURL, Resources: []xds.Resource{{Name: name, Body: body}}}); len(bad) > 0 {
		t.Fatal(bad)
	}
}

func (d demandStore) remove(typeURL string, names ...string) {
	d.Apply(xds.Update{TypeURL: typeURL, Removed: names})
}

func (d demandStore) putRoute(t *testing.T, name string, clusters ...string) {
	t.Helper()
	m := &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}}}}
	for i, c := range clusters {
		m.VirtualHosts[0].Routes = append(m.VirtualHosts[0].Routes, &routev3.Route{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/%d", i)}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}},
		})
	}
	d.put(t, TypeRoute, name, m)
}

func (d demandStore) putCluster(t *testing.T, name string) {
	t.Helper()
	d.put(t, TypeCluster, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}, ResourceApiVersion: corev3.ApiVersion_V3,
		}},
	})
}

func (d demandStore) putEndpoints(t *testing.T, name string) {
	t.Helper()
	at := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "10.0.0.9", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
	}}}
	d.put(t, TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at}}}},
	}}})
}

func (d demandStore) putNoEndpoints(t *testing.T, name string) {
	t.Helper()
	d.put(t, TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name})
}

func (d demandStore) wants() string {
	w := d.Wanted()
	return fmt.Sprintf("routes %s; clusters %s; endpoints %s", strings.Join(w.Routes, " "), strings.Join(w.Clusters, " "), strings.Join(w.Endpoints, " "))
}

func (d demandStore) expect(t *testing.T, what, wants, lacks string) {
	t.Helper()
	if got := d.wants(); got != wants {
		t.Errorf("%s: wants %q, not %q", what, got, wants)
	}
	got, err := d.Lacks(Need{Route: "r", Cluster: "a"})
	if err != nil {
		got = err.Error()
	}
	if got != lacks {
		t.Errorf("%s: lacks %q, not %q", what, got, lacks)
	}
}

func TestWantFollowsATable(t *testing.T) { synctest.Test(t, wantFollowsATable) }

func wantFollowsATable(t *testing.T) {
	d := newDemandStore(t)
	refs := d.Want(Need{Route: "r", Cluster: "a"})
	table, a := refs.Routes, refs.Cluster
	d.expect(t, "asked", "routes r; clusters a; endpoints ", "cluster a")
	d.putCluster(t, "a")
	d.expect(t, "its endpoints", "routes r; clusters a; endpoints a", "cluster a")
	d.putEndpoints(t, "a")
	d.expect(t, "a is there", "routes r; clusters a; endpoints a", "route table r")
	if a.Load() == nil {
		t.Error("cluster a is not live")
	}
	d.putRoute(t, "r", "a", "b")
	d.expect(t, "b is named", "routes r; clusters a b; endpoints a", "cluster b, which route table r names")
	if table.Answered() || table.Load() != nil {
		t.Error("a table is in force that names a cluster on its way")
	}
	d.remove(TypeCluster, "b")
	d.expect(t, "there is no b", "routes r; clusters a b; endpoints a", "")
	if table.Load() == nil {
		t.Error("no table")
	}

	first := table.Load()
	d.putRoute(t, "r", "c")
	d.expect(t, "another table", "routes r; clusters a b c; endpoints a", "")
	if table.Load() != first {
		t.Error("the old table does not serve while the new one waits")
	}
	d.putCluster(t, "c")
	d.putEndpoints(t, "c")
	d.expect(t, "it has taken over", "routes r; clusters a c; endpoints a c", "")
	if table.Load() == first {
		t.Error("the new table has not taken over")
	}

	d.Drop(Need{Route: "r", Cluster: "a"})
	if got := d.wants(); got != "routes ; clusters a c; endpoints a c" {
		t.Errorf("dropped: wants %q", got)
	}
	time.Sleep(clusterLinger + time.Second)
	synctest.Wait()
	if got := d.wants(); got != "routes ; clusters ; endpoints a c" {
		t.Errorf("dropped a while ago: wants %q", got)
	}
	if table.Load() != nil || table.Answered() {
		t.Error("a table nobody wants is still there")
	}
	d.remove(TypeCluster, "a", "c")
	if got := d.wants(); got != "routes ; clusters ; endpoints " {
		t.Errorf("removed: wants %q", got)
	}
}

func TestWantCounts(t *testing.T) { synctest.Test(t, wantCounts) }

func wantCounts(t *testing.T) {
	d := newDemandStore(t)
	d.Want(Need{Route: "r", Cluster: "a"})
	d.Want(Need{Route: "r"})
	d.Want(Need{Cluster: "a"})
	d.Drop(Need{Route: "r", Cluster: "a"})
	d.expect(t, "both are still wanted", "routes r; clusters a; endpoints ", "cluster a")
	d.Drop(Need{Route: "r"})
	d.Drop(Need{Cluster: "a"})
	time.Sleep(clusterLinger + time.Second)
	synctest.Wait()
	if got := d.wants(); got != "routes ; clusters ; endpoints " {
		t.Errorf("wants %q", got)
	}
}

func TestATableDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDemandStore(t)
		table := d.Want(Need{Route: "r"}).Routes
		d.putRoute(t, "r", "never")
		time.Sleep(tableWarming - time.Millisecond)
		synctest.Wait()
		if table.Answered() {
			t.Error("it did not wait")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !table.Answered() || table.Load() == nil {
			t.Error("it waits for ever")
		}
	})
}

// A table that leads to a new cluster without endpoints waits a moment for the next one.
func TestATableWaitsForEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDemandStore(t)
		table := d.Want(Need{Route: "r"}).Routes
		serve := func(name string, endpoints func(*testing.T, string)) *RouteTable {
			d.putRoute(t, "r", name)
			d.putCluster(t, name)
			endpoints(t, name)
			return table.Load()
		}
		if serve("empty", d.putNoEndpoints) == nil {
			t.Fatal("the first table waits, and nothing serves")
		}
		first := serve("a", d.putEndpoints)
		if first.Clusters()[0] != "a" {
			t.Fatal("no table")
		}
		if serve("b", d.putNoEndpoints) != first {
			t.Error("a table without endpoints has taken over")
		}
		if next := serve("c", d.putEndpoints); next == first || next.Clusters()[0] != "c" {
			t.Error("the next one has not taken over")
		}
		serve("d", d.putNoEndpoints)
		time.Sleep(emptyWarming + time.Millisecond)
		synctest.Wait()
		if table.Load().Clusters()[0] != "d" {
			t.Error("it waits for ever")
		}
	})
}

// A table that a listener wants waits for clusters that warm, and for no others.
func TestATableWaitsForWarmingClusters(t *testing.T) {
	d := newDemandStore(t)
	table := d.Route("r")
	d.putRoute(t, "r", "unheard-of")
	if table.Load() == nil {
		t.Fatal("it waits for a cluster that nobody asked for")
	}
	first := table.Load()
	d.putCluster(t, "b")
	d.putRoute(t, "r", "b")
	if table.Load() != first {
		t.Error("a table is in force whose cluster has no endpoints yet")
	}
	d.putEndpoints(t, "b")
	if table.Load() == first {
		t.Error("it has not taken over")
	}
}

func TestWhatWasRefusedIsNotWaitedFor(t *testing.T) {
	d := newDemandStore(t)
	d.Want(Need{Route: "r", Cluster: "a"})
	body, _ := anypb.New(&clusterv3.Cluster{Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: 99}})
	if bad := d.Apply(xds.Update{TypeURL: TypeCluster, Resources: []xds.Resource{{Name: "a", Body: body}}}); len(bad) != 1 {
		t.Fatal(bad)
	}
	if _, err := d.Lacks(Need{Route: "r", Cluster: "a"}); err == nil || !strings.Contains(err.Error(), "cluster a was refused") {
		t.Error(err)
	}
}

func (d demandStore) putListener(t *testing.T, name string, chains ...*listenerv3.FilterChain) {
	t.Helper()
	d.put(t, TypeListener, name, &listenerv3.Listener{
		Name: name, BindToPort: wrapperspb.Bool(false), FilterChains: chains,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 3306},
		}}},
	})
}

func tcpChain(t *testing.T, clusters ...string) *listenerv3.FilterChain {
	w := &tcpproxyv3.TcpProxy_WeightedCluster{}
	for _, c := range clusters {
		w.Clusters = append(w.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: c, Weight: 1})
	}
	a, err := anypb.New(&tcpproxyv3.TcpProxy{StatPrefix: "tcp", ClusterSpecifier: &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: w}})
	if err != nil {
		t.Fatal(err)
	}
	return &listenerv3.FilterChain{Name: "tcp", Filters: []*listenerv3.Filter{{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: a}}}}
}

// A listener on demand asks for what its chains name, and is in no snapshot.
func TestWantListener(t *testing.T) {
	d := newDemandStore(t)
	ref, need := d.Want(Need{Listener: "l"}).Listener, Need{Listener: "l"}
	expect := func(what, clusters, lacks string) {
		t.Helper()
		w := d.Wanted()
		if got := strings.Join(w.Clusters, " "); got != clusters || strings.Join(w.Listeners, " ") != "l" {
			t.Errorf("%s: wants clusters %q and listeners %q", what, got, w.Listeners)
		}
		if got, err := d.Lacks(need); got != lacks || err != nil {
			t.Errorf("%s: lacks %q, %v", what, got, err)
		}
		if got := len(d.Snapshot().Listeners); got != 0 {
			t.Errorf("%s: %d listeners in the snapshot", what, got)
		}
	}
	expect("asked", "", "listener l")
	d.putListener(t, "l", tcpChain(t, "a", "b"))
	expect("it came", "a b", "cluster a, which listener l names")
	d.putCluster(t, "a")
	d.putEndpoints(t, "a")
	d.remove(TypeCluster, "b")
	expect("its clusters came", "a b", "")
	first := ref.Load()
	if first == nil || first.Chains[0].TCP.Total != 2 {
		t.Fatalf("%+v", first)
	}
	d.putListener(t, "l", tcpChain(t, "c"))
	expect("it changed", "a b c", "")
	if ref.Load() != first {
		t.Error("the new listener is in force before its cluster")
	}
	d.putCluster(t, "c")
	d.putEndpoints(t, "c")
	if ref.Load() == first {
		t.Error("the old listener is in force")
	}
	d.remove(TypeListener, "l")
	expect("it is gone", "a c", "")
	if ref.Load() != nil {
		t.Error("there is a listener")
	}
	d.Drop(need)
	if len(d.listeners) != 0 {
		t.Error("something is left")
	}
}
