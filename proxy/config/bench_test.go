// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/xds"
)

func wrap(b *testing.B, name string, m proto.Message) xds.Resource {
	body, err := anypb.New(m)
	if err != nil {
		b.Fatal(err)
	}
	return xds.Resource{Name: name, Body: body}
}

// bigRoutes is a table of 1,000 virtual hosts with 10 routes each.
func bigRoutes(version int) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{Name: "80", IgnorePortInHostMatching: true}
	for i := range 1000 {
		vh := &routev3.VirtualHost{Name: fmt.Sprint("vh", i), Domains: []string{fmt.Sprintf("svc-%d.ns", i), fmt.Sprintf("svc-%d.ns.svc.cluster.local", i)}}
		for j := range 10 {
			vh.Routes = append(vh.Routes, &routev3.Route{
				Name:  "r",
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/%d/%d", version, j)}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: fmt.Sprintf("outbound|80||svc-%d", i)}, Timeout: durationpb.New(0),
					RetryPolicy: &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream"},
				}},
			})
		}
		m.VirtualHosts = append(m.VirtualHosts, vh)
	}
	return m
}

func BenchmarkApplyBigTable(b *testing.B) {
	w := newWorld(b)
	updates := [2]xds.Update{}
	for i := range updates {
		updates[i] = xds.Update{TypeURL: TypeRoute, Resources: []xds.Resource{wrap(b, "80", bigRoutes(i))}}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if r := w.Apply(updates[i%2]); len(r) > 0 {
			b.Fatal(r)
		}
	}
}

func BenchmarkApplyThousandClusters(b *testing.B) {
	w := newWorld(b)
	updates := [2]xds.Update{}
	for i := range updates {
		updates[i].TypeURL = TypeCluster
		for j := range 1000 {
			name := fmt.Sprint("c", j)
			updates[i].Resources = append(updates[i].Resources, wrap(b, name, &clusterv3.Cluster{
				Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, ConnectTimeout: &durationpb.Duration{Seconds: int64(i + 1)},
			}))
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if r := w.Apply(updates[i%2]); len(r) > 0 {
			b.Fatal(r)
		}
	}
}

// BenchmarkApplyEditedHost gives a proxy with complete lists a table in which one of many hosts differs. Its clusters have
// endpoints.
func BenchmarkApplyEditedHost(b *testing.B) {
	for _, hosts := range []int{10, 2000} {
		b.Run(fmt.Sprint("hosts=", hosts), func(b *testing.B) {
			w := newWorld(b)
			var clusters, endpoints []xds.Resource
			for i := range 2 * hosts {
				name := subset(i/2, i%2)
				clusters = append(clusters, wrap(b, name, &clusterv3.Cluster{
					Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
					EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{}}},
				}))
				endpoints = append(endpoints, wrap(b, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
					LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
						Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
							Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
						}}},
					}}}},
				}}}))
			}
			table := hostsWith(hosts, 0)
			updates := []xds.Update{{TypeURL: TypeCluster, Resources: clusters}, {TypeURL: TypeEndpoint, Resources: endpoints}}
			for weight := range uint32(2) {
				table.VirtualHosts[hosts/2] = weighted(hosts/2, 10+weight)
				updates = append(updates, xds.Update{TypeURL: TypeRoute, Resources: []xds.Resource{wrap(b, "80", table)}})
			}
			for _, u := range updates {
				if r := w.Apply(u); len(r) > 0 {
					b.Fatal(r)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if r := w.Apply(updates[2+i%2]); len(r) > 0 {
					b.Fatal(r)
				}
			}
			if got := w.Route("80").Load(); got == nil || got.Config().VirtualHosts[hosts/2].Routes[1].Forward.Clusters[0].Weight < 10 {
				b.Fatal("the table is not in force")
			}
		})
	}
}

func subset(i, v int) string {
	return fmt.Sprintf("outbound|80|v%d|s%d.default.svc.cluster.local", v+1, i)
}

func hostsWith(n int, weight uint32) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{Name: "80", IgnorePortInHostMatching: true}
	for i := range n {
		m.VirtualHosts = append(m.VirtualHosts, weighted(i, weight))
	}
	return m
}

// weighted is a host of two routes, one of which has two destinations.
func weighted(i int, weight uint32) *routev3.VirtualHost {
	prefix := &routev3.RouteMatch_Prefix{Prefix: "/"}
	retry := &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream", NumRetries: wrapperspb.UInt32(2)}
	short := fmt.Sprintf("s%d.default", i)
	return &routev3.VirtualHost{
		Name: short + ".svc.cluster.local:80", Domains: []string{short + ".svc.cluster.local", short, short + ".svc", fmt.Sprintf("10.100.%d.%d", i/250, i%250)},
		Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: prefix, Headers: []*routev3.HeaderMatcher{{
				Name: "end-user", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "jason"}}},
			}}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: subset(i, 1)}, Timeout: durationpb.New(0), RetryPolicy: retry,
			}},
		}, {
			Match: &routev3.RouteMatch{PathSpecifier: prefix},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				Timeout: durationpb.New(0), RetryPolicy: retry,
				ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: []*routev3.WeightedCluster_ClusterWeight{
					{Name: subset(i, 0), Weight: wrapperspb.UInt32(weight)}, {Name: subset(i, 1), Weight: wrapperspb.UInt32(100 - weight)},
				}}},
			}},
		}},
	}
}
