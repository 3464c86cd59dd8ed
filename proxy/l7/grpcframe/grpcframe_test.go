// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package grpcframe

import (
	"encoding/binary"
	"testing"
)

// message is one of size bytes with its prefix.
func message(size int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(size)), make([]byte, size)...)
}

// However a body is cut, the same messages are in it.
func TestMessagesAreCounted(t *testing.T) {
	body := []byte{}
	for _, size := range []int{0, 1, 4, 5, 6, 1000, 0, 70_000} {
		body = append(body, message(size)...)
	}
	for _, piece := range []int{1, 2, 3, 5, 7, 999, len(body)} {
		var c Counter
		for rest := body; len(rest) > 0; {
			n := min(piece, len(rest))
			c.Pass(rest[:n])
			rest = rest[n:]
		}
		if n := c.Take(); n != 8 {
			t.Errorf("in pieces of %d: %d messages, want 8", piece, n)
		}
		if n := c.Take(); n != 0 {
			t.Errorf("%d more", n)
		}
	}
}

func TestReset(t *testing.T) {
	var c Counter
	c.Pass(message(1000)[:500])
	c.Reset()
	c.Pass(message(1))
	if n := c.Take(); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func BenchmarkPass(b *testing.B) {
	var c Counter
	body := make([]byte, 0, 32<<10)
	for range 30 {
		body = append(body, message(1<<10)...)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c.Pass(body)
	}
}
