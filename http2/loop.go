// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"fmt"

	"github.com/meltemi/meltemi/http2/internal/frame"
)

// readFrames reads until the connection ends. It returns what the socket said,
// or a ConnError for what the peer did wrong.
func (c *conn) readFrames() error {
	for first := true; ; first = false {
		h, err := c.rd.Next()
		if err != nil {
			return err
		}
		if first && (h.Kind != frame.Settings || h.Has(frame.FlagAck)) {
			return broken(CodeProtocol, "the first frame is not SETTINGS")
		}
		if h.Length > frame.MaxSize {
			return broken(CodeFrameSize, fmt.Sprintf("a frame of %d bytes, allowed are %d", h.Length, frame.MaxSize))
		}
		if err = c.frame(h); err == nil {
			continue
		}
		if err = c.faulted(err); err != nil {
			return err
		}
	}
}

// faulted resets the stream that err is about, if it is about one.
func (c *conn) faulted(err error) error {
	var se StreamError
	if errors.As(err, &se) {
		return c.streamFault(se)
	}
	return err
}

func broken(code ErrCode, reason string) ConnError { return ConnError{Code: code, Reason: reason} }

func brokenStream(id uint32, code ErrCode, reason string) StreamError {
	return StreamError{Stream: id, Code: code, Reason: reason}
}

// frame handles one frame, its payload included.
func (c *conn) frame(h frame.Head) error {
	switch h.Kind {
	case frame.Data:
		return c.onData(h)
	case frame.Headers:
		return c.onHeaders(h)
	case frame.Priority:
		return c.onPriority(h)
	case frame.Reset:
		return c.onReset(h)
	case frame.Settings:
		return c.onSettings(h)
	case frame.Ping:
		return c.onPing(h)
	case frame.GoAway:
		return c.onGoAway(h)
	case frame.WindowUpdate:
		return c.onWindowUpdate(h)
	case frame.PushPromise:
		return broken(CodeProtocol, "PUSH_PROMISE, which we have not allowed")
	case frame.Continuation:
		return broken(CodeProtocol, "CONTINUATION without a header block to continue")
	}
	// Unknown frames are ignored (RFC 9113 section 4.1).
	c.mu.Lock()
	err := c.flood.charge(nuisanceUnknown, &c.cfg.Limits)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.rd.Skip(h.Length)
}

// streamFault resets a stream whose peer broke a rule. Making us reset is as
// good an attack as resetting, and counts as such.
func (c *conn) streamFault(se StreamError) error {
	c.mu.Lock()
	defer c.unlock()
	if s := c.streams[se.Stream]; s != nil {
		c.resetLocked(s, se)
		s.discardLocked()
	} else {
		c.recent.endByUs(se.Stream)
		c.putLocked(frame.AppendReset(c.outLocked(), se.Stream, uint32(se.Code)))
		c.cfg.Counters.ResetsSent.Add(1)
	}
	if se.Code == CodeStreamClosed {
		return c.replyLocked() // counted as a stray
	}
	if err := c.flood.charge(nuisanceReset, &c.cfg.Limits); err != nil {
		return err
	}
	return c.replyLocked()
}

// replyLocked counts a frame that the peer has provoked and we have put into out.
func (c *conn) replyLocked() error {
	c.debt = true
	c.replies++
	if c.replies > c.cfg.Limits.Replies {
		return flooding("Replies", fmt.Sprintf("%d answers wait because the peer does not read", c.replies))
	}
	return nil
}

// padding reads the pad length of a padded frame whose payload has n bytes left,
// and returns n without it and the length of the padding.
func (c *conn) padding(h frame.Head, n int) (rest, pad int, err error) {
	if !h.Has(frame.FlagPadded) {
		return n, 0, nil
	}
	if n < 1 {
		return 0, 0, broken(CodeFrameSize, "a padded frame without a pad length")
	}
	b, err := c.rd.Take(1)
	if err != nil {
		return 0, 0, err
	}
	pad = int(b[0])
	if pad > n-1 {
		return 0, 0, broken(CodeProtocol, "more padding than payload")
	}
	return n - 1 - pad, pad, nil
}

func (c *conn) onData(h frame.Head) error {
	if h.Stream == 0 {
		return broken(CodeProtocol, "DATA on stream 0")
	}
	n, pad, err := c.padding(h, h.Length)
	if err != nil {
		return err
	}
	c.mu.Lock()
	s, fault := c.admitDataLocked(h, n)
	if fault != nil && !errors.As(fault, new(StreamError)) {
		c.mu.Unlock()
		return fault
	}
	for left := n; left > 0; {
		if c.rd.Buffered() == 0 { // reading may wait
			if s != nil {
				s.rcond.Signal()
			}
			c.mu.Unlock()
			if err := c.rd.Wait(); err != nil {
				return err
			}
			c.mu.Lock()
		}
		part, _ := c.rd.Part(left) // there is some
		left -= len(part)
		if s != nil && s.err == nil {
			s.box.write(part)
		} else if c.creditLocked(len(part)) {
			c.debt = true
		}
	}
	if s != nil && s.err == nil {
		if h.Has(frame.FlagEndStream) {
			s.endReceiveLocked()
		} else if c.paddedLocked(s, h.Length-n) {
			c.debt = true
		}
		s.rcond.Signal()
	}
	if c.creditLocked(h.Length - n) {
		c.debt = true
	}
	c.unlock()
	if err := c.rd.Skip(pad); err != nil {
		return err
	}
	return fault
}

