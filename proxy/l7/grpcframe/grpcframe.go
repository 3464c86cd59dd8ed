// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package grpcframe counts the messages of a gRPC call as its body passes.
package grpcframe

import (
	"encoding/binary"
	"sync/atomic"
)

// prefixSize is what comes before each message: whether it is compressed, and its
// length (gRPC over HTTP/2, "Length-Prefixed-Message").
const prefixSize = 5

// A Counter counts the messages of one direction. Pass is called by one goroutine
// at a time, Take by any.
type Counter struct {
	n      atomic.Uint64
	rest   uint32 // of the message that is passing
	prefix [prefixSize]byte
	have   int // of prefix
}

// Pass is given what passes, in order and in pieces of any size.
func (c *Counter) Pass(p []byte) {
	for len(p) > 0 {
		if c.rest > 0 {
			k := min(uint64(c.rest), uint64(len(p)))
			c.rest -= uint32(k)
			p = p[k:]
			continue
		}
		k := copy(c.prefix[c.have:], p)
		c.have += k
		p = p[k:]
		if c.have == prefixSize {
			c.n.Add(1)
			c.have, c.rest = 0, binary.BigEndian.Uint32(c.prefix[1:])
		}
	}
}

// Take returns how many messages have begun since it was called last.
func (c *Counter) Take() uint64 { return c.n.Swap(0) }

// Reset makes the counter ready for another call.
func (c *Counter) Reset() {
	c.n.Store(0)
	c.rest, c.have = 0, 0
}
