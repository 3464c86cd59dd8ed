// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package trace carries distributed traces through a proxy.
//
//	context.go    Context: where a request stands in its trace
//	headers.go    Extract and Inject: W3C Trace Context, B3 in one header or several
//	requestid.go  x-request-id, and the sampling decision packed into it
//	span.go       Span: one operation with its tags
//	exporter.go   Exporter: a bounded queue that sends spans in batches
//	otlp.go       spans as OTLP; senders over gRPC and HTTP
package trace
