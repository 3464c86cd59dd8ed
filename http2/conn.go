// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/http2/internal/head"
)

// A role is what the two ends of a connection do differently. Methods ending in
// Locked are called with conn.mu held, the others by the reader without it.
type role interface {
	head(id uint32, end bool) error             // a header block is complete, in conn.blk
	openedLocked(id uint32) bool                // stream id exists or has existed
	removedLocked(s *stream)                    // s has left conn.streams
	settingLocked(id frame.Setting, v int) bool // a parameter of the peer; false if the value is not allowed
	settingsLocked()                            // all parameters of a SETTINGS frame have been seen
	goAwayLocked(last uint32, code ErrCode, debug string)
	pingedLocked(data [frame.PingLen]byte) // the peer has answered a PING of ours
}

// A conn is what the two ends of a connection have in common.
//
//	open ──Drain──▶ draining ──last stream──▶ closing ──sent──▶ half closed ──peer hangs up, Linger──▶ closed
//	  └───────────── an error of ours: lostLocked, finish ───────────▶┘                                  ▲
//	  └───────────── the socket is gone, Close ──────────────────────────────────────────────────────────┘
type conn struct {
	nc   net.Conn
	cfg  Config
	role role

	// The reader's own.
	rd   frame.Reader
	blk  *head.Decoder
	debt bool // something the reader has put into out is to be sent

	blockBytes, blockFrames int // on the wire, of the header block in blk

	sent     atomic.Int64 // bytes that the socket took
	lastRead atomic.Int64 // when the socket last gave something (Unix nanoseconds), for KeepAlive

	mu        sync.Mutex
	streams   map[uint32]*stream
	active    int // streams that count against the limits
	touched   time.Time
	enc       *head.Encoder
	tableSize int    // of the peer's HPACK decoder
	in        inflow // the connection's window for what we receive
	granted   int    // the window with which the peer thinks its streams begin
	initial   int    // the window with which streams that we send on begin
	flood     flood
	recent    recents
	err       error // why streams fail: a ConnError; nil while the connection is open
	draining  bool  // no new streams
	closing   bool  // half-close when out is sent
	calls     []func()

	halfClosed, closed bool
	quiet              sync.Cond // signalled when writing ends, while closing or closed
	pingSent           time.Time // of the KeepAlive PING that waits for its answer
	keepAlive          *time.Timer
	output
}

func (c *conn) init(nc net.Conn, cfg Config, r role) {
	c.nc, c.cfg, c.role = nc, cfg, r
	c.rd.Src, c.rd.Idle = nc, c.beforeRead
	c.blk = head.NewDecoder(head.Limits{Bytes: cfg.Limits.HeaderBytes, Fields: cfg.Limits.HeaderFields, String: cfg.Limits.BlockBytes})
	c.streams = make(map[uint32]*stream)
	c.in = inflow{left: c.cfg.ConnWindow, size: c.cfg.ConnWindow}
	c.granted = max(frame.DefaultWindow, c.cfg.StreamWindow)
	c.initial, c.sendWin = frame.DefaultWindow, frame.DefaultWindow
	c.tableSize = head.DefaultTable
	c.quiet.L = &c.mu
	c.touched = time.Now()
}

// withDefaults fills in what is zero and what RFC 9113 does not allow.
func (cfg Config) withDefaults(d Config) Config {
	if cfg.StreamWindow <= 0 {
		cfg.StreamWindow = d.StreamWindow
	}
	cfg.StreamWindow = min(cfg.StreamWindow, frame.LargestWindow)
	cfg.MaxStreamWindow = min(max(cfg.MaxStreamWindow, cfg.StreamWindow), frame.LargestWindow)
	if cfg.ConnWindow <= 0 {
		cfg.ConnWindow = d.ConnWindow
	}
	cfg.ConnWindow = min(max(cfg.ConnWindow, frame.DefaultWindow), frame.LargestWindow) // it cannot be made smaller
	if cfg.Linger <= 0 {
		cfg.Linger = d.Linger
	}
	if cfg.KeepAliveTimeout <= 0 {
		cfg.KeepAliveTimeout = d.KeepAliveTimeout
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = d.Limits
	}
	l := &cfg.Limits
	l.BlockBytes = max(l.BlockBytes, 2*l.HeaderBytes) // or a list that is too large could not be answered
	l.BlockFrames = max(l.BlockFrames, 4*l.BlockBytes/frame.MaxSize)
	if cfg.Counters == nil {
		cfg.Counters = new(Counters)
	}
	return cfg
}

