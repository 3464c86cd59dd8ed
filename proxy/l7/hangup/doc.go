// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package hangup tells whether a client has hung up while nobody reads from it.
package hangup
