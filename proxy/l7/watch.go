// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/clock"
	"github.com/meltemi/meltemi/proxy/l7/hangup"
	"github.com/meltemi/meltemi/proxy/l7/upload"
)

// A sweeper looks at all connections from outside, every so often. What it
// finds out would otherwise cost each exchange a timer or a goroutine: idle
// connections, idle streams, clients that have gone, or do not send or read,
// while their exchange waits, draining. It is late by one or two rounds, so short
// timeouts are not its own.
type sweeper struct {
	every time.Duration
	tick  func(time.Time)
	stop  chan struct{}
	done  chan struct{}

	shards [16]sweepShard // so that accepting connections does not meet at one lock
}

type sweepShard struct {
	mu    sync.Mutex
	conns map[*connection]struct{}
}

func newSweeper(every time.Duration, tick func(time.Time)) *sweeper {
	if every <= 0 {
		every = Defaults().Sweep
	}
	w := &sweeper{every: every, tick: tick, stop: make(chan struct{}), done: make(chan struct{})}
	for i := range w.shards {
		w.shards[i].conns = map[*connection]struct{}{}
	}
	go w.run()
	return w
}

func (w *sweeper) shard(c *connection) *sweepShard {
	return &w.shards[c.facts.ID%uint64(len(w.shards))]
}

func (w *sweeper) add(c *connection) {
	s := w.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (w *sweeper) remove(c *connection) {
	s := w.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (w *sweeper) close() {
	close(w.stop)
	<-w.done
}

func (w *sweeper) run() {
	defer close(w.done)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	var batch []*connection
	for {
		select {
		case <-w.stop:
			return
		case now := <-tick.C:
			w.tick(now)
			for i := range w.shards {
				s := &w.shards[i]
				s.mu.Lock()
				for c := range s.conns {
					batch = append(batch, c)
				}
				s.mu.Unlock()
				for _, c := range batch {
					c.look(now)
				}
				clear(batch)
				batch = batch[:0]
			}
		}
	}
}

// A connection is what the exchanges of a client's connection share.
type connection struct {
	server *Server
	net    net.Conn
	facts  *filter.Conn
	now    func() *config.HTTP
	fixed  *config.RouteRef // that of ServeConn; may be nil
	seat   atomic.Pointer[seat]
	drain  <-chan struct{}

	mu     sync.Mutex
	h2     *http2.Server
	first  *exchange // those under way
	turns  uint64    // exchanges begun and ended: who looks twice sees whether anything happened
	served uint32    // exchanges begun
	hungUp bool      // no other one begins

	// The sweeper's own.
	seen     uint64
	seenAt   time.Time
	drained  bool
	deadline time.Time // of the connection (max_connection_duration)
}

func newConnection(s *Server, st *site, conn net.Conn, facts *filter.Conn, now func() *config.HTTP, routes *config.RouteRef, drain <-chan struct{}) *connection {
	c := &connection{server: s, net: conn, facts: facts, now: now, fixed: routes, drain: drain, seenAt: time.Now()}
	c.seat.Store(c.newSeat(st))
	if d := st.http.MaxDuration; d > 0 {
		c.deadline = c.seenAt.Add(d)
	}
	return c
}

// draining says whether the connection is to end.
func (c *connection) draining() bool {
	if c.drain == nil {
		return false
	}
	select {
	case <-c.drain:
		return true
	default:
		return false
	}
}

// begin notes that x is under way, and reports false if it came too late; end, that it is over.
func (c *connection) begin(x *exchange) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hungUp {
		return false
	}
	c.turns++
	c.served++
	x.nextOfConn, x.prevOfConn = c.first, nil
	if c.first != nil {
		c.first.prevOfConn = x
	}
	c.first = x
	return true
}

func (c *connection) end(x *exchange) {
	c.mu.Lock()
	c.turns++
	if x.prevOfConn != nil {
		x.prevOfConn.nextOfConn = x.nextOfConn
	} else {
		c.first = x.nextOfConn
	}
	if x.nextOfConn != nil {
		x.nextOfConn.prevOfConn = x.prevOfConn
	}
	x.nextOfConn, x.prevOfConn = nil, nil
	c.mu.Unlock()
}

// usedUp says whether the connection has served as many exchanges as it may.
func (c *connection) usedUp() bool {
	limit := c.http().MaxRequests
	if limit == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served >= limit
}

// streamIdle is why an exchange ends on which nothing moves.
var streamIdle = &fault.Fault{Side: fault.Mesh, Kind: fault.IdleTimeout, Details: "stream_idle_timeout", Hint: "nothing moved either way for the stream idle timeout"}

// look does what time asks for.
func (c *connection) look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turns != c.seen {
		c.seen, c.seenAt = c.turns, now
	}
	still := now.Sub(c.seenAt)
	h := c.http()
	if idle := h.IdleTimeout; c.first == nil && idle > 0 && still >= idle {
		c.hangUpLocked()
		return
	}
	over := !c.deadline.IsZero() && !now.Before(c.deadline) || c.draining() || h.MaxRequests > 0 && c.served >= h.MaxRequests
	if over && !c.drained && c.h2 != nil {
		c.drained = true
		c.h2.Drain()
	}
	if !c.deadline.IsZero() && !now.Before(c.deadline) && c.first == nil && c.h2 == nil {
		c.hangUpLocked()
		return
	}
	if c.first == nil {
		return
	}
	if c.h2 == nil && c.first.head.Load() == headComing {
		c.boundHeadLocked(now)
		return
	}
	if c.h2 == nil && still >= c.server.sweeper.every && !c.first.isTunnel.Load() && hangup.Seen(c.net) {
		c.first.Cancel(upload.ClientGone)
		return
	}
	for x := c.first; x != nil; x = x.nextOfConn {
		x.look(now)
	}
}

