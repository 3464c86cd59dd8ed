// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package match

// raced: the race detector makes pools, regexp's among them, forget at random.
const raced = true
