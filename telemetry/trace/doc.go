// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package trace carries distributed traces through the proxy.
//
//	context.go  Context: trace, span, sampling decision
//	span.go     Span: one operation with its tags
package trace
