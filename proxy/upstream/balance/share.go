// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

func count(places []Place) (p priority) {
	for _, pl := range places {
		for _, h := range pl.Members {
			p.total++
			switch {
			case h.Healthy:
				p.healthyCount++
			case h.Degraded:
				p.degradedCount++
			}
		}
	}
	return p
}

// shareLoad sets every priority's load and panic (Envoy's
// priority levels, panic threshold and degraded endpoints).
func (s *Set) shareLoad(over uint64, threshold uint32) {
	health := func(n, total int) uint32 {
		if total == 0 {
			return 0
		}
		return uint32(min(100, over*uint64(n)/uint64(total)))
	}
	var sum uint32
	for i := range s.priorities {
		p := &s.priorities[i]
		p.health = health(p.healthyCount, p.total)
		sum += p.health + health(p.degradedCount, p.total)
	}
	total := min(100, sum)
	if s.judgePanic(total, threshold) {
		s.shareInPanic()
		return
	}
	if total == 0 {
		return // nobody may be picked
	}
	left := uint32(100)
	var firstHealthy, firstDegraded *uint32
	for i := range s.priorities {
		p := &s.priorities[i]
		p.load = min(left, p.health*100/total)
		left -= p.load
		if p.health > 0 && firstHealthy == nil {
			firstHealthy = &p.load
		}
	}
	for i := range s.priorities {
		p := &s.priorities[i]
		h := health(p.degradedCount, p.total)
		p.degradedLoad = min(left, h*100/total)
		left -= p.degradedLoad
		if h > 0 && firstDegraded == nil {
			firstDegraded = &p.degradedLoad
		}
	}
	if firstHealthy == nil { // total > 0: then there is a degraded one
		firstHealthy = firstDegraded
	}
	*firstHealthy += left // what rounding has left over
}

// judgePanic sets which priorities panic, and says whether all do. An empty
// priority panics with the others; together they must not reach full health.
func (s *Set) judgePanic(total, threshold uint32) (all bool) {
	if threshold == 0 || total == 100 {
		return false
	}
	all = true
	for i := range s.priorities {
		p := &s.priorities[i]
		available := 100 * (p.healthyCount + p.degradedCount)
		p.panic = p.total == 0 || available < int(threshold)*p.total
		all = all && p.panic
	}
	return all
}

// shareInPanic splits load by number of hosts: every priority panics.
func (s *Set) shareInPanic() {
	all := 0
	for i := range s.priorities {
		all += s.priorities[i].total
	}
	left := uint32(100)
	var first *uint32
	for i := range s.priorities {
		p := &s.priorities[i]
		if p.total == 0 {
			continue
		}
		if first == nil {
			first = &p.load
		}
		p.load = uint32(100 * p.total / all)
		left -= p.load
	}
	if first != nil {
		*first += left
	}
}
