// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What Envoy 1.40 says to the same questions about the same clusters.
func TestNarrowAsEnvoy(t *testing.T) {
	const static, cluster = `{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",`, `"cluster":{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster",`
	for query, want := range map[string]string{
		"resource=static_clusters&mask=cluster.name":              static + cluster + `"name":"c1"}},` + static + cluster + `"name":"c2"}}`,
		"resource=static_clusters&mask=cluster.name,last_updated": static + cluster + `"name":"c1"},"last_updated":"1970-01-01T00:00:01Z"},` + static + cluster + `"name":"c2"},"last_updated":"1970-01-01T00:00:02Z"}`,
		"resource=static_clusters&name_regex=c[2-9]":              static + cluster + `"name":"c2","connect_timeout":"1s"},"last_updated":"1970-01-01T00:00:02Z"}`,
		"resource=dynamic_active_clusters":                        "",
		"mask=bootstrap.node.id":                                  `{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{"node":{"id":"me"}}}`,
		"mask=bootstrap.node,bootstrap.node.id":                   `{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{"node":{"id":"me","cluster":"ours"}}}`,
		"mask=bootstrap.node.id,bootstrap.node":                   `{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{"node":{"id":"me","cluster":"ours"}}}`,
		"resource=bootstrap":                                      "400 bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
		"resource=nope":                                           "404 nope not found in config dump",
		"mask=nope":                                               "400 FieldMask nope could not be successfully applied to any configs.",
		"mask=static_clusters.cluster.name":                       "400 FieldMask static_clusters.cluster.name could not be successfully applied to any configs.",
		"resource=static_clusters&mask=nope":                      "400 FieldMask nope could not be successfully used",
		"name_regex=[":                                            "400 name_regex: ",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		d, err := narrow(dump(t), q)
		if err != nil {
			bad, _ := err.(badQuery)
			if code, text, _ := strings.Cut(want, " "); code != strconv.Itoa(bad.status) || !strings.HasPrefix(bad.text, text) {
				t.Errorf("%s: %d %v, want %s", query, bad.status, err, want)
			}
			continue
		}
		if want = `{"configs":[` + want + "]}"; want == `{"configs":[]}` {
			want = "{}"
		}
		expected := &adminv3.ConfigDump{}
		if err := protojson.Unmarshal([]byte(want), expected); err != nil {
			t.Fatalf("%s: %v in %s", query, err, want)
		}
		if !proto.Equal(d, expected) {
			t.Errorf("%s: %s, want %s", query, protojson.Format(d), want)
		}
	}
	if d, err := narrow(dump(t), url.Values{}); err != nil || !proto.Equal(d, dump(t)) {
		t.Errorf("nothing asked: %v, %v", d, err)
	}
}

func dump(t *testing.T) *adminv3.ConfigDump {
	t.Helper()
	wrap := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	clusters := &adminv3.ClustersConfigDump{}
	for i, name := range []string{"c1", "c2"} {
		clusters.StaticClusters = append(clusters.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{
			Cluster:     wrap(&clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(1e9)}),
			LastUpdated: &timestamppb.Timestamp{Seconds: int64(i + 1)},
		})
	}
	return &adminv3.ConfigDump{Configs: []*anypb.Any{
		wrap(&adminv3.BootstrapConfigDump{Bootstrap: &bootstrapv3.Bootstrap{Node: &corev3.Node{Id: "me", Cluster: "ours"}}}),
		wrap(clusters),
	}}
}
