// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/http2/internal/head"
	"github.com/meltemi/meltemi/message"
)

// A stream is what ServerStream and ClientStream have in common.
type stream struct {
	c  *conn
	id uint32 // 0 for a client's stream before its head is written
	cs *ClientStream

	// All below is guarded by c.mu.
	rcond, wcond sync.Cond // the reading and the writing goroutine wait here
	rdl, wdl     time.Time
	timer        *time.Timer
	armed        time.Time // when timer will wake both, zero if it will not

	err  error // why it ended before both sides ended it; nil if it did not
	gone bool  // not in c.streams any more

	recvEnd bool // END_STREAM has come, box holds the rest
	box     inbox
	flow    inflow
	want    int64 // content-length, or message.LengthUnknown
	got     int64
	trailer *message.Header

	headSent bool // the final head
	sendEnd  bool // END_STREAM is in out, or was
	sendWin  int
	wdata    []byte // what the writing goroutine waits to send; it owns it
	wend     bool
	next     *stream // in the ring of output, nil if it waits for no turn
	prev     *stream

	onReset func()
	begun   time.Time // of a server's stream
}

var (
	errReadDeadline  = fmt.Errorf("http2: reading a stream: %w", os.ErrDeadlineExceeded)
	errWriteDeadline = fmt.Errorf("http2: writing a stream: %w", os.ErrDeadlineExceeded)
)

func (s *stream) initLocked(c *conn, id uint32) {
	s.c, s.id = c, id
	s.rcond.L, s.wcond.L = &c.mu, &c.mu
	s.flow = inflow{left: c.granted, size: c.cfg.StreamWindow}
	s.sendWin = c.initial
	s.want = message.LengthUnknown
}

// Reading

// Read reads the body; io.EOF at its end.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.box.n == 0 {
		switch {
		case s.recvEnd:
			return 0, io.EOF
		case s.err != nil:
			return 0, s.err
		case expired(s.rdl):
			return 0, errReadDeadline
		}
		s.waitLocked(&s.rcond, s.rdl)
	}
	n := s.box.read(p)
	if c.consumedLocked(s, n) {
		c.kickLocked()
	}
	return n, nil
}

// Buffered returns how many bytes Read can return without waiting; 1 if it can
// tell of the end.
func (s *stream) Buffered() int {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.box.n == 0 && (s.recvEnd || s.err != nil) {
		return 1
	}
	return s.box.n
}

// Trailer returns the trailers, nil if there are none; valid once Read has returned io.EOF.
func (s *stream) Trailer() *message.Header {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailer
}

// discardLocked drops what was received and not read, and gives its window back.
func (s *stream) discardLocked() {
	if n := s.box.clear(); n > 0 && s.c.creditLocked(n) {
		s.c.kickLocked()
	}
}

// endReceiveLocked notes that the peer has ended its side.
func (s *stream) endReceiveLocked() {
	s.recvEnd = true
	s.closeIfEndedLocked()
	s.rcond.Broadcast()
}

func (s *stream) closeIfEndedLocked() {
	if s.recvEnd && s.sendEnd && !s.gone {
		s.c.recent.endFully(s.id)
		s.c.removeLocked(s)
	}
}

// Writing

// Write writes a part of the body; it leaves with Flush or Finish, or when
// enough has gathered. It waits while the peer's windows are used up.
func (s *stream) Write(p []byte) (int, error) { return s.send(p, false, false) }

// Flush sends what was written.
func (s *stream) Flush() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil && !s.sendEnd {
		return s.err
	}
	c.flushLocked()
	return nil
}

