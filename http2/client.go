// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/http2/internal/head"
	"github.com/meltemi/meltemi/message"
)

// A ClientConn sends requests over one connection, many at once.
type ClientConn struct {
	conn
	cfg   ClientConfig
	ready chan struct{} // closed when the peer's settings have come, or with done
	done  chan struct{}

	// Guarded by conn.mu. conn.active counts streams that are reserved, too.
	nextID   uint32
	peerMax  int // the peer's SETTINGS_MAX_CONCURRENT_STREAMS, or what we assume
	settled  bool
	extended bool
	goneAway ConnError // what the peer's GOAWAY said
	final    error
}

// beforeSettings is how many streams we open before the peer has said how many
// it takes (RFC 9113 section 6.5.2 wants it to take 100 at least).
const beforeSettings = 100

var _ role = (*ClientConn)(nil)

// NewClientConn makes a client of nc, which it owns from now on, and begins to
// read from it. It does not wait for the peer. The error is always nil for now:
// a configuration that makes no sense may become one.
func NewClientConn(nc net.Conn, cfg ClientConfig) (*ClientConn, error) {
	d := ClientDefaults()
	cfg.Config = cfg.Config.withDefaults(d.Config)
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = d.MaxStreams
	}
	c := &ClientConn{
		cfg: cfg, nextID: 1, peerMax: -1,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	c.init(nc, cfg.Config, c)
	b := frame.AppendSetting(nil, frame.SettingEnablePush, 0)
	b = frame.AppendSetting(b, frame.SettingInitialWindow, cfg.StreamWindow)
	b = frame.AppendSetting(b, frame.SettingMaxHeaderListSize, cfg.Limits.HeaderBytes)
	c.putLocked(append(c.outLocked(), frame.Preface...))
	c.greetLocked(b)
	c.debt = true // a first request may leave before the reader looks
	go c.run()
	return c, nil
}

func (c *ClientConn) run() {
	c.beginKeepAlive()
	err := c.finish(c.readFrames())
	c.mu.Lock()
	c.final = err
	if err == nil {
		c.final = c.err
	}
	c.signalReadyLocked()
	c.noteChangeLocked()
	close(c.done)
	c.unlock()
}

func (c *ClientConn) signalReadyLocked() {
	if !c.settled {
		c.settled = true
		close(c.ready)
		for _, s := range c.wantRoom { // those that wait for the settings
			s.wcond.Signal()
		}
	}
}

func (c *ClientConn) noteChangeLocked() {
	if c.cfg.Changed != nil {
		c.calls = append(c.calls, c.cfg.Changed)
	}
}

// Open reserves a stream; its number is given when its head is written. It does
// not wait: if there is no room it fails with ErrNoStream, or with the ConnError
// that ended the connection. A stream that was opened must be read to its end, or
// be ended with Abort.
func (c *ClientConn) Open() (*ClientStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.availableLocked() <= 0 {
		return nil, ErrNoStream
	}
	s := &ClientStream{}
	s.initLocked(&c.conn, 0)
	s.cs = s
	s.heads = s.store[:0]
	c.active++
	return s, nil
}

// Available returns how many streams Open would give now.
func (c *ClientConn) Available() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.availableLocked())
}

func (c *ClientConn) availableLocked() int {
	if c.err != nil || c.draining {
		return 0
	}
	if !c.settled {
		return min(c.cfg.MaxStreams, beforeSettings) - c.active
	}
	return min(c.cfg.MaxStreams, c.peerMax) - c.active
}

// ActiveStreams returns how many streams are open.
func (c *ClientConn) ActiveStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Traffic returns how many bytes the connection has read and written.
func (c *ClientConn) Traffic() (in, out int64) { return c.rd.Got.Load(), c.sent.Load() }

// LastActive returns when a stream last began or ended, or else when the
// connection was made.
func (c *ClientConn) LastActive() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touched
}

// Ready is closed when the peer's settings have come, or the connection has ended.
func (c *ClientConn) Ready() <-chan struct{} { return c.ready }

// ExtendedConnect says whether the peer takes requests with a Protocol (RFC
// 8441); known once Ready is closed.
func (c *ClientConn) ExtendedConnect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extended
}

// Drained says whether the connection takes no new streams for good: the peer
// sent GOAWAY, Drain was called, numbers ran out, or it has ended.
func (c *ClientConn) Drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining || c.err != nil
}

