// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A name in the table that no message has would be a hole or a typing error.
func TestTableNamesRealFields(t *testing.T) {
	for message, names := range honoured() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(message)
		if err != nil {
			t.Errorf("%s: %v", message, err)
			continue
		}
		for name := range names {
			if d.(protoreflect.MessageDescriptor).Fields().ByName(name) == nil {
				t.Errorf("%s has no field %s", message, name)
			}
		}
	}
	if len(honoured()) < 150 {
		t.Errorf("only %d messages were read from the table", len(honoured()))
	}
}

func TestCheckNamesWhatIsNotHonoured(t *testing.T) {
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}}}
	for want, m := range map[string]proto.Message{
		"freebind is not supported": &listenerv3.Listener{Address: address, Freebind: wrapperspb.Bool(true)},
		"address.socket_address.network_namespace_filepath is not supported": &listenerv3.Listener{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "::", NetworkNamespaceFilepath: "/x", PortSpecifier: &corev3.SocketAddress_PortValue{}}}}},
		"virtual_hosts[1].routes[0].route.cluster_header is not supported": &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{
			{Name: "a", Domains: []string{"a"}},
			{Name: "b", Domains: []string{"b"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_ClusterHeader{ClusterHeader: "x"}}},
			}}},
		}},
		`policies["p"].condition is not supported`: &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{"p": condition(t)}},
		"extension_filter is not supported":        &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{}},
		"invalid: ":                                &clusterv3.Cluster{},
		"google.protobuf.Struct: a field that this version does not know":                                       unknown(&structpb.Struct{}),
		"envoy.config.cluster.v3.Cluster: a field that this version does not know; is the control plane newer?": unknown(&clusterv3.Cluster{Name: "c"}),
		"envoy.config.core.v3.HealthCheck is not supported":                                                     &corev3.HealthCheck{},
		"cleanup_interval: proto:": &clusterv3.Cluster{Name: "c", CleanupInterval: &durationpb.Duration{Seconds: 1 << 50}},
	} {
		if err := Check(m); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := Check(&clusterv3.Cluster{Name: "c"}); err != nil {
		t.Error(err)
	}
}

func condition(t *testing.T) *rbacv3.Policy {
	p := &rbacv3.Policy{}
	f := p.ProtoReflect().Descriptor().Fields().ByName("condition")
	p.ProtoReflect().Mutable(f)
	if !p.ProtoReflect().Has(f) {
		t.Fatal("condition is not set")
	}
	return p
}

func unknown[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1}) // field 2047
	return m
}

func TestUnmarshal(t *testing.T) {
	a, err := anypb.New(&corev3.Pipe{Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	var p corev3.Pipe
	if err := Unmarshal(a, &p); err != nil || p.GetPath() != "/x" {
		t.Error(err)
	}
	var l corev3.Locality
	for want, a := range map[string]*anypb.Any{
		"typed_config is missing": nil,
		`typed_config is "envoy.config.core.v3.Pipe", want envoy.config.core.v3.Locality`: a,
		"envoy.config.core.v3.Locality: ":                                                 {TypeUrl: Prefix + "envoy.config.core.v3.Locality", Value: []byte{0xff}},
	} {
		if err := Unmarshal(a, &l); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestObject(t *testing.T) {
	s, err := structpb.NewStruct(map[string]any{
		"text": "a", "someFlag": true, "wait": "1.5s", "list": []any{"x", "y"}, "inner": map[string]any{"k": "v"},
		"each": []any{map[string]any{"n": "1"}, map[string]any{"n": "2"}}, "nothing": nil, "map": map[string]any{"a": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	o := NewObject(s)
	var ns []string
	o.Each("each", func(e *Object) error { ns = append(ns, e.String("n")); return nil })
	inner, ok := o.Object("inner")
	if o.String("text") != "a" || !o.Bool("some_flag", false) || o.Duration("wait", 0) != 1500*time.Millisecond ||
		strings.Join(o.Strings("list"), "") != "xy" || !ok || inner.String("k") != "v" || strings.Join(ns, "") != "12" ||
		o.Bool("nothing", true) != true || o.Map("map")["a"] != "b" {
		t.Errorf("%+v", o)
	}
	if err := o.Done(); err != nil {
		t.Error(err)
	}
	if err := NewObject(s).Done(); err == nil || err.Error() != `field "each" is not supported` {
		t.Error(err)
	}
	for want, read := range map[string]func(*Object){
		`field "list": want a string`:          func(o *Object) { o.String("list") },
		`field "text": want true or false`:     func(o *Object) { o.Bool("text", false) },
		`field "text": want a duration`:        func(o *Object) { o.Duration("text", 0) },
		`field "text": want an object`:         func(o *Object) { o.Object("text") },
		`field "text": want a list`:            func(o *Object) { o.Strings("text") },
		`field "list": want a list of objects`: func(o *Object) { o.Each("list", func(*Object) error { return nil }) },
		`each[0]: field "n" is not supported`:  func(o *Object) { o.Each("each", func(*Object) error { return nil }) },
		`field "each": want a list of strings`: func(o *Object) { o.Strings("each") },
	} {
		o := NewObject(s)
		read(o)
		if err := o.Done(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzCheckNeverPanics(f *testing.F) {
	b, _ := proto.Marshal(&clusterv3.Cluster{Name: "c", AltStatName: "x"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &anypb.Any{TypeUrl: Prefix + "envoy.config.cluster.v3.Cluster", Value: b}
		_ = Unmarshal(a, &clusterv3.Cluster{})
		_, _, _ = TypeOf(&anypb.Any{TypeUrl: Prefix + "udpa.type.v1.TypedStruct", Value: b})
	})
}
