// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

// Labels are the labels or annotations of an object, or a selector over them.
// They are shared between versions of an object: nobody writes to a map once it is given away.
type Labels map[string]string

// Match reports whether labels carry everything that the selector asks for.
// The receiver is the selector; an empty one takes everything.
func (selector Labels) Match(labels Labels) bool {
	if len(selector) > len(labels) {
		return false
	}
	for k, want := range selector {
		if got, ok := labels[k]; !ok || got != want {
			return false
		}
	}
	return true
}

// first is the value of the first of keys that is there and not empty.
func (l Labels) first(keys ...string) string {
	for _, k := range keys {
		if v := l[k]; v != "" {
			return v
		}
	}
	return ""
}

// CanonicalService is the name under which a workload appears in telemetry;
// workload is the fallback, the name of its Deployment or the like.
func CanonicalService(l Labels, workload string) string {
	if v := l.first(LabelCanonicalName, LabelKubeName, LabelApp); v != "" {
		return v
	}
	return workload
}

// CanonicalRevision is the version under which a workload appears in telemetry.
func CanonicalRevision(l Labels) string {
	if v := l.first(LabelCanonicalRevision, LabelKubeVersion, LabelVersion); v != "" {
		return v
	}
	return "latest"
}

// Labels that Istio and Kubernetes put on workloads, services, namespaces and nodes.
const (
	LabelApp               = "app"
	LabelVersion           = "version"
	LabelKubeName          = "app.kubernetes.io/name"
	LabelKubeVersion       = "app.kubernetes.io/version"
	LabelCanonicalName     = "service.istio.io/canonical-name"
	LabelCanonicalRevision = "service.istio.io/canonical-revision"
	LabelWorkloadName      = "service.istio.io/workload-name"

	LabelRevision   = "istio.io/rev"
	LabelInjection  = "istio-injection"
	LabelInject     = "sidecar.istio.io/inject"
	LabelTLSMode    = "security.istio.io/tlsMode"
	LabelDataplane  = "istio.io/dataplane-mode"
	LabelGateway    = "gateway.networking.k8s.io/gateway-name"
	LabelGatewayAPI = "gateway.istio.io/managed"

	LabelWaypoint          = "istio.io/use-waypoint"
	LabelWaypointNamespace = "istio.io/use-waypoint-namespace"
	LabelWaypointFor       = "istio.io/waypoint-for"
	LabelIngressWaypoint   = "istio.io/ingress-use-waypoint"
	LabelGlobal            = "istio.io/global"
	LabelTunnel            = "networking.istio.io/tunnel"
	LabelGatewayPort       = "networking.istio.io/gatewayPort"

	LabelNetwork       = "topology.istio.io/network"
	LabelCluster       = "topology.istio.io/cluster"
	LabelSubzone       = "topology.istio.io/subzone"
	LabelIstioLocality = "istio-locality"
	LabelLocality      = "topology.istio.io/locality"
	LabelRegion        = "topology.kubernetes.io/region"
	LabelZone          = "topology.kubernetes.io/zone"
	LabelHostname      = "kubernetes.io/hostname"
)

// Annotations that Istio reads.
const (
	AnnotationExportTo          = "networking.istio.io/exportTo"
	AnnotationTrafficDist       = "networking.istio.io/traffic-distribution"
	AnnotationServiceAccounts   = "alpha.istio.io/kubernetes-serviceaccounts"
	AnnotationCanonicalAccounts = "alpha.istio.io/canonical-serviceaccounts"
	AnnotationProxyConfig       = "proxy.istio.io/config"
	AnnotationOverrides         = "proxy.istio.io/overrides"
	AnnotationStatus            = "sidecar.istio.io/status"
	AnnotationInterception      = "sidecar.istio.io/interceptionMode"
	AnnotationIncludeIn         = "traffic.sidecar.istio.io/includeInboundPorts"
	AnnotationExcludeIn         = "traffic.sidecar.istio.io/excludeInboundPorts"
	AnnotationIncludeOutRanges  = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	AnnotationExcludeOutRanges  = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
	AnnotationIncludeOutPorts   = "traffic.sidecar.istio.io/includeOutboundPorts"
	AnnotationExcludeOutPorts   = "traffic.sidecar.istio.io/excludeOutboundPorts"
	AnnotationRedirection       = "ambient.istio.io/redirection"
	AnnotationWaypointBinding   = "ambient.istio.io/waypoint-inbound-binding"
	AnnotationDryRun            = "istio.io/dry-run"
)
