// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcxds "google.golang.org/grpc/xds"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The stock control plane of go-control-plane, to which our client is one of many.
func TestOurClientAtAStockServer(t *testing.T) {
	eachDialect(t, func(t *testing.T, sotw bool) {
		cache := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g := grpc.NewServer()
		var requests atomic.Int64
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, serverv3.NewServer(ctx, cache, serverv3.CallbackFuncs{
			StreamRequestFunc:      func(int64, *discoveryv3.DiscoveryRequest) error { requests.Add(1); return nil },
			StreamDeltaRequestFunc: func(int64, *discoveryv3.DeltaDiscoveryRequest) error { requests.Add(1); return nil },
		}))
		go g.Serve(l)
		defer g.Stop()

		const node = "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"
		set := func(version string, clusters ...string) {
			t.Helper()
			var cds, eds []types.Resource
			for _, c := range clusters {
				cds = append(cds, &clusterv3.Cluster{Name: c, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
					EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
						ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
					}}})
				eds = append(eds, &endpointv3.ClusterLoadAssignment{ClusterName: c})
			}
			s, err := cachev3.NewSnapshot(version, map[string][]types.Resource{typeCluster: cds, typeEndpoints: eds})
			if err != nil {
				t.Fatal(err)
			}
			if err := cache.SetSnapshot(ctx, node, s); err != nil {
				t.Fatal(err)
			}
		}
		set("1", "a", "b")
		d := newDesk()
		d.reject["poison"] = "indigestible"
		s := start(t, l.Addr().String(), sotw, d)
		got := func(want ...string) func() bool {
			return func() bool {
				has, _ := d.look()
				return slices.Equal(slices.Sorted(maps.Keys(has)), want)
			}
		}
		d.on = func(u Update) {
			for _, r := range u.Resources {
				if u.TypeURL == typeCluster {
					s.Subscribe(typeEndpoints, r.Name)
				}
			}
			for _, n := range u.Removed {
				if u.TypeURL == typeCluster {
					s.Unsubscribe(typeEndpoints, n)
				}
			}
		}
		s.Subscribe(typeCluster)
		eventually(t, "the snapshot", got("Cluster/a", "Cluster/b", "ClusterLoadAssignment/a", "ClusterLoadAssignment/b"))
		set("2", "b", "c")
		eventually(t, "the next one", func() bool {
			has, _ := d.look()
			return hasKey(has, "ClusterLoadAssignment/c") && !hasKey(has, "Cluster/a")
		})
		set("3", "b", "c", "poison")
		eventually(t, "a rejection", func() bool { _, log := d.look(); return count(log, "refuse Cluster/poison") > 0 })
		before := requests.Load()
		s.Subscribe(typeEndpoints, "c") // passes through while the refusal waits
		set("4", "b", "c", "d")
		eventually(t, "what follows a rejection", func() bool { has, _ := d.look(); return hasKey(has, "ClusterLoadAssignment/d") })
		_, log := d.look()
		if n := count(log, "set Cluster/b="); n != 1 {
			t.Errorf("an unchanged cluster was applied %d times: %q", n, log)
		}
		if n := requests.Load() - before; n > 100 {
			t.Errorf("%d requests around one refusal: this server sends again what is refused", n)
		}
	})
}

func hasKey(m map[string]string, k string) bool { _, ok := m[k]; return ok }

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *shelf) putProto(t *testing.T, name string, m proto.Message) {
	a := pack(t, m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items[a.TypeUrl] == nil {
		s.items[a.TypeUrl] = map[string]Resource{}
	}
	r := Resource{Name: name, Body: a}
	s.items[a.TypeUrl][name] = r
	for f := range s.feeds {
		if f.sees(a.TypeUrl, r) {
			f.push(&Update{TypeURL: a.TypeUrl, Resources: []Resource{r}})
		}
	}
}

// backend is a gRPC health server; it returns where.
func backend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	go g.Serve(l)
	t.Cleanup(g.Stop)
	return l.Addr().String()
}

func assignment(t *testing.T, addr string) *endpointv3.ClusterLoadAssignment {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	socket := &corev3.SocketAddress{Address: a.IP.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port)}}
	return &endpointv3.ClusterLoadAssignment{ClusterName: "backend", Endpoints: []*endpointv3.LocalityLbEndpoints{{
		Locality: &corev3.Locality{Region: "r"}, LoadBalancingWeight: wrapperspb.UInt32(1),
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: socket}},
		}}}},
	}}}
}

// gRPC's own xDS client, which is state-of-the-world and asks for listeners by name.
func TestGRPCsClientAtOurServer(t *testing.T) {
	hub := newShelf()
	ads := &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	hub.putProto(t, "web", &listenerv3.Listener{Name: "web", ApiListener: &listenerv3.ApiListener{ApiListener: pack(t, &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "routes", ConfigSource: ads}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
	})}})
	hub.putProto(t, "routes", &routev3.RouteConfiguration{Name: "routes", VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "backend"}}},
		}},
	}}})
	hub.putProto(t, "backend", &clusterv3.Cluster{Name: "backend", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}})
	hub.putProto(t, "backend", assignment(t, backend(t)))
	addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")

	resolver, err := grpcxds.NewXDSResolverWithConfigForTesting([]byte(fmt.Sprintf(
		`{"xds_servers":[{"server_uri":%q,"channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],"node":{"id":"sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"}}`, addr)))
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("xds:///web", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(resolver))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	check := func() error {
		_, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	hub.putProto(t, "other", &clusterv3.Cluster{Name: "other", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}}) // not asked for, hence not sent
	hub.putProto(t, "backend", assignment(t, backend(t)))
	eventually(t, "the move is acknowledged", func() bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		for f := range hub.feeds {
			return slices.Contains(hub.log, fmt.Sprintf("ack ClusterLoadAssignment nonce%d", f.n))
		}
		return false
	})
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for _, line := range hub.said() {
		if line[:4] == "nack" {
			t.Error(line)
		}
	}
}
