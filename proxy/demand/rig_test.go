// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/xds"
)

// A world is a control plane in memory: resources by type and name, which a test
// puts in and takes out, and the clients that asked for them.
type world struct {
	mu     sync.Mutex
	items  map[string]map[string]xds.Resource
	feeds  map[*worldFeed]bool
	serial int
	asked  map[string]int           // "type name": how often
	silent map[string]bool          // types that are never answered
	delay  map[string]time.Duration // before an answer of a type
}

func newWorld() *world {
	return &world{
		items: map[string]map[string]xds.Resource{}, feeds: map[*worldFeed]bool{}, asked: map[string]int{},
		silent: map[string]bool{}, delay: map[string]time.Duration{},
	}
}

func (w *world) put(typeURL, name string, m proto.Message, aliases ...string) {
	body, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.items[typeURL] == nil {
		w.items[typeURL] = map[string]xds.Resource{}
	}
	w.serial++
	r := xds.Resource{Name: name, Version: strconv.Itoa(w.serial), Aliases: aliases, Body: body}
	w.items[typeURL][name] = r
	for f := range w.feeds {
		if f.wants(typeURL, r) {
			f.push(&xds.Update{TypeURL: typeURL, Resources: []xds.Resource{r}})
		}
	}
}

func (w *world) take(typeURL, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.items[typeURL][name]
	if !ok {
		return
	}
	delete(w.items[typeURL], name)
	for f := range w.feeds {
		if f.wants(typeURL, r) {
			u := &xds.Update{TypeURL: typeURL, Removed: []string{name}}
			for _, a := range r.Aliases {
				if f.names[typeURL][a] && !slices.ContainsFunc(slices.Collect(maps.Values(w.items[typeURL])), func(o xds.Resource) bool { return slices.Contains(o.Aliases, a) }) {
					u.Removed = append(u.Removed, a)
				}
			}
			f.push(u)
		}
	}
}

// count is how often a name was asked for; with "" how many names of the type were.
func (w *world) count(typeURL, name string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name != "" {
		return w.asked[typeURL+" "+name]
	}
	for k := range w.asked {
		if strings.HasPrefix(k, typeURL+" ") {
			n++
		}
	}
	return n
}

// subscribed lists the names of a type that clients want now.
func (w *world) subscribed(typeURL string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]bool{}
	for f := range w.feeds {
		maps.Copy(all, f.names[typeURL])
	}
	return slices.Sorted(maps.Keys(all))
}

func (w *world) Open(context.Context, *xds.Client) (xds.Feed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &worldFeed{w: w, names: map[string]map[string]bool{}, begun: map[string]bool{}, ready: make(chan struct{}, 1)}
	w.feeds[f] = true
	return f, nil
}

type worldFeed struct {
	w     *world
	names map[string]map[string]bool
	begun map[string]bool
	queue []*xds.Update
	ready chan struct{}
}

func (f *worldFeed) wants(typeURL string, r xds.Resource) bool {
	return f.names[typeURL][r.Name] || slices.ContainsFunc(r.Aliases, func(a string) bool { return f.names[typeURL][a] })
}

func (f *worldFeed) push(u *xds.Update) {
	f.queue = append(f.queue, u)
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (f *worldFeed) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.names[typeURL] == nil {
		f.names[typeURL] = map[string]bool{}
	}
	u := &xds.Update{TypeURL: typeURL, Full: !f.begun[typeURL]}
	f.begun[typeURL] = true
	for _, n := range remove {
		delete(f.names[typeURL], n)
		if wildcard { // what only the name kept goes
			u.Removed = append(u.Removed, n)
		}
	}
	given := map[string]bool{}
	for _, n := range add {
		f.names[typeURL][n] = true
		w.asked[typeURL+" "+n]++
		found := false
		for _, r := range w.items[typeURL] {
			if r.Name == n || slices.Contains(r.Aliases, n) {
				found = true
				if !given[r.Name] {
					given[r.Name] = true
					u.Resources = append(u.Resources, r)
				}
			}
		}
		switch {
		case found:
		case typeURL == config.TypeRoute:
			u.Resources = append(u.Resources, packed(n, &routev3.RouteConfiguration{Name: n}))
		case typeURL == config.TypeEndpoint:
			u.Resources = append(u.Resources, packed(n, &endpointv3.ClusterLoadAssignment{ClusterName: n}))
		default:
			u.Removed = append(u.Removed, n)
		}
	}
	if w.silent[typeURL] || !u.Full && len(u.Resources)+len(u.Removed) == 0 {
		return
	}
	if d := w.delay[typeURL]; d > 0 {
		time.AfterFunc(d, func() { w.mu.Lock(); f.push(u); w.mu.Unlock() })
		return
	}
	f.push(u)
}

