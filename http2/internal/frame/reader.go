// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// A quiet connection holds a small read buffer, a busy one a large one.
const (
	smallRead = 4 << 10
	largeRead = 32 << 10
	quietRuns = 64 // reads in a row that would have fitted a quarter of the small one
)

var (
	smallReads = sync.Pool{New: func() any { return new([smallRead]byte) }}
	largeReads = sync.Pool{New: func() any { return new([largeRead]byte) }}
)

// A Reader takes frames apart. Payloads need not fit the buffer: they are taken
// in parts.
type Reader struct {
	Src  io.Reader
	Pre  []byte       // read by the caller before we began
	Idle func()       // called before a read that may wait
	Got  atomic.Int64 // bytes that Src gave

	buf   []byte
	r, w  int // buf[r:w] is unread
	quiet int
}

// Next returns the next frame's head; io.EOF if the connection ended before it.
func (r *Reader) Next() (Head, error) {
	b, err := r.Peek(HeadLen)
	if err != nil {
		return Head{}, err
	}
	h := Parse(b)
	r.r += HeadLen
	return h, nil
}

// Peek returns the next n ≤ smallRead bytes without taking them; io.EOF if there
// is none, io.ErrUnexpectedEOF if there are fewer.
func (r *Reader) Peek(n int) ([]byte, error) {
	for r.w-r.r < n {
		if err := r.fill(n); err != nil {
			if errors.Is(err, io.EOF) && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return r.buf[r.r : r.r+n], nil
}

// Take returns the next n ≤ smallRead bytes of a payload; valid until the next call.
func (r *Reader) Take(n int) ([]byte, error) {
	b, err := r.Peek(n)
	if err != nil {
		return nil, midFrame(err)
	}
	r.r += n
	return b, nil
}

// Part returns 1 to n bytes of a payload; valid until the next call.
func (r *Reader) Part(n int) ([]byte, error) {
	if err := r.Wait(); err != nil {
		return nil, err
	}
	n = min(n, r.w-r.r)
	b := r.buf[r.r : r.r+n]
	r.r += n
	return b, nil
}

// Wait waits until Part has something without waiting.
func (r *Reader) Wait() error {
	_, err := r.Peek(1)
	return midFrame(err)
}

// Skip drops n bytes of a payload.
func (r *Reader) Skip(n int) error {
	for n > 0 {
		b, err := r.Part(n)
		if err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

// fill reads once more, so that n bytes from r on will fit.
func (r *Reader) fill(n int) error {
	if r.r == r.w {
		r.resize(r.w == len(r.buf))
		r.r, r.w = 0, 0
	} else if len(r.buf)-r.r < n {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if len(r.Pre) > 0 {
		k := copy(r.buf[r.w:], r.Pre)
		r.Pre = r.Pre[k:]
		r.w += k
		return nil
	}
	r.Idle()
	k, err := r.Src.Read(r.buf[r.w:])
	if k < smallRead/4 {
		r.quiet++
	} else {
		r.quiet = 0
	}
	r.w += k
	r.Got.Add(int64(k))
	if k > 0 {
		return nil
	}
	return err
}

// resize changes an empty buffer's size to what the last reads ask for.
func (r *Reader) resize(full bool) {
	switch {
	case r.buf == nil:
		r.buf = smallReads.Get().(*[smallRead]byte)[:]
	case len(r.buf) == smallRead && full:
		r.Release()
		r.buf = largeReads.Get().(*[largeRead]byte)[:]
	case len(r.buf) == largeRead && r.quiet > quietRuns:
		r.Release()
		r.buf = smallReads.Get().(*[smallRead]byte)[:]
	}
}

// Release gives the buffer back.
func (r *Reader) Release() {
	switch len(r.buf) {
	case smallRead:
		smallReads.Put((*[smallRead]byte)(r.buf))
	case largeRead:
		largeReads.Put((*[largeRead]byte)(r.buf))
	}
	r.buf = nil
}

func midFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Buffered returns how many bytes can be had without waiting.
func (r *Reader) Buffered() int { return r.w - r.r }

// Discard drops n bytes that Peek has shown.
func (r *Reader) Discard(n int) { r.r += n }
