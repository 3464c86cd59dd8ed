// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
)

// chargeAnd counts a nuisance; f then runs under the lock.
func (c *conn) chargeAnd(k nuisance, f func() error) error {
	c.mu.Lock()
	defer c.unlock()
	if err := c.flood.charge(k, &c.cfg.Limits); err != nil {
		return err
	}
	return f()
}

// dependency returns the stream that a priority (RFC 9113 section 6.3) names.
func dependency(b []byte) uint32 { return binary.BigEndian.Uint32(b) & frame.LargestStream }

// onPriority ignores priorities, but for what RFC 9113 forbids.
func (c *conn) onPriority(h frame.Head) error {
	if h.Stream == 0 {
		return broken(CodeProtocol, "PRIORITY on stream 0")
	}
	if h.Length != 5 {
		if err := c.rd.Skip(h.Length); err != nil {
			return err
		}
		return brokenStream(h.Stream, CodeFrameSize, "PRIORITY is not of 5 bytes")
	}
	b, err := c.rd.Take(5)
	if err != nil {
		return err
	}
	if dependency(b) == h.Stream {
		return brokenStream(h.Stream, CodeProtocol, "a stream that depends on itself")
	}
	return c.chargeAnd(nuisancePriority, func() error { return nil })
}

// rapid is how soon a reset must follow its request to be counted. Clients whose
// deadlines pass also reset, many at once when something behind us is slow: they
// must not lose their connection for it, and they cannot make us do more than
// MaxStreams requests in this time.
const rapid = 100 * time.Millisecond

func (c *conn) onReset(h frame.Head) error {
	if h.Length != 4 {
		return broken(CodeFrameSize, "RST_STREAM is not of 4 bytes")
	}
	b, err := c.rd.Take(4)
	if err != nil {
		return err
	}
	code := ErrCode(binary.BigEndian.Uint32(b))
	c.mu.Lock()
	defer c.unlock()
	if !c.role.openedLocked(h.Stream) {
		return broken(CodeProtocol, "RST_STREAM on a stream that was never opened")
	}
	s := c.streams[h.Stream]
	if s == nil {
		return c.flood.charge(nuisanceUnknown, &c.cfg.Limits)
	}
	c.cfg.Counters.ResetsReceived.Add(1)
	early := !s.sendEnd && time.Since(s.begun) < rapid
	c.failStreamLocked(s, StreamError{
		Stream: h.Stream, Code: code, Remote: true, Unprocessed: s.cs != nil && code == CodeRefusedStream,
	})
	if s.cs != nil {
		return nil // a server that resets harms itself; what came before may be read
	}
	s.discardLocked()
	if early {
		return c.flood.charge(nuisanceReset, &c.cfg.Limits)
	}
	return nil
}

func (c *conn) onSettings(h frame.Head) error {
	switch {
	case h.Stream != 0:
		return broken(CodeProtocol, "SETTINGS on a stream")
	case h.Has(frame.FlagAck) && h.Length != 0 || h.Length%frame.SettingLen != 0:
		return broken(CodeFrameSize, fmt.Sprintf("SETTINGS of %d bytes", h.Length))
	case h.Has(frame.FlagAck):
		return c.chargeAnd(nuisanceSettings, c.settledLocked)
	case h.Length > maxSettings*frame.SettingLen:
		return flooding("Settings", fmt.Sprintf("%d settings in one frame", h.Length/frame.SettingLen))
	}
	var settings [maxSettings]struct {
		id    frame.Setting
		value int
	}
	n := h.Length / frame.SettingLen
	for i := range n {
		b, err := c.rd.Take(frame.SettingLen)
		if err != nil {
			return err
		}
		settings[i].id, settings[i].value = frame.Setting(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint32(b[2:]))
	}
	return c.chargeAnd(nuisanceSettings, func() error {
		// Acknowledge and apply in one step, in this order: whatever goes out
		// behind the acknowledgement obeys what was acknowledged.
		c.putLocked(frame.AppendHead(c.outLocked(), 0, frame.Settings, frame.FlagAck, 0))
		for _, x := range settings[:n] {
			if err := c.applySettingLocked(x.id, x.value); err != nil {
				return err
			}
		}
		c.role.settingsLocked()
		return c.replyLocked()
	})
}

// maxSettings bounds the parameters of one SETTINGS frame; eight are defined.
const maxSettings = 64

// settledLocked is called when the peer has acknowledged our settings: streams
// now begin with the window that we have announced, also those that are open.
func (c *conn) settledLocked() error {
	delta := c.cfg.StreamWindow - c.granted
	c.granted = c.cfg.StreamWindow
	if delta != 0 {
		for _, s := range c.streams {
			s.flow.left += delta
		}
	}
	return nil
}

