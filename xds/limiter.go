// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxPeers is how many peer addresses are counted at once.
const maxPeers = 10_000

// A limiter counts attempts per peer address, an IPv6 peer by its /64, the least that one host has. What a peer
// did not deserve to be counted for is given back.
type limiter struct {
	rate, burst float64

	mu    sync.Mutex
	peers map[netip.Prefix]tally
}

type tally struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: max(burst, 1), peers: map[netip.Prefix]tally{}}
}

// peerKey is how a peer is counted. ok is false for one without an IP address, such as that of a unix socket.
func peerKey(a net.Addr) (key netip.Prefix, ok bool) {
	if a == nil {
		return key, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return key, false
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	key, err = addr.Prefix(bits)
	return key, err == nil
}

// take reports whether a peer may try now.
func (l *limiter) take(key netip.Prefix, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.peers[key]
	if !ok {
		l.makeRoom(now)
		t = tally{tokens: l.burst, at: now}
	}
	t = l.refill(t, now)
	allowed := t.tokens >= 1
	if allowed {
		t.tokens--
	}
	l.peers[key] = t
	return allowed
}

// giveBack undoes one take.
func (l *limiter) giveBack(key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.peers[key]; ok {
		t.tokens = min(l.burst, t.tokens+1)
		l.peers[key] = t
	}
}

func (l *limiter) refill(t tally, now time.Time) tally {
	t.tokens = min(l.burst, t.tokens+max(now.Sub(t.at).Seconds(), 0)*l.rate)
	t.at = now
	return t
}

// makeRoom drops peers whose count is full again. If they are too few, it drops half of all, so that this is
// rare: so many peers at once are a limit by themselves.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.peers) < maxPeers {
		return
	}
	for k, t := range l.peers {
		if l.refill(t, now).tokens >= l.burst {
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
