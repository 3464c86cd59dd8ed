// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"github.com/meltemi/meltemi/http2/internal/frame"
)

import "sync"

// An inbox holds what a stream has received and nobody has read. Its pieces are
// sized by what arrives, so that many streams with little data hold little.
type inbox struct {
	head, tail *chunk
	n          int // unread bytes
}

type chunk struct {
	next *chunk
	r, w int // buf[r:w] is unread
	buf  []byte
}

var chunkSizes = [...]int{1 << 10, 4 << 10, 16 << 10}

// Chunks are shared by all connections of the process.
var chunkPools [len(chunkSizes)]sync.Pool

func getChunk(n int) *chunk {
	i := 0
	for i < len(chunkSizes)-1 && chunkSizes[i] < n {
		i++
	}
	if c, _ := chunkPools[i].Get().(*chunk); c != nil {
		return c
	}
	return &chunk{buf: make([]byte, chunkSizes[i])}
}

func (c *chunk) release() {
	c.next, c.r, c.w = nil, 0, 0
	for i, size := range chunkSizes {
		if size == len(c.buf) {
			chunkPools[i].Put(c)
		}
	}
}

// write copies p in.
func (b *inbox) write(p []byte) {
	b.n += len(p)
	for len(p) > 0 {
		t := b.tail
		if t == nil || t.w == len(t.buf) {
			t = getChunk(max(len(p), min(b.n, chunkSizes[len(chunkSizes)-1])))
			if b.tail == nil {
				b.head = t
			} else {
				b.tail.next = t
			}
			b.tail = t
		}
		k := copy(t.buf[t.w:], p)
		t.w += k
		p = p[k:]
	}
}

// read copies to p what fits.
func (b *inbox) read(p []byte) int {
	n := 0
	for b.head != nil && n < len(p) {
		h := b.head
		k := copy(p[n:], h.buf[h.r:h.w])
		n += k
		h.r += k
		if h.r < h.w {
			break
		}
		b.head = h.next
		if b.head == nil {
			b.tail = nil
		}
		h.release()
	}
	b.n -= n
	return n
}

// clear drops everything and returns how much that was.
func (b *inbox) clear() int {
	n := b.n
	for b.head != nil {
		h := b.head
		b.head = h.next
		h.release()
	}
	*b = inbox{}
	return n
}

// An inflow is a window that we grant: left is what the peer may still send,
// owed is what was read since we last said so.
type inflow struct {
	left, owed int
	size       int // what left is brought back to
}

// receive takes n off the window and says whether the peer was allowed to send it.
func (f *inflow) receive(n int) bool {
	f.left -= n
	return f.left >= 0
}

// credit notes that n bytes were read and returns the increment to announce, or 0:
// windows are given back in halves, so that announcing is cheap.
func (f *inflow) credit(n int) int {
	f.owed += n
	if f.owed == 0 || f.owed < f.size/2 {
		return 0
	}
	inc := f.owed
	f.left += inc
	f.owed = 0
	return inc
}

// grow widens the window, towards largest, and returns the increment to announce.
func (f *inflow) grow(largest int) int {
	inc := min(f.size, largest-f.size)
	if inc <= 0 {
		return 0
	}
	f.size += inc
	f.left += inc
	return inc
}

// creditLocked gives n bytes of the connection's window back, and says whether
// there is something to send now.
func (c *conn) creditLocked(n int) bool {
	inc := c.in.credit(n)
	if inc == 0 || c.err != nil {
		return false
	}
	c.putLocked(frame.AppendWindowUpdate(c.outLocked(), 0, inc))
	return true
}

// consumedLocked gives n bytes that were read from s back, and says whether there
// is something to send now. A stream whose reader keeps up gets a wider window:
// it will not pin what it is granted.
func (c *conn) consumedLocked(s *stream, n int) bool {
	due := c.creditLocked(n)
	if s.recvEnd || s.gone || c.err != nil {
		return due
	}
	inc := s.flow.credit(n)
	if inc == 0 {
		return due
	}
	if s.box.n == 0 {
		inc += s.flow.grow(c.cfg.MaxStreamWindow)
	}
	c.putLocked(frame.AppendWindowUpdate(c.outLocked(), s.id, inc))
	return true
}
