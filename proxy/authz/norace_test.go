// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package authz

const poolsForget = false
