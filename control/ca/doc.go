// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca decides who may hold which identity, and signs.
//
//	ca.go      Authority: the pieces put together; Run
//	root.go    the root: created once, kept in the state folder, checked when loaded
//	tokens.go  join tokens: issued, kept as hashes, revoked
//	admit.go   who is asking, and for which identity they may
//	sign.go    the certificate service: a request in, a chain out
//	local.go   the same for a proxy in our own process
//	serving.go the control plane's own server certificate
//	limit.go   requests per peer
//
// There is one root and no intermediate. Changing the root of a running mesh is
// refused: it needs a time in which proxies trust both, which is not built.
//
// Sources: Istio's certificate service (istio.v1.auth), SPIFFE X.509-SVID.
package ca
