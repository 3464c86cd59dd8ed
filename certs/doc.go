// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs gives a workload its certificate and checks those of its peers.
// The life of a certificate, in file order:
//
//	csr.go      a new key and a request that names one SPIFFE ID
//	request.go  the request goes to an authority, over TLS with a pinned root
//	svid.go     the answer, checked: chain, key, roots, identity
//	rotate.go   the next one is fetched at half of its life
//	source.go   the current one, behind one atomic pointer
//	tls.go      TLS configurations that look at the Source in each handshake
//	verify.go   who a peer is, and whether it is one we want
//	grpc.go     the same for gRPC: tokens, transport credentials, the caller's chain
//
// Rotation applies to new handshakes; connections live on with the certificate
// they began with. Private keys exist in memory only.
//
// Sources: SPIFFE X.509-SVID (one URI SAN, leaf not a CA), RFC 5280, Istio's certificate service.
package certs
