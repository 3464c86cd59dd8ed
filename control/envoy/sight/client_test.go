// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sight

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// FuzzParseClient reads nodes as proxies send them. Whatever one says of itself, reading it twice comes to the same client,
// which is a key of results.
func FuzzParseClient(f *testing.F) {
	meta, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": "shop", "LABELS": map[string]any{"app": "web"}, "INSTANCE_IPS": "10.0.0.1,fd00::1", "HTTP_PROXY_PORT": 15080.0,
		"INTERCEPTION_MODE": "NONE", "MELTEMI_ON_DEMAND": "true", "WORKLOAD_ENTRY": "web",
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []*corev3.Node{
		{Id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", Metadata: meta, UserAgentName: "meltemi", Locality: &corev3.Locality{Region: "r"}},
		{Id: "router~~edge.infra~infra.svc.cluster.local", UserAgentName: "envoy"}, {},
	} {
		b, err := proto.Marshal(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n, again corev3.Node
		if proto.Unmarshal(b, &n) != nil || proto.Unmarshal(b, &again) != nil {
			return
		}
		x, err := ParseClient(&n)
		y, twice := ParseClient(&again)
		if x != y || (err == nil) != (twice == nil) {
			t.Errorf("%+v (%v) and then %+v (%v)", x, err, y, twice)
		}
	})
}

// The namespace is the one that was held against the proxy's identity.
func TestANamespaceIsAString(t *testing.T) {
	for _, v := range []any{nil, 7.0, true, []any{"bank"}} {
		meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": v})
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseClient(&corev3.Node{Id: "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local", Metadata: meta})
		if err != nil || c.Namespace() != "shop" || c.Workload.Namespace != "shop" {
			t.Errorf("%v: %+v (%v), want namespace shop of the ID", v, c, err)
		}
	}
}
