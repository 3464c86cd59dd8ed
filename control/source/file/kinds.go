// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"google.golang.org/protobuf/proto"
)

// groupKind is a kind with the group of its API version.
type groupKind struct{ group, kind string }

// reader makes an object of a document's spec.
type reader struct {
	versions []string
	read     func(d *decoder, head source.Object[struct{}], spec *node, line int) source.Entry
}

// kinds are those that are read. Istio's kinds have one specification for all versions.
var kinds = map[groupKind]reader{
	{"", "Service"}: {[]string{"v1"}, readService},
	{"networking.istio.io", "VirtualService"}: {networking, spec(func() *source.VirtualService {
		return &source.VirtualService{}
	})},
	{"networking.istio.io", "DestinationRule"}: {networking, spec(func() *source.DestinationRule {
		return &source.DestinationRule{}
	})},
	{"networking.istio.io", "Gateway"}: {networking, spec(func() *source.Gateway {
		return &source.Gateway{}
	})},
	{"networking.istio.io", "ServiceEntry"}: {networking, spec(func() *source.ServiceEntry {
		return &source.ServiceEntry{}
	})},
	{"networking.istio.io", "WorkloadEntry"}: {networking, spec(func() *source.WorkloadEntry {
		return &source.WorkloadEntry{}
	})},
	{"networking.istio.io", "Sidecar"}: {networking, spec(func() *source.Sidecar {
		return &source.Sidecar{}
	})},
	{"security.istio.io", "PeerAuthentication"}: {security, spec(func() *source.PeerAuthentication {
		return &source.PeerAuthentication{}
	})},
	{"security.istio.io", "AuthorizationPolicy"}: {security, spec(func() *source.AuthorizationPolicy {
		return &source.AuthorizationPolicy{}
	})},
	{"telemetry.istio.io", "Telemetry"}: {[]string{"v1", "v1alpha1"}, spec(func() *source.Telemetry {
		return &source.Telemetry{}
	})},
}

var (
	networking = []string{"v1", "v1beta1", "v1alpha3"}
	security   = []string{"v1", "v1beta1"}
)

// spec reads the specification of an Istio kind.
func spec[M proto.Message](make func() M) func(*decoder, source.Object[struct{}], *node, int) source.Entry {
	return func(d *decoder, head source.Object[struct{}], n *node, line int) source.Entry {
		m := make()
		if n != nil && n.kind != null {
			d.message(n, m, "spec")
		}
		return &source.Object[M]{
			Key: head.Key, Labels: head.Labels, Annotations: head.Annotations, Spec: m,
		}
	}
}

// later are kinds of Istio's and of the Gateway API that are not read yet, with what that means for the mesh.
var later = map[groupKind]string{
	{"security.istio.io", "RequestAuthentication"}: "no token is checked, so no request counts as having one: " +
		"ALLOW rules that ask for a request principal or claim match nothing",
	{"networking.istio.io", "EnvoyFilter"}:            "",
	{"networking.istio.io", "ProxyConfig"}:            "",
	{"networking.istio.io", "WorkloadGroup"}:          "",
	{"extensions.istio.io", "WasmPlugin"}:             "if it is there to refuse requests, they are not refused",
	{"extensions.istio.io", "TrafficExtension"}:       "if it is there to refuse requests, they are not refused",
	{"gateway.networking.k8s.io", "Gateway"}:          "",
	{"gateway.networking.k8s.io", "GatewayClass"}:     "",
	{"gateway.networking.k8s.io", "HTTPRoute"}:        "",
	{"gateway.networking.k8s.io", "GRPCRoute"}:        "",
	{"gateway.networking.k8s.io", "TCPRoute"}:         "",
	{"gateway.networking.k8s.io", "TLSRoute"}:         "",
	{"gateway.networking.k8s.io", "ReferenceGrant"}:   "",
	{"gateway.networking.k8s.io", "BackendTLSPolicy"}: "",
	{"networking.k8s.io", "Ingress"}:                  "",
}

// clusterGroups are Kubernetes' own; their objects say how things run, which is not for a mesh to do.
var clusterGroups = []string{"apps", "batch", "rbac.authorization.k8s.io", "networking.k8s.io", "policy",
	"autoscaling", "apiextensions.k8s.io"}

// clusterKinds are those of Kubernetes' core group.
var clusterKinds = []string{"Pod", "ServiceAccount", "ConfigMap", "Secret", "Namespace", "PersistentVolume",
	"PersistentVolumeClaim", "Endpoints", "Node", "LimitRange", "ResourceQuota", "ReplicationController"}

// refuse says why a kind is not read. The severity is Warning where nothing is lost to the mesh.
// known is false for a kind that may be a slip of the pen.
func refuse(gk groupKind) (severity source.Severity, why string, known bool) {
	name := gk.kind
	if gk.group != "" {
		name += " (" + gk.group + ")"
	}
	if consequence, ok := later[gk]; ok {
		if consequence != "" {
			consequence = ": " + consequence
		}
		return source.Error, name + " is not supported yet" + consequence, true
	}
	if slices.Contains(clusterGroups, gk.group) || gk.group == "" && slices.Contains(clusterKinds, gk.kind) {
		return source.Warning, name + " is not read from files: Meltemi starts nothing, it connects what runs", true
	}
	return source.Error, "the kind " + name + " is not known", false
}

func splitVersion(apiVersion string) (group, version string) {
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return "", apiVersion
	}
	return group, version
}
