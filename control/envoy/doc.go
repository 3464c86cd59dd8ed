// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoy is the back end for everything that speaks Envoy's xDS: it turns
// facts and wishes into listeners, routes, clusters and endpoints, for sidecars
// and gateways, Envoy's or ours.
//
//	backend.go    Backend: one query per resource type, and the names of each
//	clusters.go   service ports and subsets to clusters; secure.go their TLS
//	endpoints.go  endpoints by locality and priority
//	outbound.go   listeners for what the workload calls; l4.go their chains
//	inbound.go    listeners for who calls the workload; ports.go which ports those are
//	gateway.go    listeners of gateways; edge.go their route tables
//	routes.go     route tables of sidecars; hosts.go one host
//	names.go      the DNS name table, and what a destination is
//
// Rooms below know one sort of thing each: sight what a proxy is and sees, route a host's routes, rbac policies,
// cluster the settings of clusters, transport TLS, filter the filters of connections, emit the words that all use.
//
// Each result is a query of its own, keyed by the least it depends on, so that a
// changed object recomputes what concerns it and proxies that are alike share.
// What is emitted follows Istio's control plane, field by field, because that is
// what Envoys in meshes are tuned to; Istio's own filters go only to proxies
// that say they have them.
package envoy
