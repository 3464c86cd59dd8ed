// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"math"
	"net"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
	"github.com/meltemi/meltemi/http2/internal/head"
	"github.com/meltemi/meltemi/message"
)

// A Server answers the requests of one connection.
type Server struct {
	conn
	cfg    ServerConfig
	handle func(*ServerStream)

	// Guarded by conn.mu. conn.active is the number of handles that run.
	workers int
	parked  []chan *ServerStream // workers that wait for a stream
	lastly  bool                 // the final GOAWAY is in out
	drain   *time.Timer
}

// maxParked is how many goroutines a quiet connection keeps for its next
// streams, because their stacks have grown to what handle needs. A busy one keeps
// as many as it has streams.
const maxParked = 8

var _ role = (*Server)(nil)

// NewServer makes a server for nc, which it owns from now on. handle is called
// for each request, in a goroutine that is its own until it returns; what it has
// not finished by then is reset. It must not use the stream afterwards.
func NewServer(nc net.Conn, cfg ServerConfig, handle func(*ServerStream)) *Server {
	d := ServerDefaults()
	cfg.Config = cfg.Config.withDefaults(d.Config)
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = d.MaxStreams
	}
	if cfg.PrefaceTimeout <= 0 {
		cfg.PrefaceTimeout = d.PrefaceTimeout
	}
	if cfg.DrainPing <= 0 {
		cfg.DrainPing = d.DrainPing
	}
	s := &Server{cfg: cfg, handle: handle}
	s.init(nc, cfg.Config, s)
	s.handed = math.MaxUint32 // Unprocessed is for clients
	s.greetLocked(s.settings())
	return s
}

// Serve reads the connection until it ends and every handle has returned.
// preRead is what the caller has read from it already (while sniffing), or nil.
// It returns nil if the client hung up between requests, or we drained; otherwise
// a ConnError.
func (s *Server) Serve(preRead []byte) error {
	s.rd.Pre = preRead
	s.beginKeepAlive()
	s.debt = true
	err := s.readPreface()
	if err == nil {
		err = s.readFrames()
	}
	err = s.finish(err)
	s.awaitWorkers()
	return err
}

func (s *Server) settings() []byte {
	b := frame.AppendSetting(nil, frame.SettingMaxStreams, s.cfg.MaxStreams)
	b = frame.AppendSetting(b, frame.SettingInitialWindow, s.cfg.StreamWindow)
	b = frame.AppendSetting(b, frame.SettingMaxHeaderListSize, s.cfg.Limits.HeaderBytes)
	if s.cfg.ExtendedConnect {
		b = frame.AppendSetting(b, frame.SettingEnableConnect, 1)
	}
	return b
}

// readPreface checks the client's first bytes as they come: who speaks HTTP/1
// may send fewer than we would wait for.
func (s *Server) readPreface() error {
	_ = s.nc.SetReadDeadline(time.Now().Add(s.cfg.PrefaceTimeout))
	for n := 1; n <= len(frame.Preface); n++ {
		b, err := s.rd.Peek(n)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return broken(CodeProtocol, "the client has sent no HTTP/2 preface in time")
		}
		if err != nil {
			return err
		}
		if b[n-1] != frame.Preface[n-1] {
			return broken(CodeProtocol, "the client does not speak HTTP/2: its preface is wrong")
		}
	}
	s.rd.Discard(len(frame.Preface))
	s.mu.Lock()
	if !s.closing && !s.closed {
		_ = s.nc.SetReadDeadline(time.Time{})
	}
	s.mu.Unlock()
	return nil
}

// awaitWorkers waits until every handle has returned.
func (s *Server) awaitWorkers() {
	s.mu.Lock()
	for _, ch := range s.parked {
		close(ch)
	}
	s.parked = nil
	for s.workers > 0 {
		s.quiet.Wait()
	}
	if s.drain != nil {
		s.drain.Stop()
	}
	s.mu.Unlock()
}

// Drain tells the client to open no more streams (GOAWAY), lets those in work
// finish, and then closes the connection. It does not wait.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.err != nil {
		return
	}
	s.draining = true
	// Streams may be on their way: the first GOAWAY forbids none of them. The
	// answer to the PING tells that the client has seen it (RFC 9113 section 6.8).
	b := frame.AppendGoAway(s.outLocked(), frame.LargestStream, uint32(CodeNo), "")
	s.putLocked(frame.AppendPing(b, false, pingDrain))
	s.kickLocked()
	s.drain = time.AfterFunc(s.cfg.DrainPing, func() { s.pinged(pingDrain) })
}

