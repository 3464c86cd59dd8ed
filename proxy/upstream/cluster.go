// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// A Cluster is a live cluster: one Spec with its hosts. A changed Spec makes a
// new Cluster, which takes over the hosts whose connections it does not concern.
type Cluster struct {
	ref   *Ref // leads to the one that has taken over
	spec  *Spec
	stats *Stats
	now   func() time.Time
	mark  uint32 // SO_MARK of connections; 0: none

	balance atomic.Pointer[hostSet]

	limits *limits

	mu         sync.Mutex
	assignment *Assignment
	members    []*Host // in assignment order
	sweptAt    time.Time
	originals  map[netip.AddrPort]*Host // OriginalDst; read through originalsRO
	closed     bool

	originalsRO sync.Map // netip.AddrPort → *Host
	stopDNS     func()

	// Faults that carry no details of one exchange are made once.
	noEndpoint, overflow *fault.Fault
}

// limits counts what circuit breakers bound. It lives with the Ref: a request
// admitted under one Spec leaves under the next.
type limits struct {
	active, retries      atomic.Int64 // requests admitted; retries in flight
	pending, connections atomic.Int64
}

func newCluster(spec *Spec, r *Ref, now func() time.Time) *Cluster {
	c := &Cluster{ref: r, spec: spec, stats: &r.stats, limits: &r.limits, now: now, sweptAt: now()}
	c.noEndpoint = &fault.Fault{
		Side: fault.Mesh, Kind: fault.NoEndpoint, Object: "cluster " + spec.Name,
		Details: "no_healthy_upstream",
		Hint:    "no endpoint is healthy: do the service's selector and the subset's labels match running workloads?",
	}
	c.overflow = &fault.Fault{
		Side: fault.Mesh, Kind: fault.Overflow, Object: "cluster " + spec.Name,
		Details: "overflow",
		Hint:    "a limit of the DestinationRule's connectionPool is reached",
	}
	if spec.Discovery == OriginalDst {
		c.originals = make(map[netip.AddrPort]*Host)
	}
	c.balance.Store(buildHostSet(spec, nil, nil, now()))
	return c
}

// Spec returns the configuration c runs; read-only.
func (c *Cluster) Spec() *Spec { return c.spec }

// Stats returns c's counters.
func (c *Cluster) Stats() *Stats { return c.stats }

// Admit counts a request in, or refuses it when max_requests are in flight. Who
// was admitted calls Leave.
func (c *Cluster) Admit() *fault.Fault {
	if c.limits.active.Add(1) > int64(c.spec.Breakers.MaxRequests) {
		c.limits.active.Add(-1)
		c.stats.RequestOverflow.Add(1)
		return c.overflow
	}
	c.stats.RequestTotal.Add(1)
	return nil
}

// Leave ends what Admit began.
func (c *Cluster) Leave() { c.limits.active.Add(-1) }

// AdmitRetry counts a retry in, or refuses it: max_retries, or the retry budget
// (a share of the requests that are active or pending).
func (c *Cluster) AdmitRetry() bool {
	limit := int64(c.spec.Breakers.MaxRetries)
	if b := c.spec.Breakers.BudgetPercent; b > 0 {
		share := int64(b * float64(c.limits.active.Load()+c.limits.pending.Load()) / 100)
		limit = max(share, int64(c.spec.Breakers.BudgetMin))
	}
	if c.limits.retries.Add(1) > limit {
		c.limits.retries.Add(-1)
		c.stats.RetryOverflow.Add(1)
		return false
	}
	c.stats.Retry.Add(1)
	return true
}

// LeaveRetry ends what AdmitRetry began.
func (c *Cluster) LeaveRetry() { c.limits.retries.Add(-1) }

func (c *Cluster) admitPending() bool {
	if c.limits.pending.Add(1) > int64(c.spec.Breakers.MaxPending) {
		c.limits.pending.Add(-1)
		c.stats.RequestOverflow.Add(1)
		return false
	}
	return true
}