// Finish ends this side, with trailers unless trailer is nil or empty, and sends
// what was written. A second Finish does nothing.
func (s *stream) Finish(trailer *message.Header) error {
	if trailer == nil || trailer.Len() == 0 {
		_, err := s.send(nil, true, true)
		return err
	}
	if err := head.CheckFields(trailer); err != nil {
		return err
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.roomLocked(); err != nil {
		return err
	}
	if s.sendEnd {
		return errMisuse("Finish: trailers after the end")
	}
	at := len(c.outLocked())
	c.putHeadLocked(s, at, c.encoderLocked().Trailer(reserveHead(c.out), trailer), true)
	c.flushLocked()
	return nil
}

// writableLocked says why nothing more can be written, or nil.
func (s *stream) writableLocked() error {
	switch {
	case s.err != nil:
		return s.err
	case !s.headSent:
		return errMisuse("a body is written before its head")
	case s.sendEnd:
		return errMisuse("a body is written after its end")
	}
	return nil
}

// send writes p, and the end if end is set, and waits until all of it is in out.
func (s *stream) send(p []byte, end, flush bool) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if end && s.sendEnd && len(p) == 0 {
		c.flushLocked()
		return 0, nil
	}
	if err := s.writableLocked(); err != nil {
		return 0, err
	}
	s.wdata, s.wend = p, end
	for !s.passLocked() {
		err := s.err
		if err == nil && expired(s.wdl) {
			err = errWriteDeadline
		}
		if err != nil {
			n := len(p) - len(s.wdata)
			s.wdata, s.wend = nil, false
			c.leaveRingLocked(s)
			return n, err
		}
		if !c.flushLocked() {
			s.waitLocked(&s.wcond, s.wdl)
		}
	}
	if end {
		s.closeIfEndedLocked()
	}
	if flush || c.due || len(c.out) >= flushAt {
		c.flushLocked()
	}
	return len(p), nil
}

// passLocked moves wdata to out as far as it may, and says whether all is there.
func (s *stream) passLocked() bool {
	c := s.c
	switch {
	case len(s.wdata) == 0 && (!s.wend || s.sendEnd):
		return true // others have moved it in their turn
	case s.err != nil:
		return false
	}
	if c.first == nil && len(c.out) < outSize {
		if n := len(s.wdata); n == 0 || n <= min(s.sendWin, c.sendWin, frame.MaxSize) {
			s.putAllLocked()
			return true
		}
	}
	if len(s.wdata) > 0 && s.sendWin > 0 || len(s.wdata) == 0 && s.wend && !s.sendEnd {
		c.joinRingLocked(s)
	}
	c.pumpLocked()
	return len(s.wdata) == 0 && s.next == nil && (!s.wend || s.sendEnd)
}

// putAllLocked is the common case: room, windows, and nobody waits for a turn.
func (s *stream) putAllLocked() {
	n := len(s.wdata)
	if n > 0 || s.wend {
		s.c.putDataLocked(s, s.wdata, s.wend)
	}
	s.sendWin -= n
	s.c.sendWin -= n
	s.wdata = nil
}

// roomLocked waits until out has room for a head.
func (s *stream) roomLocked() error {
	c := s.c
	for s.err == nil && len(c.out) >= outSize {
		if expired(s.wdl) {
			return errWriteDeadline
		}
		if c.flushLocked() {
			continue
		}
		c.wantRoom = append(c.wantRoom, s)
		s.waitLocked(&s.wcond, s.wdl)
	}
	return s.err
}

// reserveHead appends the place of a HEADERS frame's head; putHeadLocked fills it in.
func reserveHead(b []byte) []byte {
	return frame.AppendHead(b, 0, frame.Headers, 0, 0)
}

// putHeadLocked makes frames of the block that begins, behind a reserved frame
// head, at b[at], and makes b the new out.
func (c *conn) putHeadLocked(s *stream, at int, b []byte, end bool) {
	var flags uint8
	if end {
		flags = frame.FlagEndStream
	}
	block := b[at+frame.HeadLen:]
	if len(block) <= frame.MaxSize {
		frame.AppendHead(b[:at], len(block), frame.Headers, flags|frame.FlagEndHeaders, s.id)
	} else {
		block = append([]byte(nil), block...)
		b = frame.AppendHead(b[:at], frame.MaxSize, frame.Headers, flags, s.id)
		b = append(b, block[:frame.MaxSize]...)
		for block = block[frame.MaxSize:]; len(block) > 0; {
			n, last := min(len(block), frame.MaxSize), uint8(0)
			if n == len(block) {
				last = frame.FlagEndHeaders
			}
			b = append(frame.AppendHead(b, n, frame.Continuation, last, s.id), block[:n]...)
			block = block[n:]
		}
	}
	c.putLocked(b)
	c.flood.work++
	if end {
		s.sendEnd = true
		s.closeIfEndedLocked()
	}
}

