// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package intent keeps wishes: what people want of the traffic, in neutral words. Front ends compile
// their objects into it, back ends read the merged result; neither sees the other's types.
//
//	route.go       RouteSet, HTTPRoute, L4Route: where requests and connections go
//	rule.go        TrafficRule: how endpoints are treated
//	gateway.go     Gateway, Server, Listener, VirtualHost
//	policy.go      PeerRule, Policy: who may call, and how callers prove who they are
//	sidecar.go     Sidecar: what a workload is told, and its listeners
//	settings.go    Settings: the mesh as a whole
//	wishes.go      Wishes: the queries
//
//	rows.go        Front: tables that hold wishes, and what they are found by
//	merge.go       Merge makes the queries
//	scope.go       Sidecar, Visible, Sees
//	mesh.go        RouteHosts and Routes: routes for sidecars
//	delegate.go    routes whose details another object holds
//	rules.go       Rules
//	edge.go        Listeners, VirtualHosts and L4Routes: routes at gateways
//	policies.go    PeerAuth, Authorization, AccessLog
//
// # Who wins
//
// The age of an object never decides anything. Where two objects claim the same thing:
//
//   - Routes of a host for sidecars: the object of the client's namespace, then that of the service's, then
//     the first by namespace and name. The others are not used; their status says who won. An exact host goes before
//     a wildcard, a longer wildcard before a shorter one.
//   - Routes of a host at a gateway: all objects' routes, in the order of namespace and name; one that
//     matches everything goes behind all others, and of several such the first is used.
//   - Traffic rules: rules of the client's namespace, then of the service's, then of the root namespace. Within
//     one, a rule that selects the client, then the most specific host, then the first by name. Rules of
//     the same namespace, host, selector and visibility merge: the first one's policy, everybody's subsets, of two subsets of one name
//     the first.
//   - Mutual TLS: port, then workload, namespace, mesh; of two of one scope the first by name.
//   - Authorization: all policies of the root namespace and of the workload's that select it.
//   - Sidecar: one that selects the workload, then the namespace's, then the root namespace's; of two the first by name.
package intent
