// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import "sync"

// A buffer is what the pools hand out: a pointer, so that giving it back does
// not allocate.
type buffer struct{ b []byte }

// The sizes of pooled buffers: a head of common size, a body or a write, and a
// head as large as the default limit allows.
var bufferSizes = [...]int{minReadBuffer, writeBuffer, 64 << 10}

// Buffers are shared by all connections of the process; there is nothing in
// them that one of two owners in one process could miss.
var bufferPools [len(bufferSizes)]sync.Pool

// getBuffer returns a buffer of at least n bytes.
func getBuffer(n int) *buffer {
	for i, size := range bufferSizes {
		if n <= size {
			if b, _ := bufferPools[i].Get().(*buffer); b != nil {
				return b
			}
			return &buffer{make([]byte, size)}
		}
	}
	return &buffer{make([]byte, n)}
}

// put gives b back; those larger than the largest pooled size are garbage.
func (b *buffer) put() {
	for i, size := range bufferSizes {
		if len(b.b) == size {
			bufferPools[i].Put(b)
			return
		}
	}
}
