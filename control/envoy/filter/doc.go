// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package filter writes what stands on the way of a connection: listener filters, the HTTP
// connection manager with its filters in order, the TCP proxy, access logs.
//
//	features.go  Features: which filters of Istio's a proxy has
//	inspect.go   listener filters
//	http.go      Manager; HTTP filters, in order, and why
//	tcp.go       TCP: the filters of a chain that looks at no requests
//	chains.go    Chains: what chains match, so that no two match the same
//	entry.go     Entries: the ways in which a connection may come in
//	log.go       access logs
//
// Fields follow Istio's control plane, because that is what Envoys in meshes are tuned to.
package filter
