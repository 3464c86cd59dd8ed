// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"net/netip"
	"sync"
	"time"
)

// maxPeers is how many peers are counted at once.
const maxPeers = 10_000

// limiter counts requests per peer address. An IPv6 peer is counted by its /64,
// the least that one host has.
type limiter struct {
	rate  float64
	burst float64

	mu    sync.Mutex
	peers map[netip.Prefix]tally
}

type tally struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate float64, burst int) *limiter {
	return &limiter{rate: rate, burst: float64(burst), peers: map[netip.Prefix]tally{}}
}

// take reports whether a peer may ask now.
func (l *limiter) take(addr netip.Addr, now time.Time) bool {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	key, _ := addr.Prefix(bits)
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.peers[key]
	if !ok {
		l.makeRoom(now)
		c = tally{tokens: l.burst, at: now}
	}
	c.tokens = min(l.burst, c.tokens+now.Sub(c.at).Seconds()*l.rate)
	c.at = now
	allowed := c.tokens >= 1
	if allowed {
		c.tokens--
	}
	l.peers[key] = c
	return allowed
}

// makeRoom drops peers whose count is full again. If they are too few, it drops
// half of all, so that this is rare: so many peers at once are a limit by themselves.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.peers) < maxPeers {
		return
	}
	for k, c := range l.peers {
		if c.tokens+now.Sub(c.at).Seconds()*l.rate >= l.burst {
			delete(l.peers, k)
		}
	}
	for k := range l.peers {
		if len(l.peers) <= maxPeers/2 {
			return
		}
		delete(l.peers, k)
	}
}
