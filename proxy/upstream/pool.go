// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A pool is one host's connections. It outlives the Cluster that opened them
// when a new Spec does not concern them.
//
//	open ─▶ take an idle connection, or a stream of a shared one
//	     └▶ queue (max_pending) ─▶ dial, if max_connections admits it
//	                            └▶ or wait until a connection is given back or ends
//
// Who dials, as who waits, leaves when its caller is gone or its time is over.
type pool struct {
	host *Host

	mu       sync.Mutex
	spec     *Spec // of the Cluster that opened last
	parts    []*part
	total    int // connections that are open or being opened
	draining bool
	waiting  []*waiter
	secure   []clientTLS
	learned  keepAlive

	leases sync.Pool // of HTTP/2
}

// A part is connections that can serve for one another.
type part struct {
	version message.Version
	sni     string
	conns   int       // open or being opened
	idle    []*single // the one used last is last
	shared  []*muxed
	flight  *flight   // of HTTP/2, that others may join
	left    []*flight // whose owners have gone
	orphan  bool      // not in pool.parts: nothing is kept
}

// maxParts bounds the parts of a pool, as the SNI may be the client's. What is
// beyond gets connections of its own.
const maxParts = 256

// A waiter waits for a connection of its part, or for leave to open one.
type waiter struct {
	part  *part
	ready chan *single // a connection, or nil: try again
}

func newPool(h *Host) *pool { return &pool{host: h} }

// open leases a stream.
func (p *pool) open(c *Cluster, r *Request) (l *Lease, f *fault.Fault) {
	if c.spec.speaks(r) == message.HTTP2 {
		l, f = p.openMuxed(c, r)
	}
	if l == nil && f == nil {
		l, f = p.openSingle(c, r)
	}
	if f == nil {
		c.stats.RequestActive.Add(1)
		p.host.stats.Active.Add(1)
		p.host.stats.Total.Add(1)
	}
	return l, f
}

// speaks returns the HTTP version for r.
func (s *Spec) speaks(r *Request) message.Version {
	if s.Protocol == HTTP2 || s.Protocol == SameAsClient && r.Version == message.HTTP2 {
		return message.HTTP2
	}
	return message.HTTP11
}

// alpn returns what a connection for that version offers.
func (t *Transport) alpn(v message.Version) []string {
	switch {
	case v == message.HTTP2 && t.ALPNHTTP2 != nil:
		return t.ALPNHTTP2
	case v != message.HTTP2 && t.ALPNHTTP1 != nil:
		return t.ALPNHTTP1
	}
	return t.ALPN
}

func (p *pool) partLocked(v message.Version, sni string) *part {
	for _, q := range p.parts {
		if q.version == v && q.sni == sni {
			return q
		}
	}
	q := &part{version: v, sni: strings.Clone(sni)} // it may point into a head that was read
	// A PROXY header names one client, so nobody else may use the connection.
	q.orphan = len(p.parts) >= maxParts || p.host.transport.ProxyProtocol != 0
	if !q.orphan {
		p.parts = append(p.parts, q)
	}
	return q
}

// admitLocked says whether q may have one more connection. A pool without any
// may always, so that a limit reached elsewhere starves no host.
func (p *pool) admitLocked(c *Cluster, q *part) bool {
	if !c.admitConn() {
		if p.total > 0 {
			return false
		}
		c.limits.connections.Add(1)
	}
	p.total++
	q.conns++
	return true
}

// forget counts a connection of q out and lets somebody who waits take its place.
func (p *pool) forget(q *part, l *limits) {
	p.mu.Lock()
	p.forgetLocked(q, l)
	p.mu.Unlock()
}

func (p *pool) forgetLocked(q *part, l *limits) {
	l.connections.Add(-1)
	p.total--
	q.conns--
	p.wakeLocked(nil)
}

// wakeLocked gives the first waiter that can use it a connection, or, if one is
// nil, another try. It says whether there was such a waiter.
func (p *pool) wakeLocked(one *single) bool {
	return p.wakeFirstLocked(one, func(w *waiter) bool { return one == nil || w.part == one.part })
}

func (p *pool) wakeFirstLocked(one *single, can func(*waiter) bool) bool {
	i := slices.IndexFunc(p.waiting, can)
	if i < 0 {
		return false
	}
	w := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	w.ready <- one
	return true
}

