// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package secrets turns Envoy's TLS contexts into TLS configurations that read
// certificates and roots live: what rotates needs no new configuration, and a
// secret that has not come yet fails handshakes, never opens them.
//
//	source.go   where a certificate or roots come from: identity, SDS, file, inline
//	keeper.go   Keeper: the secrets of one proxy, by name
//	context.go  Keeper.Server, Keeper.Client: a TLS context compiled
//	params.go   versions, cipher suites and curves by Envoy's names
//	verify.go   whether a peer's chain and names are accepted
//
// Unlike Envoy's, sessions are never resumed, so that each connection meets the
// certificates, roots and names of now; and clients speak TLS 1.3 unless a
// context says otherwise.
package secrets