func packed(name string, m proto.Message) xds.Resource {
	body, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return xds.Resource{Name: name, Body: body}
}

func (f *worldFeed) Next(ctx context.Context) (*xds.Update, error) {
	for {
		f.w.mu.Lock()
		if len(f.queue) > 0 {
			u := f.queue[0]
			f.queue = f.queue[1:]
			f.w.mu.Unlock()
			return u, nil
		}
		f.w.mu.Unlock()
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *worldFeed) Ack(string, string)         {}
func (f *worldFeed) Nack(_, _ string, d string) { panic("nack: " + d) }
func (f *worldFeed) Close() {
	f.w.mu.Lock()
	delete(f.w.feeds, f)
	f.w.mu.Unlock()
}

// A service of the world; protocol as in a port's name.
type service struct {
	host  string
	vips  []string
	port  uint32
	proto workload.AppProtocol
}

const ns = "shop"

func (s service) cluster(subset string) string {
	return mesh.ClusterName{Direction: mesh.Outbound, Port: int(s.port), Subset: subset, Host: mesh.Hostname(s.host)}.String()
}

func (s service) route() string { return fmt.Sprintf("%s:%d", s.host, s.port) }

func (s service) address() string { return ns + "/" + s.host }

// add puts a service in: its address, and for its one port route, cluster and endpoints.
func (w *world) add(s service) {
	m := &workload.Service{Name: s.host, Namespace: ns, Hostname: s.host, Ports: []*workload.Port{{ServicePort: s.port, TargetPort: s.port, AppProtocol: s.proto}}}
	aliases := []string{"/" + s.host}
	for _, v := range s.vips {
		m.Addresses = append(m.Addresses, &workload.NetworkAddress{Network: "net", Address: netip.MustParseAddr(v).AsSlice()})
		aliases = append(aliases, "net/"+v)
	}
	w.addCluster(s.cluster(""))
	w.addRoute(s.route(), s.cluster(""))
	for _, v := range s.vips {
		if s.proto != workload.AppProtocol_HTTP11 {
			w.addListener(v, s.port, s.cluster(""))
		}
	}
	w.put(TypeAddress, s.address(), &workload.Address{Type: &workload.Address_Service{Service: m}}, aliases...)
}

func (w *world) addRoute(name string, clusters ...string) {
	m := &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: name, Domains: []string{"*"}}}}
	for i, c := range clusters {
		prefix := "/"
		if i < len(clusters)-1 {
			prefix = fmt.Sprintf("/%d", i)
		}
		m.VirtualHosts[0].Routes = append(m.VirtualHosts[0].Routes, &routev3.Route{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}},
		})
	}
	w.put(config.TypeRoute, name, m)
}

// addListener sends the bytes of an address to clusters in equal parts.
func (w *world) addListener(ip string, port uint32, clusters ...string) {
	weighted := &tcpproxyv3.TcpProxy_WeightedCluster{}
	for _, c := range clusters {
		weighted.Clusters = append(weighted.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: c, Weight: 1})
	}
	tcp := packed("", &tcpproxyv3.TcpProxy{StatPrefix: "tcp", ClusterSpecifier: &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: weighted}})
	name := fmt.Sprintf("%s_%d", ip, port)
	w.put(config.TypeListener, name, &listenerv3.Listener{
		Name: name, BindToPort: wrapperspb.Bool(false),
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
		DefaultFilterChain: &listenerv3.FilterChain{Name: "rest", Filters: []*listenerv3.Filter{{
			Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: tcp.Body},
		}}},
	})
}

func (w *world) addCluster(name string) {
	w.put(config.TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "10.9.9.9", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
			}}},
		}}}},
	}}})
	w.put(config.TypeCluster, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}, ResourceApiVersion: corev3.ApiVersion_V3,
		}},
	})
}

// A rig is a world, and a proxy's client with store and directory.
type rig struct {
	*Directory
	world  *world
	store  *config.Store
	set    *upstream.Set
	client *xds.Subscriber
	chain  *config.FilterChain

	stopServer func()
	startIt    func()
}

