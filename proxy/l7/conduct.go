// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/rand/v2"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// start begins an exchange of c: now. It reports false if the connection cannot
// be served any more.
func (x *exchange) start(c *connection, r *message.Request) bool {
	seat, ok := c.sit()
	if !ok {
		return false
	}
	x.Exchange.Reset()
	x.conn, x.seat, x.site = c, seat, seat.site
	x.Conn, x.Request = c.facts, r
	x.Start = time.Now()
	x.Random = rand.Uint64()
	x.seenAt = time.Time{}
	if !c.begin(x) {
		return false
	}
	x.site.stats.Begin(c.facts.ID)
	return true
}

// conduct takes the exchange from its request's head to its end.
func (x *exchange) conduct() {
	f := x.prepare()
	var permit filter.Permit
	if f == nil {
		x.match()
		if x.site.http.LogOnStart {
			x.site.logs.LogAs(&x.Exchange, &x.record, "DownstreamStart")
		}
		permit, f = x.admit()
	}
	if f == nil {
		f = x.act(permit)
	}
	if f != nil {
		x.fail(f)
	}
	x.finish()
}

// end ends what start began.
func (x *exchange) end() { x.conn.end(x) }

// abandon ends an exchange in the middle of a step, after a defect. Whoever works
// for it may hold its storage still, so that is not to serve another.
func (x *exchange) abandon() {
	x.abandoned = true
	x.down.Abort(codeInternal)
	if lease := x.lease; lease != nil {
		x.lease = nil
		_ = x.setStream(nil)
		lease.Abort(codeCancel)
		x.body.Stop()
		x.body.Detach()
		lease.Done(upstream.Outcome{Kept: true})
	}
	x.body.Stop()
	x.leaveRetry()
	if x.admitted {
		x.cluster.Leave()
	}
	x.site.stats.End(&x.Exchange)
	x.end()
}