// takeOtherLocked takes an idle connection that q cannot use, as under a limit it
// would keep q out for ever, and returns what ends it; nil if there is none. Its
// place is free once that has returned.
func (p *pool) takeOtherLocked(q *part) (end func()) {
	for _, o := range p.parts {
		if o == q {
			continue
		}
		if len(o.idle) > 0 {
			one := o.idle[0]
			o.idle = slices.Delete(o.idle, 0, 1)
			return one.close
		}
		for i, m := range o.shared {
			if m.conn.ActiveStreams() == 0 {
				o.shared = slices.Delete(o.shared, i, i+1)
				m.forgotten = true // at once: draining takes its time, and the next try would take another one
				p.forgetLocked(o, m.limits)
				return m.conn.Drain
			}
		}
	}
	return nil
}

// changed lets all that wait look again: a shared connection takes more
// streams, or none any more.
func (p *pool) changed() {
	p.mu.Lock()
	for len(p.waiting) > 0 {
		p.wakeLocked(nil)
	}
	p.mu.Unlock()
}

func (p *pool) enqueueLocked(q *part) *waiter {
	w := &waiter{part: q, ready: make(chan *single, 1)}
	p.waiting = append(p.waiting, w)
	return w
}

// await waits for w's turn, as long as the request is wanted.
func (p *pool) await(c *Cluster, r *Request, w *waiter) (*single, *fault.Fault) {
	timer := time.NewTimer(time.Until(r.patience(time.Now().Add(maxPendingWait))))
	defer timer.Stop()
	select {
	case one := <-w.ready:
		return one, nil
	case <-r.done():
		p.dequeue(c, w)
		return nil, r.cancelled()
	case <-timer.C:
	}
	p.dequeue(c, w)
	return nil, &fault.Fault{
		Side: fault.Mesh, Kind: fault.ConnectTimeout, Object: p.object(c),
		Hint: "all connections that connectionPool.tcp.maxConnections allows stayed busy",
	}
}

// dequeue takes a waiter out that waits no longer. What it got at the same
// moment is the next one's, or nobody would ever be told of it.
func (p *pool) dequeue(c *Cluster, w *waiter) {
	p.mu.Lock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.mu.Unlock()
		return
	}
	one := <-w.ready
	if one == nil {
		p.wakeLocked(nil)
	}
	p.mu.Unlock()
	if one != nil {
		p.handOn(one, c.now())
	}
}

// maxPendingWait bounds the wait of a request that has no deadline.
const maxPendingWait = 5 * time.Minute

// drain ends the pool: idle connections close now, the others when their
// exchanges end. A request that has just picked the host is still served.
func (p *pool) drain() {
	p.mu.Lock()
	p.draining = true
	var idle []*single
	var shared []*muxed
	for _, q := range p.parts {
		idle = append(idle, q.idle...)
		shared = append(shared, q.shared...)
		q.idle, q.shared = nil, nil
		p.abandonLocked(q)
	}
	for len(p.waiting) > 0 {
		p.wakeLocked(nil)
	}
	p.mu.Unlock()
	for _, one := range idle {
		one.close()
	}
	for _, m := range shared {
		m.conn.Drain()
	}
}

// sweep retires idle connections: those past the idle timeout, those the server
// is about to close, those it has closed. It is called about once a second.
func (p *pool) sweep(now time.Time) {
	var closing []*single
	var draining []*muxed
	p.mu.Lock()
	if p.spec != nil {
		limit := p.learned.limit(now)
		for _, q := range p.parts {
			closing = p.sweepSinglesLocked(q, now, limit, closing)
			draining = p.sweepMuxedLocked(q, now, draining)
		}
		p.parts = slices.DeleteFunc(p.parts, func(q *part) bool { return q.conns == 0 })
	}
	p.mu.Unlock()
	for _, one := range closing {
		one.close()
	}
	for _, m := range draining {
		m.conn.Drain()
	}
}

// idle returns how many connections wait for a request.
func (p *pool) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total - p.busyLocked()
}

// active returns how many connections serve one.
func (p *pool) active() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busyLocked()
}

func (p *pool) busyLocked() int {
	busy := p.total
	for _, q := range p.parts {
		busy -= len(q.idle)
		for _, m := range q.shared {
			if m.conn.ActiveStreams() == 0 {
				busy--
			}
		}
	}
	return busy
}
