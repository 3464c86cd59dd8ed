// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package route decides where a request goes. It is pure: the same table, the
// same request and the same facts give the same decision, and nothing is
// allocated while deciding.
//
//	spec.go     Config: what a route table is made from
//	compile.go  Compile: Config to Table; refuses what cannot be
//	host.go     which virtual host a request belongs to
//	match.go    Table.Match: which route; Decision
//	explain.go  Table.Explain: the same, with all that was considered
//	rewrite.go  Table.Rewrite: path and authority sent upstream
//	redirect.go Decision.Location
//	headers.go  Table.RequestHeaders, ResponseHeaders
//	hash.go     Decision.Hash: for ring hash and maglev
//	retry.go    Retry: what may be tried again, and when
//
// A table names clusters and header formats by slot: Table.Clusters and
// Table.Formats list them, config resolves each once, and nothing is looked up
// by name while a request waits.
//
// The semantics are Envoy's (envoy.config.route.v3). Two are often surprising:
// a request belongs to one virtual host, and if none of its routes matches no
// other host is tried; and a condition on a missing header is false even when
// it is inverted.
package route
