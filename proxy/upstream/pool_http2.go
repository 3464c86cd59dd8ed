// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A muxed is an HTTP/2 connection: it serves many exchanges at once.
type muxed struct {
	conn   *http2.ClientConn
	part   *part
	host   *Host
	limits *limits
	stats  *Stats
	local  netip.AddrPort
	tls    *tls.ConnectionState
	born   time.Time

	// Guarded by the pool's lock.
	served        uint32
	forgotten     bool  // counted out, though it has not ended yet
	wasIn, wasOut int64 // of conn.Traffic, what has been counted
}

// maxConcurrentStreams is Envoy's default.
const maxConcurrentStreams = 1024

// maxJoined is how many wait for one flight: RFC 9113 section 6.5.2 has every
// server take as many streams.
const maxJoined = 100

func (s *Spec) maxStreams() int {
	if s.MaxConcurrentStreams == 0 {
		return maxConcurrentStreams
	}
	return int(s.MaxConcurrentStreams)
}

// openMuxed leases a stream of an HTTP/2 connection. It returns nothing, and no
// fault, for an upgrade that the server does not take as extended CONNECT: that
// one goes over HTTP/1.1.
func (p *pool) openMuxed(c *Cluster, r *Request) (*Lease, *fault.Fault) {
	p.mu.Lock()
	p.spec = c.spec
	l, retired := p.streamLocked(c, p.partLocked(message.HTTP2, r.SNI))
	p.mu.Unlock()
	retired.drain()
	if l == nil {
		if !c.admitPending() {
			return nil, c.overflow
		}
		c.stats.RequestPending.Add(1)
		c.stats.RequestPendingTotal.Add(1)
		var f *fault.Fault
		l, f = p.freshStream(c, r)
		c.stats.RequestPending.Add(-1)
		c.leavePending()
		if f != nil {
			return nil, f
		}
	}
	if r.Upgrade && !l.muxed.takesUpgrade(c, r) {
		p.returnMuxed(l)
		return nil, r.cancelled()
	}
	return l, nil
}

// streamLocked leases a stream of one of q's connections, filling the first
// before it uses the next. The connection that it returns is used up by this
// stream and must be drained.
func (p *pool) streamLocked(c *Cluster, q *part) (l *Lease, retired *muxed) {
	for _, m := range q.shared {
		if l, usedUp := m.leaseLocked(c); l != nil {
			if usedUp {
				q.shared = slices.DeleteFunc(q.shared, func(o *muxed) bool { return o == m })
				retired = m
			}
			return l, retired
		}
	}
	return nil, nil
}

// leaseLocked leases a stream of m, or returns nil if m has none to give.
func (m *muxed) leaseLocked(c *Cluster) (l *Lease, usedUp bool) {
	s, err := m.conn.Open()
	if err != nil {
		return nil, false // full, or ending: then follow takes it out
	}
	l, _ = m.host.pool.leases.Get().(*Lease)
	if l == nil {
		l = new(Lease)
	}
	*l = Lease{
		Stream: s, host: m.host, cluster: c, version: message.HTTP2,
		tls: m.tls, local: m.local, reused: m.served > 0, muxed: m,
	}
	m.served++
	return l, c.spec.MaxRequestsPerConn > 0 && m.served >= c.spec.MaxRequestsPerConn
}

func (m *muxed) drain() {
	if m != nil {
		m.conn.Drain()
	}
}

// takesUpgrade waits for the server's settings and says whether they allow
// extended CONNECT (RFC 8441).
func (m *muxed) takesUpgrade(c *Cluster, r *Request) bool {
	timer := time.NewTimer(time.Until(r.patience(connectDeadline(c.spec, r, time.Now()))))
	defer timer.Stop()
	select {
	case <-m.conn.Ready():
	case <-r.done():
	case <-timer.C:
	}
	return m.conn.ExtendedConnect()
}

// freshStream leases a stream of a new connection: the one that somebody else
// is opening, or one of its own, or whatever becomes free first.
func (p *pool) freshStream(c *Cluster, r *Request) (*Lease, *fault.Fault) {
	for {
		p.mu.Lock()
		q := p.partLocked(message.HTTP2, r.SNI)
		if l, retired := p.streamLocked(c, q); l != nil {
			p.mu.Unlock()
			retired.drain()
			return l, nil
		}
		if fl := q.flight; fl != nil && fl.joined < min(maxJoined, c.spec.maxStreams())-1 {
			fl.joined++
			p.mu.Unlock()
			if f := p.join(c, r, q, fl); f != nil {
				return nil, f
			}
			continue
		}
		if fl := p.launchLocked(c, r, q); fl != nil {
			p.mu.Unlock()
			if f := p.board(c, r, q, fl); f != nil {
				return nil, f
			}
			return fl.first(c)
		}
		if makeRoom := p.takeOtherLocked(q); makeRoom != nil {
			p.mu.Unlock()
			makeRoom()
			continue
		}
		w := p.enqueueLocked(q)
		p.mu.Unlock()
		if _, f := p.await(c, r, w); f != nil {
			return nil, f
		}
	}
}