func (s *Server) pinged(data [frame.PingLen]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pingedLocked(data)
}

func (s *Server) pingedLocked(data [frame.PingLen]byte) {
	if data != pingDrain || !s.draining || s.lastly || s.err != nil {
		return
	}
	s.lastly = true
	s.putLocked(frame.AppendGoAway(s.outLocked(), s.recent.highest, uint32(CodeNo), ""))
	s.kickLocked()
	s.closeIfDrainedLocked()
}

func (s *Server) closeIfDrainedLocked() {
	if s.lastly && s.active == 0 && !s.closing && s.err == nil {
		s.closeLocked()
	}
}

// Close closes the connection and fails its streams.
func (s *Server) Close() error {
	s.closeNow()
	return nil
}

// ActiveStreams returns how many requests are in work.
func (s *Server) ActiveStreams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// LastActive returns when a stream last began or ended, or else when the
// connection was made.
func (s *Server) LastActive() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.touched
}

// head begins a stream, or ends one with trailers.
func (s *Server) head(id uint32, end bool) error {
	s.mu.Lock()
	defer s.unlock()
	if st := s.streams[id]; st != nil {
		return s.trailerLocked(st, end)
	}
	if id <= s.recent.highest {
		switch {
		case s.recent.endedByUs(id):
			return s.strayLocked(id, "HEADERS")
		case s.recent.endedFully(id):
			return broken(CodeStreamClosed, "HEADERS on a stream that has ended")
		}
		return broken(CodeProtocol, "HEADERS on a stream that was passed over or has ended")
	}
	if id%2 == 0 {
		return broken(CodeProtocol, "a client must not open streams with even numbers")
	}
	if s.lastly {
		return nil // GOAWAY has told that we ignore it
	}
	s.recent.highest = id
	s.flood.opened++
	s.flood.work++
	switch {
	case s.blk.TooLarge() && !s.blk.Malformed():
		return s.tooLargeLocked(id, end)
	case s.active >= s.cfg.MaxStreams:
		s.cfg.Counters.StreamsRefused.Add(1)
		return brokenStream(id, CodeRefusedStream, "too many streams at once")
	}
	return s.beginLocked(id, end)
}

func (s *Server) beginLocked(id uint32, end bool) error {
	st := &ServerStream{}
	if reason := s.blk.Request(&st.req, end, s.cfg.ExtendedConnect); reason != "" {
		s.cfg.Counters.Malformed.Add(1)
		return brokenStream(id, CodeProtocol, reason)
	}
	st.list = s.blk.TakeList()
	st.initLocked(&s.conn, id)
	st.recvEnd = end
	if st.req.Method != "CONNECT" {
		st.want = s.blk.Length()
	}
	s.streams[id] = &st.stream
	s.active++
	s.touched = time.Now()
	st.begun = s.touched
	if n := len(s.parked); n > 0 {
		ch := s.parked[n-1]
		s.parked = s.parked[:n-1]
		ch <- st // has room
		return nil
	}
	s.workers++
	go s.work(st)
	return nil
}

func (s *Server) trailerLocked(st *stream, end bool) error {
	switch {
	case st.recvEnd:
		return brokenStream(st.id, CodeStreamClosed, "HEADERS after END_STREAM")
	case !end:
		return brokenStream(st.id, CodeProtocol, "a trailer section without END_STREAM")
	}
	return st.takeTrailerLocked()
}

// tooLargeLocked answers 431 to a request whose fields we have not kept.
func (s *Server) tooLargeLocked(id uint32, end bool) error {
	st := stream{c: &s.conn, id: id, gone: true}
	var h message.Header
	h.Add("content-length", "0")
	at := len(s.outLocked())
	s.putHeadLocked(&st, at, s.encoderLocked().Response(reserveHead(s.out), 431, &h, false), true)
	if !end {
		s.recent.endByUs(id)
		s.putLocked(frame.AppendReset(s.outLocked(), id, uint32(CodeNo)))
	}
	// Nobody is asked to serve it, so that nothing else slows down who goes on.
	if err := s.flood.charge(nuisanceReset, &s.cfg.Limits); err != nil {
		return err
	}
	return s.replyLocked()
}

