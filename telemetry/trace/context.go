// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

// A TraceID names a trace, a SpanID one operation in it (W3C Trace Context).
type (
	TraceID [16]byte
	SpanID  [8]byte
)

// A Context is a span's place in its trace: what travels in headers.
type Context struct {
	Trace   TraceID
	Span    SpanID
	Parent  SpanID // zero for a root
	Sampled bool
	Debug   bool   // B3 flags: 1
	State   string // tracestate, passed on as it came
}

// Valid is true if c belongs to a trace.
func (c *Context) Valid() bool { return c.Trace != TraceID{} && c.Span != SpanID{} }
