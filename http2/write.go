// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"runtime"
	"sync"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
)

// Tuning of the output.
const (
	outSize  = 64 << 10 // of the buffer that streams put frames into
	outMost  = 1 << 20  // with what does not wait for room: control frames
	flushAt  = 32 << 10 // sent though nobody asked for it
	slowCall = time.Millisecond
)

var outBuffers = sync.Pool{New: func() any { return newOutBuffer() }}

type outBuffer struct{ b []byte }

func newOutBuffer() *outBuffer { return &outBuffer{make([]byte, 0, outSize+4<<10)} }

// An output is where all streams of a connection put their frames, in the order
// in which they will be on the wire. One goroutine at a time sends it: whoever
// wants something sent while nobody is sending. While it is in the system call
// others fill the next buffer, which then leaves as one.
type output struct {
	out     []byte
	outBuf  *outBuffer // what out is a part of, nil if out is empty
	tail    *stream    // whose DATA frame is the last in out, and may be extended
	tailAt  int        // where that frame begins
	replies int        // frames in out that the peer provoked
	due     bool       // out holds something that its owner waits to see sent
	writing bool
	slow    bool // the last call took long: nobody sends in its own goroutine then

	begun  uint32 // the last stream whose head is in out, of a client
	handed uint32 // the last stream whose head was given to the socket

	deadline time.Time // of the socket's writes
	sendWin  int       // the connection's window
	first    *stream   // ring of streams that wait for a turn, nil if there is none
	wantRoom []*stream // streams with a head that did not fit
}

// outLocked returns out, to append frames to.
func (c *conn) outLocked() []byte {
	if c.outBuf == nil {
		c.outBuf = outBuffers.Get().(*outBuffer)
		c.out = c.outBuf.b[:0]
	}
	return c.out
}

// putLocked makes b, which is outLocked with frames appended, the new out.
func (c *conn) putLocked(b []byte) {
	c.out = b
	c.tail = nil
}

// putDataLocked appends p to the DATA frame of s that ends out, or as a new one.
func (c *conn) putDataLocked(s *stream, p []byte, end bool) {
	var flags uint8
	if end {
		flags = frame.FlagEndStream
		s.sendEnd = true
	}
	c.outLocked()
	if c.tail == s {
		if n := len(c.out) - c.tailAt - frame.HeadLen + len(p); n <= frame.MaxSize {
			c.out = append(c.out, p...)
			frame.Patch(c.out[c.tailAt:], n, flags)
			return
		}
	}
	c.tail, c.tailAt = s, len(c.out)
	c.out = append(frame.AppendHead(c.out, len(p), frame.Data, flags, s.id), p...)
	c.flood.work++
}

// pumpLocked gives the streams in the ring their turns, a frame each, until the
// buffer is full or the connection's window is used up.
func (c *conn) pumpLocked() {
	room := outSize
	if len(c.wantRoom) > 0 {
		room /= 2 // heads must get through bulk
	}
	for c.first != nil && len(c.out) < room {
		s := c.first
		n := max(0, min(len(s.wdata), s.sendWin, c.sendWin, frame.MaxSize))
		if n == 0 && len(s.wdata) > 0 {
			if c.sendWin <= 0 {
				return
			}
			c.leaveRingLocked(s) // until its window opens
			continue
		}
		rest := s.wdata[n:]
		c.putDataLocked(s, s.wdata[:n], s.wend && len(rest) == 0)
		s.wdata = rest
		s.sendWin -= n
		c.sendWin -= n
		c.due = true
		if len(rest) == 0 {
			c.leaveRingLocked(s)
			s.wcond.Signal()
		} else {
			c.first = s.next // its turn is over
		}
	}
}

func (c *conn) joinRingLocked(s *stream) {
	if s.next != nil {
		return
	}
	if c.first == nil {
		s.next, s.prev = s, s
		c.first = s
		return
	}
	last := c.first.prev
	s.prev, s.next = last, c.first
	last.next, c.first.prev = s, s
}

func (c *conn) leaveRingLocked(s *stream) {
	if s.next == nil {
		return
	}
	if s.next == s {
		c.first = nil
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
		if c.first == s {
			c.first = s.next
		}
	}
	s.next, s.prev = nil, nil
}

// flushLocked sees to it that out is sent. If nobody is sending it sends itself,
// unless the socket was slow lately: a goroutine of its own does it then, so
// that deadlines hold. It says whether it has let go of the lock meanwhile.
func (c *conn) flushLocked() bool {
	if c.writing || len(c.out) == 0 || c.closed {
		return false
	}
	c.writing = true
	if c.slow {
		go c.send()
		return false
	}
	if c.active > 1 {
		// Others may be about to send, too: after them one call does for all.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.sendOnceLocked()
	c.sentLocked()
	c.kickLocked() // what others have added is not ours to wait for
	return true
}

// kickLocked is flushLocked for those who must not wait, as the reader: if it
// waited for the peer to read, and the peer for us, both would for ever.
func (c *conn) kickLocked() {
	if len(c.out) > outMost && c.writing {
		c.lostLocked(flooding("Replies", "the peer makes us write and does not read"))
		c.closeSocketLocked()
		return
	}
	if !c.writing && !c.closed && (len(c.out) > 0 || c.closing && !c.halfClosed) {
		c.writing = true
		go c.send()
	}
}

// send sends until nothing is left.
func (c *conn) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.closed {
		c.sendOnceLocked()
	}
	if c.closing && !c.halfClosed && !c.closed {
		c.halfCloseLocked()
	}
	c.sentLocked()
}

func (c *conn) sentLocked() {
	c.writing = false
	if c.closed || c.closing {
		c.quiet.Broadcast()
	}
}

// sendOnceLocked writes what is in out to the socket, without the lock.
func (c *conn) sendOnceLocked() {
	buf, box := c.out, c.outBuf
	c.out, c.outBuf, c.tail, c.replies, c.due = nil, nil, nil, 0, false
	c.handed = max(c.handed, c.begun)
	c.pumpLocked() // those who wait fill the next buffer
	for _, s := range c.wantRoom {
		s.wcond.Signal()
	}
	c.wantRoom = c.wantRoom[:0]

	now := time.Now()
	if d := c.cfg.WriteTimeout; d > 0 && !c.closing && c.deadline.Sub(now) < d*3/4 {
		c.deadline = now.Add(d)
		_ = c.nc.SetWriteDeadline(c.deadline) // a closed socket says so at Write
	}
	c.mu.Unlock()
	n, err := c.nc.Write(buf)
	c.sent.Add(int64(n))
	took := time.Since(now)
	if cap(buf) <= 2*outSize {
		box.b = buf[:0]
		outBuffers.Put(box)
	}
	c.mu.Lock()
	c.slow = took > slowCall
	if err != nil {
		c.lostLocked(ConnError{Code: CodeNo, Remote: true, Reason: "writing to the peer failed", Cause: err})
		return
	}
	c.pumpLocked()
}
