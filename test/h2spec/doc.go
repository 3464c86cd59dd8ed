// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package h2spec runs h2spec, the conformance suite for HTTP/2 servers, against
// package http2. The suite is a program, built apart from the mesh's modules:
//
//	go test -v ./test/h2spec
package h2spec
