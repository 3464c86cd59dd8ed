// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/source"
)

// provenance names the objects and fields that a resource was made from. Lines
// are no part of it, so that moving an object in its file changes no resource;
// whoever prints it asks the control plane where the object stands.
func provenance(origins []source.Origin) *structpb.Struct {
	seen := make(map[string]bool)
	list := &structpb.ListValue{}
	for _, o := range origins {
		if o.Object.IsZero() || seen[o.String()] {
			continue
		}
		seen[o.String()] = true
		list.Values = append(list.Values, structpb.NewStringValue(o.String()))
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"from": structpb.NewListValue(list)}}
}

func provenanceMetadata(origins ...source.Origin) *corev3.Metadata {
	md := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	if len(origins) > 0 && !origins[0].Object.IsZero() {
		md.FilterMetadata[metaIstio] = stringStruct(map[string]string{"config": configPath(origins[0].Object)})
		md.FilterMetadata[metaMeltemi] = provenance(origins)
	}
	return md
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

// configPath is how Istio names an object in metadata.
func configPath(k source.Key) string {
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