func (c *conn) applySettingLocked(id frame.Setting, v int) error {
	switch id {
	case frame.SettingHeaderTableSize:
		c.tableSize = v
		if c.enc != nil {
			c.enc.Resize(v)
		}
	case frame.SettingInitialWindow:
		if v > frame.LargestWindow {
			return broken(CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
		}
		return c.setInitialLocked(v)
	case frame.SettingMaxFrameSize:
		if v < frame.MaxSize || v > frame.LargestMaxSize {
			return broken(CodeProtocol, "SETTINGS_MAX_FRAME_SIZE is out of range")
		}
	default:
		if !c.role.settingLocked(id, v) {
			return broken(CodeProtocol, fmt.Sprintf("setting %d must not be %d", id, v))
		}
	}
	return nil
}

// setInitialLocked changes the window of all streams (RFC 9113 section 6.9.2);
// windows may become negative.
func (c *conn) setInitialLocked(v int) error {
	delta := v - c.initial
	c.initial = v
	for _, s := range c.streams {
		s.sendWin += delta
		if s.sendWin > frame.LargestWindow {
			return broken(CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE overflows a stream's window")
		}
		if delta > 0 {
			c.reopenLocked(s)
		}
	}
	return nil
}

// reopenLocked lets a stream whose window was used up take its turn.
func (c *conn) reopenLocked(s *stream) {
	if len(s.wdata) > 0 && s.sendWin > 0 {
		c.joinRingLocked(s)
		c.pumpLocked()
	}
}

func (c *conn) onWindowUpdate(h frame.Head) error {
	if h.Length != 4 {
		return broken(CodeFrameSize, "WINDOW_UPDATE is not of 4 bytes")
	}
	b, err := c.rd.Take(4)
	if err != nil {
		return err
	}
	inc := int(binary.BigEndian.Uint32(b) & frame.LargestWindow)
	return c.chargeAnd(nuisanceWindowUpdate, func() error {
		if h.Stream == 0 {
			return c.widenLocked(inc)
		}
		return c.widenStreamLocked(h.Stream, inc)
	})
}

func (c *conn) widenLocked(inc int) error {
	if inc == 0 {
		return broken(CodeProtocol, "WINDOW_UPDATE by 0")
	}
	c.sendWin += inc
	if c.sendWin > frame.LargestWindow {
		return broken(CodeFlowControl, "the connection's window overflows")
	}
	c.pumpLocked()
	c.debt = c.debt || c.due
	return nil
}

func (c *conn) widenStreamLocked(id uint32, inc int) error {
	s := c.streams[id]
	if s == nil {
		if !c.role.openedLocked(id) {
			return broken(CodeProtocol, "WINDOW_UPDATE on a stream that was never opened")
		}
		return nil // it may have been on its way when the stream ended
	}
	if inc == 0 {
		return brokenStream(id, CodeProtocol, "WINDOW_UPDATE by 0")
	}
	s.sendWin += inc
	if s.sendWin > frame.LargestWindow {
		return brokenStream(id, CodeFlowControl, "the stream's window overflows")
	}
	c.reopenLocked(s)
	c.debt = c.debt || c.due
	return nil
}

func (c *conn) onPing(h frame.Head) error {
	if h.Stream != 0 {
		return broken(CodeProtocol, "PING on a stream")
	}
	if h.Length != frame.PingLen {
		return broken(CodeFrameSize, "PING is not of 8 bytes")
	}
	b, err := c.rd.Take(frame.PingLen)
	if err != nil {
		return err
	}
	data := [frame.PingLen]byte(b)
	return c.chargeAnd(nuisancePing, func() error {
		if h.Has(frame.FlagAck) {
			if data == pingAlive && !c.pingSent.IsZero() {
				c.pingSent = time.Time{}
				c.keepAlive.Reset(c.cfg.KeepAlive)
			}
			c.role.pingedLocked(data)
			return nil
		}
		c.putLocked(frame.AppendPing(c.outLocked(), true, data))
		return c.replyLocked()
	})
}

func (c *conn) onGoAway(h frame.Head) error {
	if h.Stream != 0 {
		return broken(CodeProtocol, "GOAWAY on a stream")
	}
	if h.Length < 8 {
		return broken(CodeFrameSize, "GOAWAY is too short")
	}
	b, err := c.rd.Take(8)
	if err != nil {
		return err
	}
	last, code := dependency(b), ErrCode(binary.BigEndian.Uint32(b[4:]))
	n := min(h.Length-8, 128)
	if b, err = c.rd.Take(n); err != nil {
		return err
	}
	debug := string(b)
	if err := c.rd.Skip(h.Length - 8 - n); err != nil {
		return err
	}
	return c.chargeAnd(nuisanceSettings, func() error {
		c.role.goAwayLocked(last, code, debug)
		return nil
	})
}
