// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package security is istio.security, generated from authorization.proto:
// authorization as node proxies enforce it. Read Authorization first, then down to Match.
package security
