// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
)

// Metadata namespaces that proxies and people read.
const (
	Istio   = "istio"
	Meltemi = "meltemi.io"
	Socket  = "envoy.transport_socket_match"
)

// From names the objects and fields that a resource was made from, the most telling
// first; nil if none of them is an object. Lines are no part of it, so that
// moving an object in its file changes no resource: whoever prints it asks the control plane where the
// object stands.
func From(origins ...source.Origin) *corev3.Metadata {
	list := from(origins)
	if len(list.Values) == 0 {
		return nil
	}
	md := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		Meltemi: {Fields: map[string]*structpb.Value{"from": structpb.NewListValue(list)}},
	}}
	for _, o := range origins {
		if !o.Object.IsZero() {
			md.FilterMetadata[Istio] = Texts(map[string]string{"config": ConfigPath(o.Object)})
			break
		}
	}
	return md
}

// AddFrom adds the same to metadata that is there, but for the path of the object.
func AddFrom(md *corev3.Metadata, origins ...source.Origin) {
	if list := from(origins); len(list.Values) > 0 {
		md.FilterMetadata[Meltemi] = &structpb.Struct{Fields: map[string]*structpb.Value{"from": structpb.NewListValue(list)}}
	}
}

func from(origins []source.Origin) *structpb.ListValue {
	seen := make(map[source.Origin]bool)
	list := &structpb.ListValue{}
	for _, o := range origins {
		if o.Object.IsZero() || seen[o] {
			continue
		}
		seen[o] = true
		list.Values = append(list.Values, structpb.NewStringValue(o.String()))
	}
	return list
}

// Services is how telemetry is told which service a cluster belongs to.
func Services(s *registry.Service) *structpb.Value {
	return structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{
		structpb.NewStructValue(Texts(map[string]string{"host": string(s.Host), "name": s.Name, "namespace": string(s.Namespace)})),
	}})
}

var apiGroups = map[source.Kind]string{
	source.KindService:             "/api/v1",
	source.KindVirtualService:      "/apis/networking.istio.io/v1",
	source.KindDestinationRule:     "/apis/networking.istio.io/v1",
	source.KindGateway:             "/apis/networking.istio.io/v1",
	source.KindServiceEntry:        "/apis/networking.istio.io/v1",
	source.KindWorkloadEntry:       "/apis/networking.istio.io/v1",
	source.KindSidecar:             "/apis/networking.istio.io/v1",
	source.KindPeerAuthentication:  "/apis/security.istio.io/v1",
	source.KindAuthorizationPolicy: "/apis/security.istio.io/v1",
	source.KindTelemetry:           "/apis/telemetry.istio.io/v1",
}

// ConfigPath is how Istio names an object in metadata.
func ConfigPath(k source.Key) string {
	var kind strings.Builder
	for i, r := range string(k.Kind) {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				kind.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		kind.WriteRune(r)
	}
	return apiGroups[k.Kind] + "/namespaces/" + string(k.Namespace) + "/" + kind.String() + "/" + k.Name
}
