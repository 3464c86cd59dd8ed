// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package route turns the routes of one host into Envoy's.
//
//	compile.go  Compiler: which routes can be reached, in order
//	match.go    conditions
//	action.go   where requests go, and how often; rewrites, mirrors, stickiness
//	retry.go    when a request is tried again
//	answer.go   redirects, faults, CORS
//	inline.go   tables with a single route
//	names.go    the names by which a host may be called
//	table.go    Host, Table: hosts put together from bytes
package route
