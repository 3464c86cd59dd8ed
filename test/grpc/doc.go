// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package grpc holds tests of what lives longer than a request, through two
// sidecars with mutual TLS between them: gRPC by its own interoperability programs,
// and WebSocket.
//
//	interop_test.go    gRPC's client and server, every case that needs no credentials
//	streams_test.go    calls that outlive changes, large messages, cancelled calls
//	websocket_test.go  WebSocket through a gateway and through sidecars
package grpc