// Drain opens no more streams and closes the connection when those open have ended.
func (c *ClientConn) Drain() {
	c.mu.Lock()
	c.draining = true
	c.closeIfDrainedLocked()
	c.unlock()
}

func (c *ClientConn) closeIfDrainedLocked() {
	if !c.draining || c.active > 0 || c.closing || c.err != nil {
		return
	}
	c.putLocked(frame.AppendGoAway(c.outLocked(), 0, uint32(CodeNo), ""))
	c.closeLocked()
}

// Done is closed when the connection has ended.
func (c *ClientConn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it has not.
func (c *ClientConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final == nil {
		return c.err
	}
	return c.final
}

// Close closes the connection and fails its streams.
func (c *ClientConn) Close() error {
	c.closeNow()
	return nil
}

// head takes the next head of a response, or its trailers.
func (c *ClientConn) head(id uint32, end bool) error {
	c.mu.Lock()
	defer c.unlock()
	s := c.streams[id]
	if s == nil {
		return c.strayLocked(id, "HEADERS")
	}
	c.flood.work++
	if s.recvEnd {
		return brokenStream(id, CodeStreamClosed, "HEADERS after END_STREAM")
	}
	if s.cs.headSeen {
		if !end {
			return brokenStream(id, CodeProtocol, "a trailer section without END_STREAM")
		}
		return s.takeTrailerLocked()
	}
	return c.responseLocked(s.cs, end)
}

func (c *ClientConn) responseLocked(s *ClientStream, end bool) error {
	if c.blk.TooLarge() && !c.blk.Malformed() {
		return brokenStream(s.id, CodeEnhanceYourCalm, "the head of the response is too large")
	}
	var h heard
	reason := c.blk.Response(&h.resp)
	if interim := h.resp.Status < 200; reason == "" && interim {
		if end {
			reason = "an informational head ends the stream"
		} else if len(s.heads) >= c.cfg.Limits.Interim {
			return brokenStream(s.id, CodeEnhanceYourCalm, "too many informational heads wait")
		}
	}
	if reason == "" && h.resp.Status >= 200 {
		reason = s.measure(&h.resp, end)
	}
	if reason != "" {
		c.cfg.Counters.Malformed.Add(1)
		return brokenStream(s.id, CodeProtocol, reason)
	}
	h.list = c.blk.TakeList()
	s.heads = append(s.heads, h)
	if h.resp.Status >= 200 {
		s.headSeen = true
		if end {
			s.endReceiveLocked()
		}
	}
	s.rcond.Broadcast()
	return nil
}

// measure works out how long the body is, and returns the rule that is broken.
func (s *ClientStream) measure(resp *message.Response, end bool) string {
	switch {
	case s.connect && resp.Status < 300:
		resp.ContentLength = message.LengthUnknown
		if s.protocol != "" {
			resp.Protocol = s.protocol
		}
	case s.bodiless || resp.Status == 204 || resp.Status == 304:
		resp.ContentLength = 0
		s.want = 0
	case end && resp.ContentLength > 0:
		return "content-length promises a body and there is none"
	case end:
		resp.ContentLength = 0
	default:
		s.want = resp.ContentLength
		resp.ContentLength = head.OpenLength(s.want)
	}
	return ""
}

func (c *ClientConn) openedLocked(id uint32) bool { return id%2 == 1 && id < c.nextID }

func (c *ClientConn) removedLocked(*stream) {
	c.active--
	c.touched = time.Now()
	c.closeIfDrainedLocked()
}

func (c *ClientConn) settingsLocked() {
	if !c.settled && c.peerMax < 0 {
		c.peerMax = math.MaxInt32 // it has not said otherwise
	}
	c.signalReadyLocked()
	c.noteChangeLocked()
}

func (c *ClientConn) settingLocked(id frame.Setting, v int) bool {
	switch id {
	case frame.SettingEnablePush:
		return v == 0
	case frame.SettingMaxStreams:
		c.peerMax = min(v, math.MaxInt32)
	case frame.SettingEnableConnect:
		if v > 1 || v == 0 && c.extended {
			return false
		}
		c.extended = v == 1
	}
	return true
}

func (c *ClientConn) goAwayLocked(last uint32, code ErrCode, debug string) {
	c.draining = true
	c.goneAway = ConnError{Code: code, Remote: true, LastStream: last, Reason: strings.ToValidUTF8(debug, "?")}
	for id, s := range c.streams {
		if id > last {
			c.failStreamLocked(s, c.unprocessedLocked(id))
		}
	}
	c.closeIfDrainedLocked()
	c.noteChangeLocked()
}

func (c *ClientConn) unprocessedLocked(id uint32) StreamError {
	return StreamError{Stream: id, Code: CodeRefusedStream, Remote: true, Unprocessed: true, Cause: c.goneAway}
}

func (c *ClientConn) pingedLocked([frame.PingLen]byte) {}

// A ClientStream is one request being sent and its response being read.
type ClientStream struct {
	stream

	// Guarded by conn.mu.
	heads    []heard // that wait for ReadHead
	store    [1]heard
	headSeen bool // the final one has come
	headRead bool
	connect  bool   // what was asked for: CONNECT,
	bodiless bool   // HEAD,
	protocol string // an upgrade
}

// A heard head has come and was not read yet.
type heard struct {
	resp message.Response
	list *message.Header // the storage of resp.Header
}

// WriteHead writes the request's head, which gives the stream its number; with
// end set nothing follows it. For a request with a Protocol it waits for the
// peer's settings, and fails if the peer does not take such.
func (s *ClientStream) WriteHead(req *message.Request, end bool) error {
	if err := head.CheckRequest(req); err != nil {
		return err
	}
	c, cc := s.c, s.c.role.(*ClientConn)
	c.mu.Lock()
	defer c.unlock()
	if s.headSent {
		return errMisuse("WriteHead: the head was written already")
	}
	if err := s.beginLocked(cc, req); err != nil {
		return err
	}
	s.connect, s.bodiless, s.protocol = req.Method == "CONNECT" || req.Protocol != "", req.Method == "HEAD", req.Protocol
	at := len(c.outLocked())
	c.putHeadLocked(&s.stream, at, c.encoderLocked().Request(reserveHead(c.out), req), end)
	if end {
		c.flushLocked()
	}
	return nil
}

// beginLocked waits for what a head must wait for, and gives the stream its number.
func (s *ClientStream) beginLocked(cc *ClientConn, req *message.Request) error {
	for req.Protocol != "" && !cc.settled && s.err == nil && cc.err == nil {
		if expired(s.wdl) {
			return errWriteDeadline
		}
		if cc.flushLocked() {
			continue
		}
		cc.wantRoom = append(cc.wantRoom, &s.stream)
		s.waitLocked(&s.wcond, s.wdl)
	}
	if req.Protocol != "" && !cc.extended && s.err == nil && cc.err == nil {
		return errMisuse(fmt.Sprintf("WriteHead: the peer does not take %s over HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL)", req.Protocol))
	}
	if err := s.roomLocked(); err != nil {
		return err
	}
	switch {
	case cc.err != nil:
		cc.failStreamLocked(&s.stream, StreamError{Code: CodeRefusedStream, Unprocessed: true, Cause: cc.err})
	case cc.goneAway.Remote:
		cc.failStreamLocked(&s.stream, cc.unprocessedLocked(0))
	case cc.nextID > frame.LargestStream:
		cc.failStreamLocked(&s.stream, StreamError{Code: CodeRefusedStream, Unprocessed: true, Reason: "stream numbers ran out"})
	}
	if s.err != nil {
		return s.err
	}
	s.id = cc.nextID
	cc.nextID += 2
	if cc.nextID > frame.LargestStream {
		cc.draining = true
	}
	cc.begun = s.id
	cc.streams[s.id] = &s.stream
	s.flow.left, s.sendWin = cc.granted, cc.initial // as they are now
	s.headSent = true
	cc.flood.opened++
	cc.touched = time.Now()
	return nil
}

// ReadHead waits for the next head: informational ones (1xx), then the final one.
// The strings in resp are its own. ContentLength is 0 if and only if nothing
// follows: no body and no trailers.
func (s *ClientStream) ReadHead(resp *message.Response) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(s.heads) == 0 {
		switch {
		case s.headRead:
			return errMisuse("ReadHead: the final head was read already")
		case s.err != nil:
			return s.err
		case expired(s.rdl):
			return errReadDeadline
		}
		s.waitLocked(&s.rcond, s.rdl)
	}
	h := s.heads[0]
	s.heads[0] = heard{}
	s.heads = s.heads[1:]
	fields := resp.Header
	*resp = h.resp
	resp.Header = fields
	resp.Header.CopyFrom(h.list)
	head.Release(h.list)
	s.headRead = resp.Status >= 200
	return nil
}

// Tunnel turns the stream into raw bytes, after a final head of 2xx to CONNECT.
func (s *ClientStream) Tunnel() Tunnel { return &tunnel{&s.stream} }
