// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"math/rand/v2"
)

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
	Debug   bool   // B3's flag: sampled, whatever anyone decides
	State   string // tracestate, passed on as it came
	Format  Format // in which headers it came
}

// A Format is a set of header formats.
type Format uint8

// The formats.
const (
	W3C      Format = 1 << iota // traceparent, tracestate
	B3Single                    // b3
	B3                          // x-b3-traceid and its like
)

// Valid is true if c belongs to a trace.
func (c *Context) Valid() bool { return c.Trace != TraceID{} && c.Span != SpanID{} }

// Child returns the context of an operation below c; of a new trace if c is not valid.
func (c Context) Child() Context {
	if !c.Valid() {
		binary.BigEndian.PutUint64(c.Trace[:8], rand.Uint64())
		binary.BigEndian.PutUint64(c.Trace[8:], rand.Uint64()|1)
		c.Parent = SpanID{}
	} else {
		c.Parent = c.Span
	}
	binary.BigEndian.PutUint64(c.Span[:], rand.Uint64()|1)
	return c
}