// encoderLocked returns the connection's encoder, which quiet connections do without.
func (c *conn) encoderLocked() *head.Encoder {
	if c.enc == nil {
		c.enc = head.NewEncoder()
		c.enc.Resize(c.tableSize)
	}
	return c.enc
}

// Ending, waiting

// Abort resets the stream with code, unless it has ended by itself, and drops
// what was not read.
func (s *stream) Abort(code uint32) {
	c := s.c
	c.mu.Lock()
	s.onReset = nil
	c.resetLocked(s, StreamError{Stream: s.id, Code: ErrCode(code), Reason: "aborted"})
	s.recvEnd = false // Read reports the abort, not the end
	s.discardLocked()
	c.kickLocked()
	c.unlock()
}

// endIfIdle ends our side, unless a Write is under way.
func (s *stream) endIfIdle() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.wdata == nil && s.writableLocked() == nil {
		s.c.putDataLocked(s, nil, true)
		s.closeIfEndedLocked()
	}
}

// OnReset calls f, at most once and in a goroutine that must not be blocked, if
// the peer resets the stream, or its connection ends, before both sides have
// ended it.
func (s *stream) OnReset(f func()) {
	s.c.mu.Lock()
	if s.gone && s.err != nil {
		s.c.calls = append(s.c.calls, f)
	} else if !s.gone {
		s.onReset = f
	}
	s.c.unlock()
}

// SetReadDeadline bounds reading; errors then satisfy os.ErrDeadlineExceeded.
// The zero time is no bound. It returns nil.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.c.mu.Lock()
	s.rdl = t
	s.c.mu.Unlock()
	s.rcond.Broadcast() // who waits must look at it
	return nil
}

// SetWriteDeadline bounds writing likewise. Once an error has told of it a part
// of a body may have been sent. While the socket itself takes nothing, one
// stream of the connection may overrun it, by WriteTimeout at most.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	s.wdl = t
	s.c.mu.Unlock()
	s.wcond.Broadcast()
	return nil
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// waitLocked waits for cond or for the deadline. Callers check everything again:
// the timer is set once and left alone while deadlines move.
func (s *stream) waitLocked(cond *sync.Cond, deadline time.Time) {
	if !deadline.IsZero() && (s.armed.IsZero() || deadline.Before(s.armed)) {
		s.armed = deadline
		d := max(time.Until(deadline), 0)
		if s.timer == nil {
			s.timer = time.AfterFunc(d, s.wake)
		} else {
			s.timer.Reset(d)
		}
	}
	cond.Wait()
}

func (s *stream) wake() {
	s.c.mu.Lock()
	s.armed = time.Time{}
	s.c.mu.Unlock()
	s.rcond.Broadcast()
	s.wcond.Broadcast()
}

// retireLocked stops what may still refer to s when its owner is done with it.
func (s *stream) retireLocked() {
	if s.timer != nil {
		s.timer.Stop()
	}
	head.Release(s.trailer)
	s.trailer = nil
	s.discardLocked()
}

// takeTrailerLocked ends the peer's side with the trailer section in the block.
func (s *stream) takeTrailerLocked() error {
	c := s.c
	reason := c.blk.Trailer()
	switch {
	case reason == "" && c.blk.TooLarge():
		return brokenStream(s.id, CodeEnhanceYourCalm, "the trailer section is too large")
	case reason == "" && s.want >= 0 && s.got != s.want:
		reason = "content-length differs from the body"
	}
	if reason != "" {
		c.cfg.Counters.Malformed.Add(1)
		return brokenStream(s.id, CodeProtocol, reason)
	}
	s.trailer = c.blk.TakeList()
	s.endReceiveLocked()
	return nil
}
