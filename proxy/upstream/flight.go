// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A flight is a connection that is being opened. It takes the time that the
// cluster gives to connecting, whoever waits for it: what one request gives up is
// of use to the next.
//
//	owned   it was begun for one request, to whom it gives what it brings
//	joined  HTTP/2: others, who look again once it has landed: a burst of first
//	        requests opens one connection, not one each
//	left    its owner has gone. The next request that would open one takes it over:
//	        no more connections are being opened than requests have waited at once.
//	        Once nobody can come any more it is cancelled
type flight struct {
	done   chan struct{} // closed when it has landed
	cancel func()        // nobody will ever use it

	// Guarded by the pool's lock.
	landed, left bool
	joined       int

	// Valid once done.
	fault  *fault.Fault // nil for who joined: look again
	single *single      // the owner's, if HTTP/1
	muxed  *muxed       // the owner's, if HTTP/2, with a first stream
	lease  *Lease       // nil: it ended before that
}

// launchLocked begins a flight for r, if limits admit another connection of q, or
// takes one over. It returns nil if r must wait for what others have.
func (p *pool) launchLocked(c *Cluster, r *Request, q *part) *flight {
	if fl := p.takeOverLocked(q); fl != nil {
		return fl
	}
	if !p.admitLocked(c, q) {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	fl := &flight{done: make(chan struct{}), cancel: cancel}
	// r is the caller's, who may be gone before the connection is there.
	own := &Request{SNI: q.sni, Client: r.Client, OriginalDst: r.OriginalDst}
	if q.version == message.HTTP2 {
		if !q.orphan {
			q.flight = fl
		}
		go p.flyMuxed(ctx, c, own, q, fl)
	} else {
		go p.flySingle(ctx, c, own, q, fl)
	}
	return fl
}

// takeOverLocked returns a flight of q that has no owner, unless others wait for
// what it brings. A pool that drains is about to end those.
func (p *pool) takeOverLocked(q *part) *flight {
	if len(q.left) == 0 || p.draining || slices.ContainsFunc(p.waiting, func(w *waiter) bool { return w.part == q }) {
		return nil
	}
	fl := q.left[0]
	q.left = slices.Delete(q.left, 0, 1)
	fl.left = false
	return fl
}

// landLocked ends a flight, and says whether its owner is there to take what it brings.
func (p *pool) landLocked(q *part, fl *flight) (owned bool) {
	fl.landed = true
	if fl.left {
		q.left = slices.DeleteFunc(q.left, func(o *flight) bool { return o == fl })
	}
	if q.flight == fl {
		q.flight = nil
	}
	close(fl.done)
	fl.cancel()
	return !fl.left
}

// board waits for a flight of r's own.
func (p *pool) board(c *Cluster, r *Request, q *part, fl *flight) *fault.Fault {
	f, late := p.land(c, r, fl)
	if late {
		p.leave(c, q, fl)
	}
	return f
}

// leave gives a flight up. What it has brought at the same moment is the next one's.
func (p *pool) leave(c *Cluster, q *part, fl *flight) {
	p.mu.Lock()
	if !fl.landed {
		fl.left = true
		if q.left = append(q.left, fl); p.draining || q.orphan {
			p.abandonLocked(q)
		}
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	switch {
	case fl.single != nil:
		p.handOn(fl.single, c.now())
	case fl.lease != nil:
		p.returnMuxed(fl.lease)
	}
}

// abandonLocked ends the flights of q that nobody owns.
func (p *pool) abandonLocked(q *part) {
	for _, fl := range q.left {
		if fl.joined > 0 {
			continue
		}
		if q.flight == fl {
			q.flight = nil
		}
		fl.cancel()
	}
}

// join waits for a connection that another request opens.
func (p *pool) join(c *Cluster, r *Request, q *part, fl *flight) *fault.Fault {
	f, late := p.land(c, r, fl)
	if late {
		p.mu.Lock()
		if fl.joined--; fl.left && p.draining { // somebody else might join
			p.abandonLocked(q)
		}
		p.mu.Unlock()
	}
	return f
}

// land waits for fl, as long as r is wanted; late if that was not long enough.
func (p *pool) land(c *Cluster, r *Request, fl *flight) (f *fault.Fault, late bool) {
	var over <-chan time.Time // fl ends by itself
	if at := r.patience(time.Time{}); !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-fl.done:
		return fl.fault, false
	case <-r.done():
		return r.cancelled(), true
	case <-over:
	}
	return &fault.Fault{
		Side: fault.Mesh, Kind: fault.ConnectTimeout, Object: p.object(c),
		Hint: "the request's own time was over before a connection was ready: is the endpoint slow to accept, or the timeout short?",
	}, true
}

// connect opens the connection of a flight. A defect that it meets ends nothing else.
func (p *pool) connect(ctx context.Context, c *Cluster, own *Request, v message.Version) (conn net.Conn, f *fault.Fault) {
	defer func() {
		if defect := recover(); defect != nil {
			conn, f = nil, &fault.Fault{
				Side: fault.Mesh, Kind: fault.Internal, Object: p.object(c),
				Err: fmt.Errorf("defect while connecting: %v\n%s", defect, debug.Stack()),
			}
		}
	}()
	return p.host.dial(ctx, c, own, p.host.transport.alpn(v))
}

// blame tells outlier detection that fl failed because of f, before anybody looks for
// another endpoint: for each of its waiters, as Envoy does, and also if all of them have
// gone. A flight that was cancelled, as nobody could use it any more, has not failed.
func (p *pool) blame(ctx context.Context, c *Cluster, fl *flight, f *fault.Fault) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	waiters := fl.joined
	if !fl.left {
		waiters++
	}
	p.mu.Unlock()
	for range max(waiters, 1) {
		c.judge(p.host, Outcome{Fault: f})
	}
}

// object names the pool's endpoint in faults.
func (p *pool) object(c *Cluster) string {
	return "cluster " + c.spec.Name + ", endpoint " + p.host.text
}
