// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"errors"
	"io"
	"net"
)

// A reader is a connection's read buffer. Bytes before pinned are pointed to by
// strings of the current exchange and stay where they are; a buffer that is
// full and pinned is replaced, and kept until unpin.
type reader struct {
	conn   net.Conn
	lazy   *lazyReader // nil if conn is no socket
	buf    *buffer     // nil while nothing is buffered and nothing is pinned
	r, w   int         // unread bytes: buf.b[r:w]
	pinned int         // pinned ≤ r
	held   []*buffer
	got    int64 // from conn, not told by Traffic yet
}

func newReader(conn net.Conn) reader { return reader{conn: conn, lazy: newLazyReader(conn)} }

func (in *reader) Buffered() int { return in.w - in.r }

func (in *reader) unread() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.b[in.r:in.w]
}

// pin keeps everything that was consumed where it is.
func (in *reader) pin() { in.pinned = in.r }

// unpin ends the life of all strings that point into the buffer.
func (in *reader) unpin() {
	in.pinned = 0
	for i, b := range in.held {
		b.put()
		in.held[i] = nil
	}
	in.held = in.held[:0]
	if in.r == in.w && in.buf != nil {
		in.buf.put()
		in.buf, in.r, in.w = nil, 0, 0
	}
}

func (in *reader) release() {
	in.r = in.w
	in.unpin()
}

// preload puts b before all that will be read from the connection.
func (in *reader) preload(b []byte) {
	if len(b) == 0 {
		return
	}
	in.makeRoom(len(b))
	in.w += copy(in.buf.b[in.w:], b)
}

// fill waits for more bytes and appends them to those unread. It prefers a
// buffer of at least size bytes.
func (in *reader) fill(size int) error {
	if in.buf == nil && in.lazy != nil {
		b, n, err := in.lazy.read()
		if err != nil {
			return err
		}
		in.buf, in.r, in.w, in.pinned = b, 0, n, 0
		in.got += int64(n)
		return nil
	}
	in.makeRoom(1)
	if size > len(in.buf.b) && in.r == in.w {
		in.replace(size)
	}
	for range 100 {
		n, err := in.conn.Read(in.buf.b[in.w:])
		in.w += n
		in.got += int64(n)
		if n > 0 {
			return nil // an error with bytes will be met again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom makes room for at least n bytes after those unread, without moving
// what is pinned.
func (in *reader) makeRoom(n int) {
	if in.buf == nil {
		in.buf = getBuffer(max(n, minReadBuffer))
		in.r, in.w, in.pinned = 0, 0, 0
	}
	if in.r == in.w {
		in.r, in.w = in.pinned, in.pinned
	}
	free, unread := len(in.buf.b)-in.w, in.w-in.r
	if free >= n && free > 0 {
		return
	}
	// Moving pays if it frees at least half the buffer, which also keeps the
	// cost of moving below that of reading.
	if gap := in.r - in.pinned; gap+free >= n && gap >= len(in.buf.b)/2 {
		copy(in.buf.b[in.pinned:], in.buf.b[in.r:in.w])
		in.r, in.w = in.pinned, in.pinned+unread
		return
	}
	in.replace(max(2*unread, unread+n, minReadBuffer))
}

// replace continues in a buffer of at least size bytes.
func (in *reader) replace(size int) {
	next := getBuffer(size)
	unread := copy(next.b, in.buf.b[in.r:in.w])
	if in.pinned > 0 {
		in.held = append(in.held, in.buf)
	} else {
		in.buf.put()
	}
	in.buf, in.r, in.w, in.pinned = next, 0, unread, 0
}

var (
	crlf     = []byte("\r\n")
	crlfcrlf = []byte("\r\n\r\n")
)

// awaitHead reads until the unread bytes begin with a whole head: a start line,
// field lines, an empty line. It returns io.EOF only if the connection ended
// before the first byte. lines bounds the lines before the empty one; it is how
// a flood of tiny fields is cut short.
func (in *reader) awaitHead(lim *Limits, lines int) error {
	var s headScan
	for {
		b := in.unread()
		done, bad := s.scan(b, lim, lines)
		if bad != nil {
			return bad
		}
		if done {
			return nil
		}
		if err := in.fill(0); err != nil {
			if errors.Is(err, io.EOF) && len(b) > 0 {
				return errTruncated
			}
			return err
		}
	}
}

// A headScan looks for the end of a head that grows; it looks at each byte once.
type headScan struct {
	line  int // where the first line that is not scanned begins
	lines int // how many came before it
}

// scan says whether b holds a whole head. A head that is whole in the first
// read, as nearly all are, is seen without looking at its lines.
func (s *headScan) scan(b []byte, lim *Limits, lines int) (done bool, bad *Error) {
	if len(b) <= lim.MaxHeadBytes && bytes.HasSuffix(b, crlfcrlf) {
		return true, nil
	}
	for {
		i := bytes.IndexByte(b[s.line:], '\n')
		if i < 0 {
			break
		}
		end := s.line + i
		if i > 0 && b[end-1] == '\r' {
			i--
		} else if !lim.AllowBareLF {
			return false, malformed("line ends with LF alone")
		}
		if end >= lim.MaxHeadBytes {
			return false, s.tooLarge()
		}
		if i == 0 {
			return true, nil
		}
		s.line = end + 1
		if s.lines++; s.lines > lines {
			return false, errFieldCount
		}
	}
	if len(b) >= lim.MaxHeadBytes {
		return false, s.tooLarge()
	}
	return false, nil
}

func (s *headScan) tooLarge() *Error {
	if s.lines == 0 {
		return errTargetSize
	}
	return errHeadSize
}
