// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

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
