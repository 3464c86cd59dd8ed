// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package h2spec runs h2spec, the conformance suite for HTTP/2 servers, against
// package http2. It is a module of its own, so that the suite's dependencies
// stay out of the mesh's:
//
//	cd test/h2spec && go test -v .
package h2spec