// greetLocked puts our settings into out.
func (c *conn) greetLocked(settings []byte) {
	b := frame.AppendHead(c.outLocked(), len(settings), frame.Settings, 0, 0)
	b = append(b, settings...)
	if inc := c.cfg.ConnWindow - frame.DefaultWindow; inc > 0 {
		b = frame.AppendWindowUpdate(b, 0, inc)
	}
	c.putLocked(b)
}

// beginKeepAlive is called before the first read.
func (c *conn) beginKeepAlive() {
	if c.cfg.KeepAlive <= 0 {
		return
	}
	c.lastRead.Store(time.Now().UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepAlive = time.AfterFunc(c.cfg.KeepAlive, c.checkAlive)
}

// unlock releases mu and then does what must not be done under it.
func (c *conn) unlock() {
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// beforeRead sends what the reader owes before it waits for more.
func (c *conn) beforeRead() {
	if c.cfg.KeepAlive > 0 {
		c.lastRead.Store(time.Now().UnixNano())
	}
	if !c.debt {
		return
	}
	c.debt = false
	c.mu.Lock()
	c.kickLocked()
	c.mu.Unlock()
}

// failStreamLocked ends s with err, unless it has ended. It sends nothing.
func (c *conn) failStreamLocked(s *stream, err error) {
	if s.err == nil {
		s.err = err
	}
	if s.onReset != nil {
		c.calls = append(c.calls, s.onReset)
		s.onReset = nil
	}
	c.removeLocked(s)
	s.rcond.Broadcast()
	s.wcond.Broadcast()
}

// removeLocked takes s out of the table: both sides have ended it, or one of
// them has reset it. What it has received may still be read.
func (c *conn) removeLocked(s *stream) {
	if s.gone {
		return
	}
	s.gone = true
	c.leaveRingLocked(s)
	if s.id != 0 {
		delete(c.streams, s.id)
	}
	if c.tail == s {
		c.tail = nil
	}
	c.role.removedLocked(s)
}

// resetLocked ends s with err and tells the peer.
func (c *conn) resetLocked(s *stream, err StreamError) {
	if !s.gone && s.id != 0 && c.err == nil {
		c.recent.endByUs(s.id)
		c.putLocked(frame.AppendReset(c.outLocked(), s.id, uint32(err.Code)))
		c.cfg.Counters.ResetsSent.Add(1)
	}
	c.failStreamLocked(s, err)
}

// lostLocked ends the connection for its streams and those to come. The socket
// is closed at once if the fault is not ours to explain.
func (c *conn) lostLocked(err ConnError) {
	if c.err == nil {
		err.LastStream = max(err.LastStream, c.recent.highest)
		if err.Limit != "" {
			c.cfg.Counters.Floods.Add(1)
		}
		c.err = err
		for _, s := range c.streams {
			c.failStreamLocked(s, StreamError{
				Stream: s.id, Code: err.Code, Remote: err.Remote, Cause: err,
				Unprocessed: s.id > c.handed,
			})
		}
		for _, s := range c.wantRoom {
			s.wcond.Signal()
		}
		c.wantRoom = nil
	}
	if err.Remote {
		c.closeSocketLocked()
	}
}

func (c *conn) closeSocketLocked() {
	if c.closed {
		return
	}
	c.closed = true
	if c.keepAlive != nil {
		c.keepAlive.Stop()
	}
	_ = c.nc.Close() // the reader finds out
	c.quiet.Broadcast()
}

// closeNow is Close of both ends.
func (c *conn) closeNow() {
	c.mu.Lock()
	c.lostLocked(ConnError{Code: CodeCancel, Reason: "closed by its owner"})
	c.closeSocketLocked()
	c.unlock()
}

// closeLocked ends a connection that has no streams left, when out is sent.
func (c *conn) closeLocked() {
	c.closing = true
	c.kickLocked()
}

// halfCloseLocked tells the peer that nothing more will come, and gives it
// Linger to hang up: closing at once could destroy what is on its way to it.
func (c *conn) halfCloseLocked() {
	c.halfClosed = true
	now := time.Now()
	_ = c.nc.SetDeadline(now.Add(c.cfg.Linger))
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok {
		c.mu.Unlock()
		_ = cw.CloseWrite() // if it fails the socket is gone already
		c.mu.Lock()
	}
}

// finish ends the connection after the reader has met err, and returns what
// Serve and Err report.
func (c *conn) finish(err error) error {
	var ours ConnError
	isOurs := errors.As(err, &ours)
	c.mu.Lock()
	c.debt = false
	already := c.err
	clean := already == nil && !isOurs && (c.closing || len(c.streams) == 0)
	switch {
	case isOurs && !ours.Remote:
		c.lostLocked(ours)
		c.putLocked(frame.AppendGoAway(c.outLocked(), c.recent.highest, uint32(ours.Code), ours.Reason))
		c.sayLastWordsLocked()
	default:
		c.lostLocked(ConnError{Code: CodeNo, Remote: true, Reason: "the connection ended", Cause: err})
	}
	failed := c.err
	c.closeSocketLocked()
	c.unlock()
	c.rd.Release()
	switch {
	case clean:
		return nil
	case already != nil:
		return already
	}
	return failed
}

// sayLastWordsLocked sends out and waits, for Linger, until the peer hangs up.
func (c *conn) sayLastWordsLocked() {
	if c.closed {
		return
	}
	c.closing = true
	_ = c.nc.SetDeadline(time.Now().Add(c.cfg.Linger))
	for !c.halfClosed && !c.closed {
		c.kickLocked()
		c.quiet.Wait()
	}
	c.unlock()
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
	c.mu.Lock()
}

// lingerBytes is how much a closing connection still reads, so that the kernel
// does not reset it while our GOAWAY is on its way.
const lingerBytes = 1 << 20

// checkAlive sends PINGs into silence.
func (c *conn) checkAlive() {
	c.mu.Lock()
	defer c.unlock()
	if c.err != nil || c.closing || c.closed {
		return
	}
	now := time.Now()
	silent := now.Sub(time.Unix(0, c.lastRead.Load()))
	switch {
	case !c.pingSent.IsZero() && now.Sub(c.pingSent) >= c.cfg.KeepAliveTimeout:
		c.cfg.Counters.KeepAliveLost.Add(1)
		c.lostLocked(ConnError{Code: CodeNo, Remote: true, Reason: "a keep-alive PING was not answered"})
		return
	case !c.pingSent.IsZero():
		c.keepAlive.Reset(c.cfg.KeepAliveTimeout - now.Sub(c.pingSent))
	case silent >= c.cfg.KeepAlive:
		c.pingSent = now
		c.putLocked(frame.AppendPing(c.outLocked(), false, pingAlive))
		c.kickLocked()
		c.keepAlive.Reset(c.cfg.KeepAliveTimeout)
	default:
		c.keepAlive.Reset(c.cfg.KeepAlive - silent)
	}
}

// What our PINGs carry.
var (
	pingAlive = [frame.PingLen]byte{'a', 'l', 'i', 'v', 'e'}
	pingDrain = [frame.PingLen]byte{'d', 'r', 'a', 'i', 'n'}
)

// recents remembers streams that have ended: the peer may not know yet.
type recents struct {
	highest uint32 // the highest stream that the peer has opened
	fully   [16]uint32
	next    int
	reset   []uint32 // by us, each at its number; nil until there is one
}

const rememberResets = 1024

// endFully notes that both sides have said END_STREAM.
func (r *recents) endFully(id uint32) {
	r.fully[r.next] = id
	r.next = (r.next + 1) % len(r.fully)
}

// endByUs notes a reset of ours: what still comes is to be ignored.
func (r *recents) endByUs(id uint32) {
	if r.reset == nil {
		r.reset = make([]uint32, rememberResets)
	}
	r.reset[id/2%rememberResets] = id
}

func (r *recents) endedFully(id uint32) bool { return slices.Contains(r.fully[:], id) }

func (r *recents) endedByUs(id uint32) bool {
	return r.reset != nil && r.reset[id/2%rememberResets] == id
}
