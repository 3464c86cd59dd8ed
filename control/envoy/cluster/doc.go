// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster writes what a cluster is made of, apart from where its endpoints come from.
//
//	fixed.go     clusters that every proxy has
//	protocol.go  HTTP versions, idle times, what counts as an error
//	pool.go      limits, keep-alive
//	balance.go   how an endpoint is chosen, when one is set aside
//	locality.go  which endpoints are near
//
// Whatever Envoy would take for granted and a mesh does not want is said: no limits unless a rule sets some,
// no panic in which failing endpoints are used after all, TLS 1.3.
package cluster