// newRig works in real and in fake time. tune may change the configuration.
func newRig(t testing.TB, w *world, tune func(*Config)) *rig {
	t.Helper()
	r := &rig{world: w}
	var mu sync.Mutex
	var ln *bufconn.Listener
	r.startIt = func() {
		mu.Lock()
		defer mu.Unlock()
		ln = bufconn.Listen(1 << 20)
		srv := xds.NewServer(w, xds.ServerConfig{})
		g := grpc.NewServer(srv.Options()...)
		srv.Register(g)
		done := make(chan struct{})
		go func(ln net.Listener) { defer close(done); _ = g.Serve(ln) }(ln)
		r.stopServer = sync.OnceFunc(func() { srv.Close(); g.Stop(); <-done })
	}
	r.startIt()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	t.Cleanup(func() { cancel(); r.stopServer(); tasks.Wait() })

	r.set = upstream.NewSet(upstream.Config{})
	t.Cleanup(r.set.Close)
	registry, self := telemetry.NewRegistry(telemetry.Config{}), &filter.Peer{}
	var err error
	r.store, err = config.NewStore(config.Config{
		Clusters: r.set, Registry: registry, Self: self, Metrics: stock.NewMetrics(self, "test", registry),
		OnWanted: wantedBy(func() Subscriptions { return r.client }),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	cfg := Defaults()
	cfg.Network, cfg.Store, cfg.Subscriptions = "net", r.store, late(func() Subscriptions { return r.client })
	if tune != nil {
		tune(&cfg)
	}
	if r.Directory, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.chain = &config.FilterChain{Name: "on-demand", OnDemand: &config.OnDemand{
		HTTP: &config.HTTP{StatPrefix: "outbound"},
		TCP:  &config.TCP{Clusters: []config.Weighted{{Cluster: mesh.ClusterPassthrough, Ref: r.set.Ref(mesh.ClusterPassthrough)}}},
	}}
	r.SetTemplate(r.chain)
	r.client = xds.NewClient(xds.ClientConfig{
		Target: "passthrough:world", Node: &corev3.Node{Id: "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"},
		Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			mu.Lock()
			to := ln
			mu.Unlock()
			return to.DialContext(ctx)
		})},
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Connected: r.Connected,
	}, r.Handler(r.store))
	r.client.Subscribe(config.TypeCluster)
	r.client.Subscribe(config.TypeListener)
	tasks.Go(func() { _ = r.client.Run(ctx) })
	tasks.Go(func() { _ = r.Run(ctx) })
	return r
}

// late defers to what is made later.
type late func() Subscriptions

func (l late) Subscribe(typeURL string, names ...string)   { l().Subscribe(typeURL, names...) }
func (l late) Unsubscribe(typeURL string, names ...string) { l().Unsubscribe(typeURL, names...) }

// wantedBy subscribes to what a store wants.
func wantedBy(to func() Subscriptions) func(config.Wanted) {
	var prev config.Wanted
	return func(w config.Wanted) {
		was := prev
		prev = w
		for _, t := range []struct {
			typeURL    string
			next, prev []string
		}{
			{config.TypeCluster, w.Clusters, was.Clusters}, {config.TypeEndpoint, w.Endpoints, was.Endpoints},
			{config.TypeRoute, w.Routes, was.Routes}, {config.TypeListener, w.Listeners, was.Listeners},
		} {
			if add := without(t.next, t.prev); len(add) > 0 {
				to().Subscribe(t.typeURL, add...)
			}
			if gone := without(t.prev, t.next); len(gone) > 0 {
				to().Unsubscribe(t.typeURL, gone...)
			}
		}
	}
}

func without(list, but []string) []string { // both are sorted
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { _, ok := slices.BinarySearch(but, s); return ok })
}

func (r *rig) look(t testing.TB, addr string) *Destination {
	t.Helper()
	d, err := r.Lookup(t.Context(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	d.Done()
	return d
}

// ready says whether traffic to d finds what it needs, and what not.
func ready(d *Destination) string {
	if d.HTTP != nil {
		table := d.HTTP.HTTP.Routes.Load()
		if table == nil {
			return "no table"
		}
		for _, ref := range table.Refs {
			if ref.Load() == nil {
				return "no cluster " + ref.Name()
			}
		}
	}
	if l := d.Listener(); l != nil && l.Default.TCP != nil {
		for _, c := range l.Default.TCP.Clusters {
			if c.Ref.Load() == nil {
				return "no cluster " + c.Cluster + " of the listener"
			}
		}
	}
	if d.Known && d.Protocol != HTTP && d.Port != 0 {
		if ref := d.TCP.TCP.Pick(0); ref.Load() == nil {
			return "no cluster " + ref.Name()
		}
	}
	return ""
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

var (
	web   = service{"web.shop.svc.cluster.local", []string{"10.1.0.1"}, 80, workload.AppProtocol_HTTP11}
	db    = service{"db.shop.svc.cluster.local", []string{"10.1.0.2", "10.1.0.3"}, 5432, workload.AppProtocol_TCP}
	mixed = service{"mixed.shop.svc.cluster.local", []string{"10.1.0.4"}, 9000, workload.AppProtocol_UNKNOWN}
	peers = service{"peers.shop.svc.cluster.local", nil, 7000, workload.AppProtocol_HTTP2}
)