func (c *Cluster) leavePending() { c.limits.pending.Add(-1) }

func (c *Cluster) admitConn() bool {
	if c.limits.connections.Add(1) > int64(c.spec.Breakers.MaxConnections) {
		c.limits.connections.Add(-1)
		c.stats.ConnOverflow.Add(1)
		return false
	}
	return true
}

func (c *Cluster) leaveConn() { c.limits.connections.Add(-1) }

// Pick chooses an endpoint. A host in r.Tried is passed over while others can be
// found within r.MaxReselect more selections (Envoy's previous_hosts).
func (c *Cluster) Pick(r *Request) (*Host, *fault.Fault) {
	if c.spec.Discovery == OriginalDst {
		return c.pickOriginal(r)
	}
	random := r.Random
	if random == 0 {
		random = rand.Uint64()
	}
	set := c.balance.Load()
	for attempt := 0; ; attempt++ {
		h := set.pick(r, random, attempt)
		if h == nil {
			c.stats.NoneHealthy.Add(1)
			return nil, c.noEndpoint
		}
		if attempt >= r.MaxReselect || !slices.Contains(r.Tried, h) {
			return h, nil
		}
		random = balance.Next(random)
	}
}

// maxOriginals bounds how many addresses one original-destination cluster keeps.
const maxOriginals = 1 << 16

// originalIdle is how long an unused address is remembered.
const originalIdle = time.Minute

func (c *Cluster) pickOriginal(r *Request) (*Host, *fault.Fault) {
	dst := r.OriginalDst
	if !dst.IsValid() {
		return nil, c.noEndpoint
	}
	if c.spec.PortOverride != 0 {
		dst = netip.AddrPortFrom(dst.Addr(), c.spec.PortOverride)
	}
	if h, ok := c.originalsRO.Load(dst); ok {
		host := h.(*Host)
		host.used.Store(c.now().UnixNano())
		return host, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.originals[dst]; h != nil {
		return h, nil
	}
	if len(c.originals) >= maxOriginals {
		return nil, c.overflow
	}
	e := &Endpoint{Addr: dst, Weight: 1}
	h := newHost(e, c.spec.transportFor(e), c.now())
	if c.closed {
		h.pool.drain() // as if it had been picked just before
		return h, nil
	}
	h.used.Store(c.now().UnixNano())
	c.originals[dst] = h
	c.originalsRO.Store(dst, h)
	return h, nil
}

func (c *Cluster) sweepOriginals(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for dst, h := range c.originals {
		if now.UnixNano()-h.used.Load() > int64(originalIdle) && h.pool.active() == 0 && h.pool.idle() == 0 {
			delete(c.originals, dst)
			c.originalsRO.Delete(dst)
			h.pool.drain() // nobody would sweep what a late request leaves there
		}
	}
}

// Open leases a stream to h: on a pooled connection, or on a new one.
func (c *Cluster) Open(h *Host, r *Request) (*Lease, *fault.Fault) {
	l, f := h.pool.open(c, r)
	if f != nil && f.Side == fault.Upstream {
		c.count(h, Outcome{Fault: f}) // there is no lease that will; the flight has told outlier detection
	}
	return l, f
}

// Dial connects to h for raw bytes; TLS is done when it returns. Who gets a
// connection calls Hangup in the end, who gets a fault ReportTCP.
func (c *Cluster) Dial(h *Host, r *Request) (net.Conn, *fault.Fault) {
	if !c.admitConn() {
		return nil, c.overflow
	}
	conn, f := h.dial(context.Background(), c, r, h.transport.ALPN)
	if f != nil {
		c.leaveConn()
		return nil, f
	}
	return conn, nil
}

// Hangup ends what Dial began, and tells outlier detection how it went.
func (c *Cluster) Hangup(h *Host, f *fault.Fault) {
	h.countHangup(c.stats)
	c.leaveConn()
	c.ReportTCP(h, f)
}

// ReportTCP tells outlier detection how a connection to h went: a success
// counts as 200, a failure as the local-origin fault it is, if it is the endpoint's.
func (c *Cluster) ReportTCP(h *Host, f *fault.Fault) {
	switch {
	case f == nil:
		c.observe(h, Outcome{Status: 200})
	case f.Side == fault.Upstream:
		c.observe(h, Outcome{Fault: f})
	}
}

// transportFor chooses how to secure e: the first transport whose match e's
// metadata satisfies.
func (s *Spec) transportFor(e *Endpoint) *Transport {
	for i := range s.Transports {
		if subset(s.Transports[i].Match, e.Match) {
			return &s.Transports[i]
		}
	}
	return &s.Default
}

func subset(want, have map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// assign replaces c's endpoints. Hosts that stay keep their connections.
func (c *Cluster) assign(a *Assignment, inherit []*Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	old := make(map[string]*Host, len(c.members)+len(inherit))
	for _, h := range inherit {
		old[h.text] = h
	}
	for _, h := range c.members {
		old[h.text] = h
	}
	var members []*Host
	seen := make(map[string]bool)
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			e := &a.Localities[i].Endpoints[j]
			text := endpointText(e)
			if seen[text] {
				continue
			}
			seen[text] = true
			t := c.spec.transportFor(e)
			h := old[text]
			if h != nil && sameTransport(h.transport, t) {
				h.endpoint.Store(e)
				delete(old, text)
			} else {
				h = newHost(e, t, c.now())
			}
			members = append(members, h)
		}
	}
	c.assignment, c.members = a, members
	for _, h := range old {
		if h.outlier.ejected.Load() {
			c.stats.EjectionsActive.Add(-1)
		}
		h.pool.drain()
	}
	c.stats.UpdateSuccess.Add(1)
	c.rebuildLocked()
}