// paddedLocked gives a stream's window back for padding, which nobody reads.
func (c *conn) paddedLocked(s *stream, n int) bool {
	if n == 0 {
		return false
	}
	inc := s.flow.credit(n)
	if inc > 0 {
		c.putLocked(frame.AppendWindowUpdate(c.outLocked(), s.id, inc))
	}
	return inc > 0
}

// admitDataLocked checks a DATA frame with n bytes that are not padding. It
// returns the stream to give them to; nil if they are to be dropped.
func (c *conn) admitDataLocked(h frame.Head, n int) (*stream, error) {
	if !c.in.receive(h.Length) {
		return nil, broken(CodeFlowControl, "DATA beyond the connection's window")
	}
	end := h.Has(frame.FlagEndStream)
	if n > 0 || end {
		c.flood.empty = 0
		c.flood.work++
	} else if c.flood.empty++; c.flood.empty > c.cfg.Limits.EmptyData {
		return nil, flooding("EmptyData", fmt.Sprintf("%d DATA frames in a row without data", c.flood.empty))
	}
	s := c.streams[h.Stream]
	if s == nil {
		return nil, c.strayLocked(h.Stream, "DATA")
	}
	if s.recvEnd {
		return nil, brokenStream(h.Stream, CodeStreamClosed, "DATA after END_STREAM")
	}
	if s.cs != nil && !s.cs.headSeen {
		return nil, brokenStream(h.Stream, CodeProtocol, "DATA before the head of the response")
	}
	if !s.flow.receive(h.Length) {
		return nil, brokenStream(h.Stream, CodeFlowControl, "DATA beyond the stream's window")
	}
	s.got += int64(n)
	if s.want >= 0 && (s.got > s.want || end && s.got != s.want) {
		c.cfg.Counters.Malformed.Add(1)
		return nil, brokenStream(h.Stream, CodeProtocol, fmt.Sprintf("content-length is %d, the body differs", s.want))
	}
	return s, nil
}

// strayLocked judges a frame for a stream that is not open.
func (c *conn) strayLocked(id uint32, what string) error {
	if !c.role.openedLocked(id) {
		return broken(CodeProtocol, what+" on a stream that was never opened")
	}
	ignore := c.recent.endedByUs(id) // it was on its way when we reset the stream
	if ignore && what == "DATA" {
		return nil // costs no more than DATA that is wanted
	}
	if err := c.flood.charge(nuisanceUnknown, &c.cfg.Limits); err != nil || ignore {
		return err
	}
	return brokenStream(id, CodeStreamClosed, what+" on a stream that has ended")
}

func (c *conn) onHeaders(h frame.Head) error {
	if h.Stream == 0 {
		return broken(CodeProtocol, "HEADERS on stream 0")
	}
	n, pad, err := c.padding(h, h.Length)
	if err != nil {
		return err
	}
	selfish := false
	if h.Has(frame.FlagPriority) {
		if n < 5 {
			return broken(CodeFrameSize, "HEADERS too short for its priority")
		}
		b, err := c.rd.Take(5)
		if err != nil {
			return err
		}
		selfish = dependency(b) == h.Stream
		n -= 5
	}
	c.blk.Begin()
	c.blockBytes, c.blockFrames = 0, 0
	if err := c.feed(n); err != nil {
		return err
	}
	if err := c.rd.Skip(pad); err != nil {
		return err
	}
	for ended := h.Has(frame.FlagEndHeaders); !ended; {
		if ended, err = c.continuation(h.Stream); err != nil {
			return err
		}
	}
	if err := c.blk.End(); err != nil {
		return broken(CodeCompression, err.Error())
	}
	if c.blk.TooLarge() {
		c.cfg.Counters.HeadersTooLarge.Add(1)
	}
	if selfish {
		c.blk.Reject("a stream that depends on itself")
	}
	return c.role.head(h.Stream, h.Has(frame.FlagEndStream))
}

func (c *conn) continuation(stream uint32) (ended bool, err error) {
	h, err := c.rd.Next()
	if err != nil {
		return false, err
	}
	switch {
	case h.Kind != frame.Continuation || h.Stream != stream:
		return false, broken(CodeProtocol, "a header block was not continued")
	case h.Length > frame.MaxSize:
		return false, broken(CodeFrameSize, "CONTINUATION is too large")
	}
	return h.Has(frame.FlagEndHeaders), c.feed(h.Length)
}

// feed gives the decoder n bytes of a header block.
func (c *conn) feed(n int) error {
	c.blockBytes += n
	c.blockFrames++
	if c.blockBytes > c.cfg.Limits.BlockBytes {
		return flooding("BlockBytes", fmt.Sprintf("a header block of more than %d bytes", c.cfg.Limits.BlockBytes))
	}
	if c.blockFrames > c.cfg.Limits.BlockFrames {
		return flooding("BlockFrames", fmt.Sprintf("a header block of more than %d frames", c.cfg.Limits.BlockFrames))
	}
	for n > 0 {
		part, err := c.rd.Part(n)
		if err != nil {
			return err
		}
		if _, err := c.blk.Write(part); err != nil {
			return broken(CodeCompression, err.Error())
		}
		n -= len(part)
	}
	return nil
}
