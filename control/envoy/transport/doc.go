// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package transport writes TLS contexts: the mesh's own mutual TLS, TLS as rules ask for it
// towards endpoints, and TLS of gateways.
//
//	mesh.go     Client, Server: the workload's certificate, the mesh's roots
//	rule.go     ForRule: what a DestinationRule says
//	gateway.go  ForGateway: what a Gateway's server says
//
// The workload's certificate and the mesh's roots come from the proxy's agent, under
// Istio's names; our proxies hold their own and read the same names. Other
// certificates are files of the proxy, or secrets that this control plane is asked for by name.
package transport