// sameTransport says whether connections made with a serve for b: config makes
// equal transports with one TLS configuration, so its identity decides.
func sameTransport(a, b *Transport) bool {
	return a == b || a.TLS == b.TLS && a.ProxyProtocol == b.ProxyProtocol &&
		slices.Equal(a.ALPN, b.ALPN) && slices.Equal(a.ALPNHTTP1, b.ALPNHTTP1) && slices.Equal(a.ALPNHTTP2, b.ALPNHTTP2)
}

func (c *Cluster) rebuildLocked() {
	set := buildHostSet(c.spec, c.assignment, c.members, c.now())
	if set.set.Panics() {
		c.stats.Panic.Add(1)
	}
	c.balance.Store(set)
}

// sweep does what time asks for: ejections, slow start, idle connections.
func (c *Cluster) sweep(now time.Time) {
	c.sweepEjections(now)
	c.mu.Lock()
	hosts := c.hostsLocked()
	if s := c.spec.Balance.SlowStart; s != nil && slices.ContainsFunc(c.members, func(h *Host) bool {
		return now.Sub(h.created) < s.Window+2*sweepEvery
	}) {
		c.rebuildLocked()
	}
	c.mu.Unlock()
	for _, h := range hosts {
		h.pool.sweep(now)
	}
	if c.originals != nil {
		c.sweepOriginals(now)
	}
}

// retire ends c, which its Ref leads to no more.
func (c *Cluster) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retireLocked(nil)
}

// retireLocked ends c. Hosts in keep live on in the cluster that takes over.
func (c *Cluster) retireLocked(keep []*Host) {
	c.closed = true
	if c.stopDNS != nil {
		c.stopDNS()
	}
	for _, h := range c.hostsLocked() {
		if slices.Contains(keep, h) {
			continue
		}
		if h.outlier.ejected.Load() {
			c.stats.EjectionsActive.Add(-1)
		}
		h.pool.drain()
	}
}

func (c *Cluster) hostsLocked() []*Host {
	hosts := slices.Clone(c.members)
	for _, h := range c.originals {
		hosts = append(hosts, h)
	}
	return hosts
}
