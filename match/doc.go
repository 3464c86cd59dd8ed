// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package match holds the matchers that policy and routing share. They are
// compiled once, pure, and allocate nothing when asked.
//
//	string.go   String: exact, prefix, suffix, contains, regex, any
//	header.go   Header: one condition on a request's header, Envoy's semantics
//	query.go    Query: one condition on a query parameter
//	value.go    Value: one condition on dynamic metadata, such as a JWT claim
//	address.go  Prefixes: a set of CIDRs; Ports: a range of ports
//	template.go Template: path templates, "/a/{*}/b/{**}"
//
// The semantics are those of envoy.type.matcher.v3 and
// envoy.config.route.v3.HeaderMatcher. Regular expressions are RE2 (package
// regexp) and always match the whole string. Case is ASCII case.
package match
