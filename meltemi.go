// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package meltemi is the root of the module. It holds no code: the house is
// drawn in ARCHITECTURE.md and held up by layers_test.go; the program is in
// cmd/meltemi.
package meltemi
