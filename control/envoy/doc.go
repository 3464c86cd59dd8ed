// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoy is the back end for everything that speaks Envoy's xDS: it turns
// facts and wishes into listeners, routes, clusters and endpoints, for sidecars
// and gateways, Envoy's or ours.
//
//	client.go     Client: what of a proxy its configuration depends on
//	backend.go    Backend: one query per resource type, and the names of each
//	clusters.go   service ports and subsets to clusters; policy.go merges what rules say
//	endpoints.go  endpoints by locality and priority
//	outbound.go   listeners for what the workload calls
//	inbound.go    listeners for who calls the workload; mtls.go chooses its chains
//	gateway.go    listeners and route tables of gateways
//	routes.go     route tables of sidecars; route.go, match.go: one route
//	hcm.go        the HTTP connection manager and its filters, in order
//	rbac.go       authorization policies to RBAC
//	tls.go        TLS contexts
//	names.go      the DNS name table
//
// Each result is a query of its own, keyed by the least it depends on, so that a
// changed object recomputes what concerns it and proxies that are alike share.
// What is emitted follows Istio's control plane, field by field, because that is
// what Envoys in meshes are tuned to; Istio's own filters go only to proxies
// that say they have them.
package envoy
