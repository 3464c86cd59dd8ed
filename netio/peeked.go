// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// PeekLimit is how many bytes a Peeked can hold back: room for a TLS ClientHello of one
// record with post-quantum key shares, and for an HTTP request line.
const PeekLimit = 16 << 10

var peekBuffers = sync.Pool{New: func() any { return new([PeekLimit]byte) }}

// Peeked is a connection whose first bytes can be looked at without consuming them. Once what was
// peeked has been read, it costs nothing: reads go to the connection below, and Relay, ReadFrom and
// WriteTo splice. Peeking and reading belong to one goroutine at a time; writing to another.
type Peeked struct {
	net.Conn // the connection below; writes and deadlines go straight to it

	buf  *[PeekLimit]byte // from peekBuffers; nil when nothing is held
	r, w int              // buf[r:w] is held
	err  error            // what ended peeking; returned once by Read after what is held
}

var (
	_ net.Conn      = (*Peeked)(nil)
	_ io.ReaderFrom = (*Peeked)(nil)
	_ io.WriterTo   = (*Peeked)(nil)
)

// NewPeeked wraps c.
func NewPeeked(c net.Conn) *Peeked { return &Peeked{Conn: c} }

// Buffered returns what is held back, valid until the next Read or peek.
func (p *Peeked) Buffered() []byte {
	if p.buf == nil {
		return nil
	}
	return p.buf[p.r:p.w]
}

// Fill reads once from the connection below and returns all that is held. It fails with
// io.ErrShortBuffer when PeekLimit bytes are held already.
func (p *Peeked) Fill() ([]byte, error) {
	if p.err != nil {
		return p.Buffered(), p.err
	}
	if p.buf == nil {
		p.buf = peekBuffers.Get().(*[PeekLimit]byte)
		p.r, p.w = 0, 0
	}
	if p.r > 0 {
		p.w = copy(p.buf[:], p.buf[p.r:p.w])
		p.r = 0
	}
	if p.w == len(p.buf) {
		return p.Buffered(), io.ErrShortBuffer
	}
	n, err := p.Conn.Read(p.buf[p.w:])
	p.w += n
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		p.err = err
	}
	return p.Buffered(), err
}

// Peek returns at least n bytes without consuming them, or fewer and the error that prevented it.
func (p *Peeked) Peek(n int) ([]byte, error) {
	if n > PeekLimit {
		return p.Buffered(), io.ErrShortBuffer
	}
	for p.w-p.r < n {
		if b, err := p.Fill(); err != nil && len(b) < n {
			return b, err
		}
	}
	return p.Buffered(), nil
}

// Sniff peeks until enough says yes, or no more can be had within wait (0: no limit): the peer is
// silent, has closed its side, or PeekLimit is reached. Those are no errors: the caller
// decides on what there is, so that a protocol in which the server speaks first does not stall.
// Errors are those of a broken connection. The read deadline is cleared afterwards.
func (p *Peeked) Sniff(wait time.Duration, enough func([]byte) bool) ([]byte, error) {
	if b := p.Buffered(); len(b) > 0 && enough(b) {
		return b, nil
	}
	if wait > 0 {
		if err := p.Conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return p.Buffered(), err
		}
		defer func() { _ = p.Conn.SetReadDeadline(time.Time{}) }()
	}
	for {
		b, err := p.Fill()
		switch {
		case err == nil:
			if enough(b) {
				return b, nil
			}
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrShortBuffer):
			if len(b) == 0 {
				p.release()
			}
			return b, nil
		default:
			return b, err
		}
	}
}

// Read returns what is held first, then reads from the connection below.
func (p *Peeked) Read(b []byte) (int, error) {
	if p.buf == nil && p.err == nil {
		return p.Conn.Read(b)
	}
	if p.w > p.r {
		n := copy(b, p.buf[p.r:p.w])
		p.r += n
		if p.r == p.w {
			p.release()
		}
		return n, nil
	}
	p.release()
	if err := p.err; err != nil {
		p.err = nil
		return 0, err
	}
	return p.Conn.Read(b)
}

// Raw returns the connection below once nothing is held back any more.
func (p *Peeked) Raw() (net.Conn, bool) {
	if p.w > p.r || p.err != nil {
		return nil, false
	}
	p.release()
	return p.Conn, true
}

// NetConn returns the connection below, whatever is held back.
func (p *Peeked) NetConn() net.Conn { return p.Conn }

// ReadFrom writes what r yields, by splice(2) where both ends are sockets.
func (p *Peeked) ReadFrom(r io.Reader) (int64, error) { return io.Copy(p.Conn, r) }

// WriteTo writes what is held and then the rest of the connection to w.
func (p *Peeked) WriteTo(w io.Writer) (int64, error) {
	var held int64
	for p.w > p.r {
		n, err := w.Write(p.buf[p.r:p.w])
		p.r += n
		held += int64(n)
		if err != nil {
			return held, err
		}
	}
	p.release()
	if err := p.err; err != nil {
		p.err = nil
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return held, err
	}
	n, err := io.Copy(w, p.Conn)
	return held + n, err
}

// CloseWrite ends our direction, if the connection below can do so.
func (p *Peeked) CloseWrite() error { return closeWrite(p.Conn) }

// Close closes the connection below. The buffer is not reused, as a reader may still look at it.
func (p *Peeked) Close() error { return p.Conn.Close() }

func (p *Peeked) release() {
	if p.buf != nil {
		peekBuffers.Put(p.buf)
		p.buf = nil
	}
	p.r, p.w = 0, 0
}
