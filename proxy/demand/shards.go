// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"sync/atomic"
)

// shardCount keeps the copies small: a thousand destinations are sixteen a shard.
const shardCount = 64

// shards is a map that is read without a lock and copied when it is written to;
// writers hold Directory.mu.
type shards[K comparable] struct {
	hash func(K) uint64
	at   [shardCount]struct {
		m atomic.Pointer[map[K]*entry]
		_ [56]byte // shards do not share cache lines
	}
}

func (s *shards[K]) get(k K) *entry {
	m := s.at[s.hash(k)%shardCount].m.Load()
	if m == nil {
		return nil
	}
	return (*m)[k]
}

func (s *shards[K]) put(k K, e *entry) {
	at := &s.at[s.hash(k)%shardCount].m
	next := map[K]*entry{}
	if m := at.Load(); m != nil {
		next = maps.Clone(*m)
	}
	next[k] = e
	at.Store(&next)
}

func (s *shards[K]) remove(k K) {
	at := &s.at[s.hash(k)%shardCount].m
	m := at.Load()
	if m == nil {
		return
	}
	next := maps.Clone(*m)
	delete(next, k)
	at.Store(&next)
}

// hashAddr spreads addresses of one network well, without allocating.
func hashAddr(a netip.AddrPort) uint64 {
	b := a.Addr().As16()
	h := uint64(a.Port())
	for _, c := range b[8:] { // the rest differs between networks alone
		h = h*0x100000001b3 ^ uint64(c)
	}
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// hostPort is a destination by name.
type hostPort struct {
	host string
	port uint16
}

func hashHost(seed maphash.Seed) func(hostPort) uint64 {
	return func(h hostPort) uint64 { return maphash.String(seed, h.host) + uint64(h.port)*0x9e3779b97f4a7c15 }
}