// flyMuxed opens the connection of fl and leases its first stream to the owner.
func (p *pool) flyMuxed(ctx context.Context, c *Cluster, own *Request, q *part, fl *flight) {
	conn, f := p.connect(ctx, c, own, message.HTTP2)
	var m *muxed
	if f == nil {
		m, f = p.newMuxed(c, q, conn)
	}
	if f != nil {
		p.blame(ctx, c, fl, f)
	}
	p.mu.Lock()
	if f != nil {
		fl.fault = f
		p.forgetLocked(q, c.limits)
		p.landLocked(q, fl)
		p.mu.Unlock()
		return
	}
	usedUp := false
	if !fl.left {
		fl.muxed = m
		fl.lease, usedUp = m.leaseLocked(c)
	}
	alone := usedUp || q.orphan || p.draining
	if !alone {
		q.shared = append(q.shared, m)
	}
	p.landLocked(q, fl)
	p.mu.Unlock()
	go p.follow(m)
	if alone {
		m.conn.Drain()
	}
	p.changed()
}

// first returns the stream that a flight has brought to its owner.
func (fl *flight) first(c *Cluster) (*Lease, *fault.Fault) {
	if l := fl.lease; l != nil {
		l.cluster = c // it may have been begun for another one
		return l, nil
	}
	m := fl.muxed // ended before it was used
	f := &fault.Fault{
		Side: fault.Upstream, Kind: fault.ConnectionClosed, Err: m.conn.Err(), Object: m.host.pool.object(c),
		Hint: "the endpoint closed the connection at once: does it speak HTTP/2?",
	}
	c.judge(m.host, Outcome{Fault: f})
	return nil, f
}

func (p *pool) newMuxed(c *Cluster, q *part, conn net.Conn) (*muxed, *fault.Fault) {
	cfg := http2.ClientDefaults()
	cfg.MaxStreams = c.spec.maxStreams()
	cfg.Changed = p.changed
	cfg.KeepAlive, cfg.KeepAliveTimeout = c.spec.PingAfter, c.spec.PingTimeout
	m := &muxed{part: q, host: p.host, limits: c.limits, stats: c.stats, born: c.now()}
	m.local, m.tls = stateOf(conn)
	var err error
	if m.conn, err = http2.NewClientConn(conn, cfg); err != nil {
		_ = conn.Close()
		p.host.countHangup(c.stats)
		return nil, &fault.Fault{Side: fault.Mesh, Kind: fault.Internal, Object: "cluster " + c.spec.Name, Err: err}
	}
	c.stats.ConnHTTP2Total.Add(1)
	return m, nil
}

// follow takes m out of the pool when its connection has ended.
func (p *pool) follow(m *muxed) {
	<-m.conn.Done()
	p.mu.Lock()
	m.countLocked()
	m.part.shared = slices.DeleteFunc(m.part.shared, func(o *muxed) bool { return o == m })
	forgotten := m.forgotten
	p.mu.Unlock()
	var ended http2.ConnError
	if errors.As(m.conn.Err(), &ended) && ended.Remote {
		m.stats.ConnRemoteClosed.Add(1)
	}
	p.host.countHangup(m.stats)
	if !forgotten {
		p.forget(m.part, m.limits)
	}
}

// countLocked counts the bytes since the last time.
func (m *muxed) countLocked() {
	in, out := m.conn.Traffic()
	m.stats.BytesIn.Add(in - m.wasIn)
	m.stats.BytesOut.Add(out - m.wasOut)
	m.wasIn, m.wasOut = in, out
}

// returnMuxed ends a lease: whatever is left of the stream is reset.
func (p *pool) returnMuxed(l *Lease) {
	l.Abort(uint32(http2.CodeCancel))
	m := l.muxed
	*l = Lease{}
	p.leases.Put(l)
	p.mu.Lock()
	if len(p.waiting) > 0 {
		p.streamEndedLocked(m)
	}
	p.mu.Unlock()
}

// streamEndedLocked lets one who waits look again: for a stream of m or, where m
// has become idle, for its place.
func (p *pool) streamEndedLocked(m *muxed) {
	idle := m.conn.ActiveStreams() == 0
	p.wakeFirstLocked(nil, func(w *waiter) bool { return idle || w.part == m.part })
}

// sweepMuxedLocked takes those out of q that are to be drained.
func (p *pool) sweepMuxedLocked(q *part, now time.Time, draining []*muxed) []*muxed {
	q.shared = slices.DeleteFunc(q.shared, func(m *muxed) bool {
		m.countLocked()
		if m.conn.Drained() {
			return true // GOAWAY: streams finish, then follow counts it out
		}
		if p.spec.outlived(m.born, now) {
			m.stats.ConnAgeRetired.Add(1)
			draining = append(draining, m)
			return true
		}
		limit := p.spec.IdleTimeout
		if limit <= 0 || m.conn.ActiveStreams() > 0 || now.Sub(m.conn.LastActive()) < limit {
			return false
		}
		m.stats.ConnIdleRetired.Add(1)
		draining = append(draining, m)
		return true
	})
	return draining
}
