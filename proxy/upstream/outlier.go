// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

// An ejection is one host's standing with outlier detection (Envoy's
// arithmetic: consecutive counters trigger on equality, a host returns at the
// first sweep after base × times ejected).
//
//	in ──(counter reaches its threshold)──▶ ejected ──(sweep, time served)──▶ in
//	                                                └─(no policy any more)──▶ in
type ejection struct {
	consecutive5xx, consecutiveGateway, consecutiveLocal atomic.Uint32
	ejected                                              atomic.Bool

	mu    sync.Mutex
	at    time.Time     // of the ejection in force
	back  time.Time     // of the last return
	times time.Duration // backoff multiplier
}

// An Outcome is how an attempt ended, for Lease.Done.
type Outcome struct {
	Status   int          // of the response; 0: none came
	Fault    *fault.Fault // why there was none, or nil
	Reusable bool         // the connection may serve another exchange
	GRPC     bool         // Status was mapped from grpc-status
	Kept     bool         // somebody may look at the response still: its storage, and the connection, serve no other
}

// observe feeds the result of one attempt to statistics and outlier detection.
func (c *Cluster) observe(h *Host, o Outcome) {
	c.count(h, o)
	c.judge(h, o)
}

// count feeds it to statistics.
func (c *Cluster) count(h *Host, o Outcome) {
	class := o.Status / 100
	if class > 5 {
		class = 0
	}
	c.stats.Codes[class].Add(1)
	failed := o.Fault != nil || class == 5
	if failed {
		h.stats.Error.Add(1)
	} else {
		h.stats.Success.Add(1)
	}
}

// judge feeds it to outlier detection.
func (c *Cluster) judge(h *Host, o Outcome) {
	d := c.spec.Outlier
	if d == nil {
		return
	}
	if o.Fault != nil && o.Status == 0 {
		c.observeLocal(h, d, o.Fault)
		return
	}
	if d.SplitLocal {
		h.outlier.consecutiveLocal.Store(0)
	}
	c.observeStatus(h, d, o.Status)
}

// observeLocal counts what never reached a response: as 5xx, or apart with split.
func (c *Cluster) observeLocal(h *Host, d *Outlier, f *fault.Fault) {
	if f.Side != fault.Upstream {
		return // the client left, or we gave up: not the endpoint's doing
	}
	if d.SplitLocal {
		if reached(&h.outlier.consecutiveLocal, d.ConsecutiveLocal) {
			c.eject(h, d.EnforcingConsecutiveLocal)
		}
		return
	}
	status := 503
	if f.Kind == fault.ConnectTimeout || f.Kind == fault.Timeout || f.Kind == fault.PerTryTimeout {
		status = 504
	}
	c.observeStatus(h, d, status)
}

func (c *Cluster) observeStatus(h *Host, d *Outlier, status int) {
	e := &h.outlier
	if status < 500 {
		if e.consecutive5xx.Load() != 0 {
			e.consecutive5xx.Store(0)
		}
		if e.consecutiveGateway.Load() != 0 {
			e.consecutiveGateway.Store(0)
		}
		return
	}
	if status >= 502 && status <= 504 {
		if reached(&e.consecutiveGateway, d.ConsecutiveGateway) {
			c.eject(h, d.EnforcingConsecutiveGateway)
		}
	} else {
		e.consecutiveGateway.Store(0)
	}
	if reached(&e.consecutive5xx, d.Consecutive5xx) {
		c.eject(h, d.EnforcingConsecutive5xx)
	}
}

// reached counts a failure and says whether it is the one that counts; then
// counting begins anew, whether or not the host is ejected for it.
func reached(n *atomic.Uint32, after uint32) bool {
	if n.Add(1) != threshold(after, 5) {
		return false
	}
	n.Store(0)
	return true
}

func threshold(v, otherwise uint32) uint32 {
	if v == 0 {
		return otherwise
	}
	return v
}

// eject takes h out of balancing if that leaves enough others in. The attempt that
// decides it may have begun before a change: what it does, it does to the cluster
// that has taken over since.
func (c *Cluster) eject(h *Host, enforcing uint32) {
	if enforcing == 0 || rand.Uint32N(100) >= enforcing {
		return
	}
	c = c.ref.lock()
	if c == nil {
		return
	}
	defer c.mu.Unlock()
	d, e := c.spec.Outlier, &h.outlier
	if d == nil || e.ejected.Load() || !slices.Contains(c.members, h) {
		return
	}
	hosts := int64(len(c.members))
	most := int64(threshold(d.MaxEjectionPercent, 10))
	if 100*(c.stats.EjectionsActive.Load()+1) > most*hosts {
		c.stats.EjectionsOverflow.Add(1)
		return
	}
	e.mu.Lock()
	e.at = c.now()
	if e.times*base(d) < longest(d)+base(d) {
		e.times++
	}
	e.mu.Unlock()
	e.ejected.Store(true)
	c.stats.EjectionsActive.Add(1)
	c.stats.EjectionsTotal.Add(1)
	c.rebuildLocked()
}

func base(d *Outlier) time.Duration {
	if d.BaseEjection <= 0 {
		return 30 * time.Second
	}
	return d.BaseEjection
}

func longest(d *Outlier) time.Duration {
	m := d.MaxEjection
	if m <= 0 {
		m = 300 * time.Second
	}
	return max(m, base(d))
}

// sweepEjections lets hosts back in whose time is served, once per interval.
func (c *Cluster) sweepEjections(now time.Time) {
	d := c.spec.Outlier
	if d == nil {
		return
	}
	interval := d.Interval
	if interval <= 0 {
		interval = 10 * time.Second
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || now.Sub(c.sweptAt) < interval {
		return
	}
	c.sweptAt = now
	changed := false
	for _, h := range c.members {
		changed = c.sweepHost(h, d, now, interval) || changed
	}
	if changed {
		c.rebuildLocked()
	}
}

func (c *Cluster) sweepHost(h *Host, d *Outlier, now time.Time, interval time.Duration) (returned bool) {
	e := &h.outlier
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ejected.Load() {
		if e.times > 0 && now.Sub(e.back) >= interval {
			e.times--
		}
		return false
	}
	if now.Sub(e.at) < min(base(d)*e.times, longest(d)) {
		return false
	}
	e.back = now
	c.returnLocked(e)
	return true
}

// returnLocked lets e's host back in, and begins to count anew.
func (c *Cluster) returnLocked(e *ejection) {
	e.consecutive5xx.Store(0)
	e.consecutiveGateway.Store(0)
	e.consecutiveLocal.Store(0)
	if e.ejected.Swap(false) {
		c.stats.EjectionsActive.Add(-1)
	}
}

// pardon holds nothing against hosts any more: c has no policy by which they would return.
func (c *Cluster) pardon(hosts []*Host) {
	for _, h := range hosts {
		e := &h.outlier
		e.mu.Lock()
		e.times = 0
		c.returnLocked(e)
		e.mu.Unlock()
	}
}
