// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package up runs the program as people do, "meltemi up", and looks at it from
// outside: what it prints, how it ends, what it leaves behind, and what happens
// when parts of it are killed. Everything is in up_test.go.
package up
