// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"time"

	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// A hostSet is everything Pick needs, made anew when endpoints or their health change.
type hostSet struct {
	hosts []*Host // all, in the order of the assignment; a balance.Member's ID is an index of it
	set   *balance.Set
}

func buildHostSet(spec *Spec, a *Assignment, hosts []*Host, now time.Time) *hostSet {
	over := uint32(0)
	if a != nil {
		over = a.Overprovisioning
	}
	return &hostSet{hosts: hosts, set: balance.Build(&spec.Balance, splitPriorities(a, hosts), over, now)}
}

// splitPriorities groups hosts, which are in assignment order, by priority.
// Gaps in the numbers become empty priorities, as Envoy has them.
func splitPriorities(a *Assignment, hosts []*Host) [][]balance.Place {
	if a == nil {
		if len(hosts) == 0 {
			return nil
		}
		all := balance.Place{Weight: 1}
		for id, h := range hosts {
			all.Members = append(all.Members, h.member(id))
		}
		return [][]balance.Place{{all}}
	}
	byAddr := make(map[string]int, len(hosts))
	for id, h := range hosts {
		byAddr[h.text] = id
	}
	var out [][]balance.Place
	for i := range a.Localities {
		l := &a.Localities[i]
		for int(l.Priority) >= len(out) {
			out = append(out, nil)
		}
		p := balance.Place{Weight: l.Weight}
		for j := range l.Endpoints {
			text := endpointText(&l.Endpoints[j])
			if id, ok := byAddr[text]; ok {
				hosts[id].priority.Store(l.Priority)
				p.Members = append(p.Members, hosts[id].member(id))
				delete(byAddr, text) // a second mention of an address does not count
			}
		}
		out[l.Priority] = append(out[l.Priority], p)
	}
	return out
}

func endpointText(e *Endpoint) string {
	if e.Pipe != "" {
		return e.Pipe
	}
	return e.Addr.String()
}

// member is what counts of h for the choice.
func (h *Host) member(id int) balance.Member {
	e := h.Endpoint()
	m := balance.Member{ID: id, Weight: max(1, e.Weight), Key: e.HashKey, Since: h.created, Active: &h.stats.Active}
	if m.Key == "" {
		m.Key = h.text
	}
	if !h.Ejected() {
		m.Healthy = e.Health == Unknown || e.Health == Healthy
		m.Degraded = e.Health == Degraded
	}
	return m
}

// pick chooses for the attempt-th try of one selection; nil if there is nobody.
func (hs *hostSet) pick(r *Request, random uint64, attempt int) *Host {
	q := balance.Query{Hash: r.Hash, HasHash: r.HasHash}
	if r.AvoidEvery > 0 && len(r.Tried) >= r.AvoidEvery {
		var room [16]uint32 // so that usual retries allocate nothing
		q.AvoidEvery, q.Tried = r.AvoidEvery, room[:0]
		for _, h := range r.Tried {
			q.Tried = append(q.Tried, h.priority.Load())
		}
	}
	id := hs.set.Pick(&q, random, attempt)
	if id == balance.None {
		return nil
	}
	return hs.hosts[id]
}
