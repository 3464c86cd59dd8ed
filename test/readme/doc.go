// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package readme runs the README's commands as they are written, from a copy of the
// tracked files, as root and as an ordinary user.
package readme
