// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package match

const raced = false