// Where an HTTP/1 request's head is.
const (
	headDone   = iota
	headComing // being read
	headLate   // the sweeper has ended the reading
)

// longestHead is how long a head may take that no setting bounds: half of one
// must not hold a connection for ever. It is what Envoy advises for edges.
const longestHead = time.Minute

// boundHeadLocked ends the reading of a head that takes too long. Each request's
// own deadline would do the same for the price of a timer per request.
func (c *connection) boundHeadLocked(now time.Time) {
	h, limit := c.http(), longestHead
	for _, d := range []time.Duration{h.StreamIdleTimeout, h.IdleTimeout} {
		if d > 0 {
			limit = min(limit, d)
		}
	}
	late := now.Sub(c.first.Start) >= limit || !c.deadline.IsZero() && !now.Before(c.deadline)
	if late && c.first.head.CompareAndSwap(headComing, headLate) {
		_ = c.net.SetReadDeadline(now)
	}
}

// look ends x if nothing has moved for too long, or if it outlasts its clocks.
func (x *exchange) look(now time.Time) {
	limit := time.Duration(x.idleLimit.Load())
	if p := x.progress.Load(); p != x.seen || x.seenAt.IsZero() {
		x.seen, x.seenAt = p, now
	}
	if limit > 0 && now.Sub(x.seenAt) >= limit {
		x.Cancel(streamIdle)
	}
	if f := x.overdue(now); f != nil {
		x.Cancel(f)
	}
}

// overdue returns the fault of a clock that ran out a round ago, or nil. Who
// waits for the endpoint has ended by itself then; this is for who waits for the
// client, to send or to read. A tunnel has no clocks.
func (x *exchange) overdue(now time.Time) *fault.Fault {
	lasts, total := time.Duration(x.lastsUntil.Load()), time.Duration(x.totalUntil.Load())
	if lasts <= 0 && total <= 0 || x.isTunnel.Load() {
		return nil
	}
	switch since := now.Sub(x.Start) - x.conn.server.sweeper.every; {
	case lasts > 0 && since >= lasts:
		return clock.DurationOver
	case total > 0 && since >= total:
		return clock.TotalOver
	}
	return nil
}

// hangUpLocked ends a connection that nothing is under way on. Closing is left to
// the goroutine that waits for a request: TLS takes its leave first, and a client
// that reads nothing would make all other connections wait for that.
func (c *connection) hangUpLocked() {
	if c.h2 != nil {
		if !c.drained {
			c.drained = true
			c.h2.Drain()
		}
		return
	}
	c.hungUp = true
	_ = c.net.SetReadDeadline(past)
}

// expiredConn says whether max_connection_duration is over.
func (c *connection) expiredConn(now time.Time) bool {
	return !c.deadline.IsZero() && !now.Before(c.deadline)
}
