// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import "slices"

const typePrefix = "type.googleapis.com/"

// Types that the order of pushing knows.
const (
	typeListener  = typePrefix + "envoy.config.listener.v3.Listener"
	typeCluster   = typePrefix + "envoy.config.cluster.v3.Cluster"
	typeRoute     = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	typeEndpoint  = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeExtension = typePrefix + "envoy.config.core.v3.TypedExtensionConfig"
)

// order is the order in which the types of one push are sent: what is referred to comes before what refers
// to it. (The xDS protocol description, "Eventual consistency considerations", and Istio's PushOrder.)
var order = [...]string{
	typeCluster,
	typeEndpoint,
	typeListener,
	typeRoute,
	typePrefix + "envoy.extensions.transport_sockets.tls.v3.Secret",
	typePrefix + "istio.networking.nds.v1.NameTable",
	typePrefix + "istio.workload.Address",
	typePrefix + "istio.workload.Workload",
	typePrefix + "istio.security.Authorization",
}

// rank is a type's place in the order; those it does not name come last.
func rank(typeURL string) int {
	if i := slices.Index(order[:], typeURL); i >= 0 {
		return i
	}
	return len(order)
}

// removedLast: a cluster goes when the routes that named it have gone, and the listeners that name
// new ones are warm; see feed.trail.
func removedLast(typeURL string) bool { return typeURL == typeCluster }

// neverRemoved: removing an extension's configuration would take a running filter away. It goes with its listener.
func neverRemoved(typeURL string) bool { return typeURL == typeExtension }
