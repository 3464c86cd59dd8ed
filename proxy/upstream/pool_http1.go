// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net"
	"time"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A single is an HTTP/1 connection: it serves one exchange at a time.
type single struct {
	conn   *http1.ClientConn
	part   *part
	host   *Host
	limits *limits
	stats  *Stats
	born   time.Time
	served uint32
	lease  Lease // of the exchange in hand
	kept   bool  // its buffers are left to who holds strings of the response

	// While it is idle, guarded by the pool's lock.
	since   time.Time // when it became so
	checked time.Time // when it was last seen alive
}

// openSingle leases an HTTP/1 connection.
func (p *pool) openSingle(c *Cluster, r *Request) (*Lease, *fault.Fault) {
	if one := p.takeIdle(c, r); one != nil {
		return one.lend(c), nil
	}
	if !c.admitPending() {
		return nil, c.overflow
	}
	c.stats.RequestPending.Add(1)
	c.stats.RequestPendingTotal.Add(1)
	one, f := p.freshSingle(c, r)
	c.stats.RequestPending.Add(-1)
	c.leavePending()
	if f != nil {
		return nil, f
	}
	return one.lend(c), nil
}

// takeIdle returns the idle connection that was used last and is alive, or nil.
func (p *pool) takeIdle(c *Cluster, r *Request) *single {
	now := c.now()
	for {
		p.mu.Lock()
		p.spec = c.spec
		q := p.partLocked(message.HTTP11, r.SNI)
		n := len(q.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		one := q.idle[n-1]
		q.idle[n-1] = nil
		q.idle = q.idle[:n-1]
		idled := now.Sub(one.since)
		retire := p.retireLocked(one, now, idled, p.learned.limit(now))
		p.mu.Unlock()
		if !retire {
			if one.conn.Alive() {
				return one
			}
			p.noteClosed(one, now)
		}
		one.close()
	}
}

// retireLocked says whether a connection that idled is to be closed rather than
// used, and counts it. learned is the longest it should have idled, 0 if unknown.
func (p *pool) retireLocked(one *single, now time.Time, idled, learned time.Duration) bool {
	s := one.stats
	switch limit := p.spec.IdleTimeout; {
	case limit > 0 && idled >= limit:
		s.ConnIdleRetired.Add(1)
	case learned > 0 && idled >= learned:
		s.ConnLearnedRetired.Add(1)
	case p.spec.outlived(one.born, now):
		s.ConnAgeRetired.Add(1)
	default:
		return false
	}
	return true
}

// outlived says whether a connection born then is to take no more requests.
func (s *Spec) outlived(born, now time.Time) bool {
	return s.MaxConnDuration > 0 && now.Sub(born) >= s.MaxConnDuration
}

// noteClosed learns from an idle connection that the server closed.
func (p *pool) noteClosed(one *single, now time.Time) {
	one.stats.ConnRemoteClosed.Add(1)
	p.mu.Lock()
	p.learned.closed(one.checked.Sub(one.since), now.Sub(one.since), now)
	p.mu.Unlock()
}

// freshSingle opens a connection, or waits until it may, or until another
// exchange leaves one.
func (p *pool) freshSingle(c *Cluster, r *Request) (*single, *fault.Fault) {
	for {
		p.mu.Lock()
		q := p.partLocked(message.HTTP11, r.SNI)
		if len(q.idle) > 0 { // given back in the meantime
			p.mu.Unlock()
			if one := p.takeIdle(c, r); one != nil {
				return one, nil
			}
			continue
		}
		if fl := p.launchLocked(c, r, q); fl != nil {
			p.mu.Unlock()
			if f := p.board(c, r, q, fl); f != nil {
				return nil, f
			}
			return fl.single, nil
		}
		if makeRoom := p.takeOtherLocked(q); makeRoom != nil {
			p.mu.Unlock()
			makeRoom()
			continue
		}
		w := p.enqueueLocked(q)
		p.mu.Unlock()
		one, f := p.await(c, r, w)
		if one != nil || f != nil {
			return one, f
		}
	}
}

// flySingle opens the connection of fl.
func (p *pool) flySingle(ctx context.Context, c *Cluster, own *Request, q *part, fl *flight) {
	conn, f := p.connect(ctx, c, own, message.HTTP11)
	if f == nil {
		fl.single = p.newSingle(c, q, conn)
	} else {
		p.blame(ctx, c, fl, f)
	}
	p.mu.Lock()
	if fl.fault = f; f != nil {
		p.forgetLocked(q, c.limits)
	}
	owned := p.landLocked(q, fl)
	p.mu.Unlock()
	if f == nil && !owned {
		p.handOn(fl.single, c.now())
	}
}

func (p *pool) newSingle(c *Cluster, q *part, conn net.Conn) *single {
	c.stats.ConnHTTP1Total.Add(1)
	one := &single{
		conn: http1.NewClientConn(conn, http1.ClientConfig{}),
		part: q, host: p.host, limits: c.limits, stats: c.stats, born: c.now(),
	}
	one.lease = Lease{Stream: one.conn, host: p.host, version: message.HTTP11, single: one}
	one.lease.local, one.lease.tls = stateOf(conn)
	return one
}

// lend begins an exchange.
func (one *single) lend(c *Cluster) *Lease {
	one.lease.cluster = c
	one.lease.reused = one.served > 0
	one.served++
	return &one.lease
}

// returnSingle ends an exchange: the connection goes to who waits for it, or
// idles, or closes.
func (p *pool) returnSingle(one *single, wish bool) {
	spec := one.lease.cluster.spec
	in, out := one.conn.Traffic()
	one.stats.BytesIn.Add(in)
	one.stats.BytesOut.Add(out)
	now := one.lease.cluster.now()
	usedUp := spec.MaxRequestsPerConn > 0 && one.served >= spec.MaxRequestsPerConn
	if spec.outlived(one.born, now) {
		one.stats.ConnAgeRetired.Add(1)
		usedUp = true
	}
	if !wish || usedUp || !one.conn.Reusable() {
		one.close()
		return
	}
	one.conn.Idle()
	p.handOn(one, now)
}

// handOn gives a connection on which nothing is under way to who waits for it,
// or lets it idle, or closes it.
func (p *pool) handOn(one *single, now time.Time) {
	promised, _ := one.conn.KeepAlive()
	p.mu.Lock()
	p.learned.promised(promised)
	switch {
	case len(p.waiting) > 0 && p.wakeLocked(one):
	case len(p.waiting) > 0, p.draining, one.part.orphan:
		// Who waits for a connection of another kind gets this one's place.
		p.mu.Unlock()
		one.close()
		return
	default:
		one.since, one.checked = now, now
		one.part.idle = append(one.part.idle, one)
	}
	p.mu.Unlock()
}

// close ends the connection. It is in nobody's hands but the caller's, who may be
// the one that looks after all hosts: TLS takes its leave meanwhile, for which the
// peer has to read.
func (one *single) close() {
	if one.lease.tls != nil {
		go func() { _ = one.conn.Close() }()
	} else {
		_ = one.conn.Close() // nothing is to be saved
	}
	if !one.kept {
		one.conn.Release()
	}
	one.host.countHangup(one.stats)
	one.host.pool.forget(one.part, one.limits)
}

// What a burst needed is not kept for as long as what is used now and then: of idle
// connections those beyond spare are closed that nobody needed for surplusIdle,
// unless somebody has said how long they are to be kept.
const (
	spare       = 4
	surplusIdle = time.Minute
)

// sweepSinglesLocked takes those out of q that are to be closed.
func (p *pool) sweepSinglesLocked(q *part, now time.Time, learned time.Duration, closing []*single) []*single {
	kept := q.idle[:0]
	for i, one := range q.idle {
		idled := now.Sub(one.since)
		switch {
		case p.retireLocked(one, now, idled, learned):
			closing = append(closing, one)
		case len(q.idle)-i > spare && idled >= surplusIdle && !p.spec.KeepIdle:
			one.stats.ConnIdleRetired.Add(1)
			closing = append(closing, one)
		case now.Sub(one.checked) >= sweepEvery/2 && !one.conn.Alive():
			one.stats.ConnRemoteClosed.Add(1)
			p.learned.closed(one.checked.Sub(one.since), idled, now)
			closing = append(closing, one)
		default:
			one.checked = now
			kept = append(kept, one)
		}
	}
	clear(q.idle[len(kept):])
	q.idle = kept
	return closing
}
