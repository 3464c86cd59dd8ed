// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package sanitize makes a request fit to decide about: what the mesh itself
// reads from it is true, and what decides about it is byte for byte what is
// forwarded. It is pure; a request that is as it should be costs no allocation.
//
//	request.go    Request: all of it, in Envoy's order
//	target.go     authority and path: ports, dots, escapes, slashes
//	forwarded.go  x-forwarded-for and -proto: who the client is
//	cert.go       x-forwarded-client-cert
//	internal.go   x-envoy-* fields that only the mesh may set
package sanitize