// work calls handle for st, and for the streams that come to it while it is parked.
func (s *Server) work(st *ServerStream) {
	ch := make(chan *ServerStream, 1)
	for st != nil {
		s.handle(st)
		if !s.done(st, ch) {
			return
		}
		st = <-ch
	}
	s.mu.Lock()
	s.workers--
	s.quiet.Broadcast()
	s.mu.Unlock()
}

// done ends what handle has left open, and says whether its goroutine is parked.
func (s *Server) done(st *ServerStream, ch chan *ServerStream) bool {
	s.mu.Lock()
	defer s.unlock()
	st.onReset = nil
	if !st.gone {
		code, reason := CodeInternal, "the response was not finished"
		if st.sendEnd {
			code, reason = CodeNo, "the rest of the request is not needed"
		}
		s.resetLocked(&st.stream, StreamError{Stream: st.id, Code: code, Reason: reason})
		s.kickLocked()
	}
	st.giveBackLocked()
	s.active--
	s.touched = time.Now()
	s.closeIfDrainedLocked()
	if s.active == 0 {
		for _, ch := range s.parked[min(maxParked, len(s.parked)):] {
			close(ch)
		}
		s.parked = s.parked[:min(maxParked, len(s.parked))]
	}
	if len(s.parked) < max(maxParked, s.active) && !s.closed && s.err == nil {
		s.parked = append(s.parked, ch)
		return true
	}
	s.workers--
	s.quiet.Broadcast()
	return false
}

func (s *Server) openedLocked(id uint32) bool { return id%2 == 1 && id <= s.recent.highest }

func (s *Server) removedLocked(*stream) {}

func (s *Server) settingsLocked() {}

func (s *Server) settingLocked(id frame.Setting, v int) bool {
	return id != frame.SettingEnablePush || v <= 1
}

func (s *Server) goAwayLocked(uint32, ErrCode, string) {} // it will hang up

// A ServerStream is one request being answered.
type ServerStream struct {
	stream
	req  message.Request
	list *message.Header // the storage of req.Header
	kept bool            // and of the trailers: it serves no other stream
}

// Request returns the request's head, valid until handle returns (but see Keep). ContentLength
// is 0 if and only if nothing follows: no body and no trailers.
func (s *ServerStream) Request() *message.Request { return &s.req }

// Keep lets the request's head and trailers outlive handle: whoever calls it does
// not know who holds them still. Their storage serves no other stream.
func (s *ServerStream) Keep() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.kept = true
}

// giveBackLocked ends the life of what was lent to handle.
func (s *ServerStream) giveBackLocked() {
	if s.kept {
		s.trailer = nil
	}
	s.retireLocked()
	if s.kept {
		return
	}
	list := s.list
	*list = s.req.Header // it may have grown
	s.list, s.req = nil, message.Request{}
	head.Release(list)
}

// WriteHead writes a head: informational ones (1xx) any number of times, which
// leave at once, then a final one; with end set nothing follows it.
// 101 in answer to a request with a Protocol is written as 200 (RFC 8441).
func (s *ServerStream) WriteHead(resp *message.Response, end bool) error {
	status := resp.Status
	upgrade := s.req.Protocol != "" && (status == 101 || status/100 == 2)
	if upgrade && status == 101 {
		status = 200
	}
	if status < 100 || status > 999 || status == 101 || status < 200 && end {
		return errMisuse("WriteHead: this status cannot be sent here")
	}
	if err := head.CheckFields(&resp.Header); err != nil {
		return err
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.roomLocked(); err != nil {
		return err
	}
	if s.headSent {
		return errMisuse("WriteHead: the final head was written already")
	}
	at := len(c.outLocked())
	s.headSent = status >= 200
	c.putHeadLocked(&s.stream, at, c.encoderLocked().Response(reserveHead(c.out), status, &resp.Header, upgrade), end)
	if end || status < 200 {
		c.flushLocked()
	}
	return nil
}

// Tunnel turns the stream into raw bytes, after a final head of 2xx to CONNECT.
func (s *ServerStream) Tunnel() Tunnel { return &tunnel{&s.stream} }
