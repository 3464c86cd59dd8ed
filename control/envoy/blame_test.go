// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/source"
)

func TestBlames(t *testing.T) {
	object := func(kind source.Kind, name string) source.Key {
		return source.Key{Kind: kind, Namespace: "shop", Name: name}
	}
	cart, web := object(source.KindService, "cart"), object(source.KindService, "web")
	rule, edge := object(source.KindDestinationRule, "cart"), object(source.KindGateway, "edge")
	mtls := object(source.KindPeerAuthentication, "all")
	from := func(keys ...source.Key) (all []source.Origin) {
		for _, k := range keys {
			all = append(all, source.Origin{Object: k, Field: "spec.a"})
		}
		return all
	}
	for name, c := range map[string]struct {
		m        proto.Message
		yes, not []source.Key
	}{
		"a cluster": {&clusterv3.Cluster{Metadata: emit.From(from(rule, cart)...)}, []source.Key{rule, cart}, []source.Key{web, edge, mtls}},
		"a listener": {&listenerv3.Listener{Metadata: emit.From(from(edge)...), FilterChains: []*listenerv3.FilterChain{{Metadata: emit.From(from(cart)...)}}},
			[]source.Key{edge, cart, mtls}, []source.Key{web, rule}},
		"a route table": {&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
			Metadata: emit.From(from(cart)...), Routes: []*routev3.Route{{Metadata: emit.From(from(rule)...)}},
		}}}, []source.Key{cart, rule}, []source.Key{web, mtls}},
		"a cluster that names nobody": {&clusterv3.Cluster{}, []source.Key{cart, mtls}, nil},
	} {
		r := packed(name, emit.Any(c.m))
		for _, k := range c.yes {
			if !Blames(r, k) {
				t.Errorf("%s: %s has no part in it", name, k)
			}
		}
		for _, k := range c.not {
			if Blames(r, k) {
				t.Errorf("%s: %s is blamed", name, k)
			}
		}
	}
}
