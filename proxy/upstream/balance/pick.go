// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

// Pick chooses for the attempt-th try of one selection. Hash policies use the
// request's hash in the place of chance, so that one key keeps its priority and
// its host. It returns the ID of a Member, or None.
func (s *Set) Pick(q *Query, random uint64, attempt int) int {
	if s.cfg.hashes() && q.HasHash {
		random = q.Hash
	} else {
		attempt = 0 // the next draw is another one anyway
	}
	g, ok := s.untried(q, random)
	if !ok {
		g, ok = s.group(random)
	}
	if !ok {
		return None
	}
	return g.pick(s.cfg, random, attempt)
}

// group chooses a priority by load, then a place in it.
func (s *Set) group(random uint64) (*group, bool) {
	at := uint32(random%100) + 1
	var sum uint32
	for i := range s.priorities {
		p := &s.priorities[i]
		if sum += p.load; at <= sum && p.load > 0 {
			return p.place()
		}
	}
	for i := range s.priorities {
		p := &s.priorities[i]
		if sum += p.degradedLoad; at <= sum && p.degradedLoad > 0 {
			return &p.degraded, true
		}
	}
	return nil, false
}

// place chooses a locality by weight, where they have weights.
func (p *priority) place() (*group, bool) {
	if len(p.localities) > 0 {
		n := p.healthy.next.add()
		return &p.localities[p.localitySchedule[uint32(n)%uint32(len(p.localitySchedule))]], true
	}
	return &p.healthy, len(p.healthy.members) > 0
}

func (g *group) pick(cfg *Config, random uint64, attempt int) int {
	n := uint64(len(g.members))
	switch {
	case n == 0:
		return None
	case n == 1:
		return g.members[0].ID
	case g.ring != nil:
		return g.ring.pick(random, attempt)
	case g.maglev != nil:
		return g.maglev.pick(random, attempt)
	}
	switch cfg.Policy {
	case RoundRobin:
		i := uint64(g.start) + g.next.add()
		if g.schedule != nil {
			return g.members[g.schedule[i%uint64(len(g.schedule))]].ID
		}
		return g.members[i%n].ID
	case LeastRequest:
		return g.leastRequest(cfg, random)
	}
	return g.members[(random>>8)%n].ID
}

// leastRequest draws ChoiceCount hosts, by weight and with replacement, and
// takes the one with the fewest active requests for its weight; a tie goes to
// the first. Envoy keeps a scheduler under a lock for unequal weights; drawing
// by weight has the same shares without one (see RATIONALE.md).
func (g *group) leastRequest(cfg *Config, random uint64) int {
	choices := int(cfg.ChoiceCount)
	if choices < 2 {
		choices = 2
	}
	var best *Member
	var bestActive, bestWeight int64
	for i := range choices {
		if i > 0 {
			random = Next(random)
		}
		h := g.draw(random)
		active, weight := h.Active.Load(), int64(1)
		if g.schedule != nil {
			weight = int64(h.Weight)
		}
		if best == nil || active*bestWeight < bestActive*weight {
			best, bestActive, bestWeight = h, active, weight
		}
	}
	return best.ID
}

func (g *group) draw(random uint64) *Member {
	if g.schedule != nil {
		return &g.members[g.schedule[(random>>8)%uint64(len(g.schedule))]]
	}
	return &g.members[(random>>8)%uint64(len(g.members))]
}

// Next is SplitMix64's finaliser: the next draw of one exchange's random number.
func Next(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
