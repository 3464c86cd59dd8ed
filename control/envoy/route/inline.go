// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
)

// To is a table in which every request goes to one cluster, as requests do that come in: what they may take
// is decided by whoever called.
func To(cluster, host, operation string, retries *intent.Retries) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: cluster, ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{Name: host, Domains: []string{"*"}, Routes: []*routev3.Route{{
			Name: "default", Match: everything(), Decorator: &routev3.Decorator{Operation: operation},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          durationpb.New(0), RetryPolicy: retry(retries, true),
				MaxStreamDuration: &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(0), GrpcTimeoutHeaderMax: durationpb.New(0)},
			}},
		}}}},
	}
}

// Unknown is the host of requests that are for nobody the mesh knows. They go to a cluster, or, where that is empty,
// nowhere: 502.
func Unknown(cluster string) *routev3.VirtualHost {
	r := &routev3.Route{Name: "block_all", Match: everything(), Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}}}
	if cluster != "" {
		r = &routev3.Route{Name: "allow_any", Match: everything(), Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			Timeout:          durationpb.New(0), MaxGrpcTimeout: durationpb.New(0),
		}}}
	}
	return &routev3.VirtualHost{Name: r.Name, Domains: []string{"*"}, IncludeRequestAttemptCount: true, Routes: []*routev3.Route{r}}
}

// Connect lets a client of a forward proxy open a connection to a cluster (CONNECT).
func Connect(cluster string) *routev3.Route {
	return &routev3.Route{
		Name:  "connect",
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: durationpb.New(0),
			UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "CONNECT", ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{}}},
		}},
	}
}
