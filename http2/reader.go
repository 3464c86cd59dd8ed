// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"io"
	"sync"
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

// A reader takes frames apart. Payloads need not fit the buffer: they are taken
// in parts.
type reader struct {
	src   io.Reader
	pre   []byte // read by the caller before we began
	idle  func() // called before a read that may wait
	buf   []byte
	r, w  int // buf[r:w] is unread
	quiet int
}

// head returns the next frame's head; io.EOF if the connection ended before it.
func (r *reader) head() (frameHead, error) {
	b, err := r.need(frameHeadLen)
	if err != nil {
		return frameHead{}, err
	}
	h := parseFrameHead(b)
	r.r += frameHeadLen
	return h, nil
}

// need returns the next n ≤ smallRead bytes without taking them; io.EOF if there
// is none, io.ErrUnexpectedEOF if there are fewer.
func (r *reader) need(n int) ([]byte, error) {
	for r.w-r.r < n {
		if err := r.fill(n); err != nil {
			if err == io.EOF && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return r.buf[r.r : r.r+n], nil
}

// take returns the next n ≤ smallRead bytes of a payload; valid until the next call.
func (r *reader) take(n int) ([]byte, error) {
	b, err := r.need(n)
	if err != nil {
		return nil, midFrame(err)
	}
	r.r += n
	return b, nil
}

// part returns 1 to n bytes of a payload; valid until the next call.
func (r *reader) part(n int) ([]byte, error) {
	if r.r == r.w {
		if _, err := r.need(1); err != nil {
			return nil, midFrame(err)
		}
	}
	n = min(n, r.w-r.r)
	b := r.buf[r.r : r.r+n]
	r.r += n
	return b, nil
}

// skip drops n bytes of a payload.
func (r *reader) skip(n int) error {
	for n > 0 {
		b, err := r.part(n)
		if err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

// fill reads once more, so that n bytes from r on will fit.
func (r *reader) fill(n int) error {
	if r.r == r.w {
		r.resize(r.w == len(r.buf))
		r.r, r.w = 0, 0
	} else if len(r.buf)-r.r < n {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if len(r.pre) > 0 {
		k := copy(r.buf[r.w:], r.pre)
		r.pre = r.pre[k:]
		r.w += k
		return nil
	}
	r.idle()
	k, err := r.src.Read(r.buf[r.w:])
	if k < smallRead/4 {
		r.quiet++
	} else {
		r.quiet = 0
	}
	r.w += k
	if k > 0 {
		return nil
	}
	return err
}

// resize changes an empty buffer's size to what the last reads ask for.
func (r *reader) resize(full bool) {
	switch {
	case r.buf == nil:
		r.buf = smallReads.Get().(*[smallRead]byte)[:]
	case len(r.buf) == smallRead && full:
		r.release()
		r.buf = largeReads.Get().(*[largeRead]byte)[:]
	case len(r.buf) == largeRead && r.quiet > quietRuns:
		r.release()
		r.buf = smallReads.Get().(*[smallRead]byte)[:]
	}
}

// release gives the buffer back.
func (r *reader) release() {
	switch len(r.buf) {
	case smallRead:
		smallReads.Put((*[smallRead]byte)(r.buf))
	case largeRead:
		largeReads.Put((*[largeRead]byte)(r.buf))
	}
	r.buf = nil
}

func midFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
