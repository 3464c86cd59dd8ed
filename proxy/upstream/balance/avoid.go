// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

// levels is a set of priorities, as far as Envoy has them (0 to 127).
type levels [2]uint64

func (s *levels) add(p uint32) { s[p>>6&1] |= 1 << (p & 63) }

func (s *levels) has(p int) bool { return s[p>>6&1]>>(p&63)&1 != 0 }

// avoided returns the priorities that a retry leaves out (Envoy's
// previous_priorities): at every AvoidEvery-th attempt those tried by then are
// added; once nobody healthy is left elsewhere, it begins anew.
func (s *Set) avoided(q *Query) (out levels) {
	since := 0
	for n := 1; n <= len(q.Tried); n++ {
		if (n-since)%q.AvoidEvery != 0 {
			continue
		}
		for _, h := range q.Tried[since:n] {
			out.add(h)
		}
		if s.healthWithout(&out) == 0 {
			out, since = levels{}, n
		}
	}
	return out
}

// healthWithout returns the health of all priorities but those in out, which
// may be more than 100 percent.
func (s *Set) healthWithout(out *levels) (sum uint32) {
	for i := range s.priorities {
		if !out.has(i) {
			sum += s.priorities[i].health
		}
	}
	return sum
}

// untried chooses among the priorities that q does not avoid, by their health
// alone; false if there is nothing to avoid.
func (s *Set) untried(q *Query, random uint64) (*group, bool) {
	if q.AvoidEvery <= 0 || len(q.Tried) < q.AvoidEvery {
		return nil, false
	}
	out := s.avoided(q)
	if out == (levels{}) {
		return nil, false
	}
	total := min(100, s.healthWithout(&out))
	var first *priority
	left := uint32(100)
	for i := range s.priorities { // what rounding leaves over is the first one's
		if p := &s.priorities[i]; !out.has(i) && p.health > 0 {
			if first == nil {
				first = p
			}
			left -= min(left, p.health*100/total)
		}
	}
	at, sum, rest := uint32(random%100)+1, left, 100-left
	for i := range s.priorities {
		p := &s.priorities[i]
		if out.has(i) || p.health == 0 {
			continue
		}
		share := min(rest, p.health*100/total)
		rest -= share
		if sum += share; at <= sum {
			return p.place()
		}
	}
	return first.place()
}
