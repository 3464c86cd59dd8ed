// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package keep remembers on disk what a proxy was sent and used, so that it can
// start and serve while the control plane is away. It stands between an
// xds.Subscriber and the handler of its updates, and knows no resource.
//
//	keep.go  Keeper: take notes, write them down in a while, bring them back
//	file.go  how they are written; what is wrong with a file
//
// Secrets are never kept: only types that are listed are. What is brought back
// is replaced by what the control plane says as soon as it is there.
package keep
