// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"math/rand/v2"
	"time"
)

// A hostSet is everything Pick needs, computed when endpoints or their health
// change and immutable from then on (counters apart). Priorities, panic and
// localities follow Envoy's arithmetic: integer percent, rounded down, the
// remainder to the first priority that has anyone.
type hostSet struct {
	hosts      []*Host // all, in the order of the assignment
	priorities []priority
}

type priority struct {
	total, healthyCount, degradedCount int
	health                             uint32 // percent, of healthy hosts alone
	load, degradedLoad                 uint32 // percent of all requests; each priority's share
	panic                              bool
	healthy                            group // or every host, in panic
	degraded                           group
	localities                         []group // with LocalityWeighted: healthy hosts by place
	localitySchedule                   []uint32
}

// A group is hosts among which one policy chooses.
type group struct {
	hosts    []*Host
	schedule []uint32 // indices by weight; nil: all weights are equal
	start    uint32   // where this group's rotation begins, so that proxies do not march in step
	next     *counter
	ring     *ring
	maglev   *maglevTable
}

func buildHostSet(spec *Spec, a *Assignment, hosts []*Host, now time.Time) *hostSet {
	hs := &hostSet{hosts: hosts}
	over := uint64(140)
	if a != nil && a.Overprovisioning > 0 {
		over = uint64(a.Overprovisioning)
	}
	byPriority := splitPriorities(a, hosts)
	hs.priorities = make([]priority, len(byPriority))
	for i := range byPriority {
		hs.priorities[i] = countPriority(byPriority[i])
	}
	hs.shareLoad(over, spec.PanicThreshold)
	for i := range byPriority {
		hs.priorities[i].fill(spec, byPriority[i], over, now)
	}
	return hs
}

// A place is one locality's hosts within one priority.
type place struct {
	weight uint32
	hosts  []*Host
}

// splitPriorities groups hosts, which are in assignment order, by priority.
// Gaps in the numbers become empty priorities, as Envoy has them.
func splitPriorities(a *Assignment, hosts []*Host) [][]place {
	if a == nil {
		if len(hosts) == 0 {
			return nil
		}
		return [][]place{{{weight: 1, hosts: hosts}}}
	}
	byAddr := make(map[string]*Host, len(hosts))
	for _, h := range hosts {
		byAddr[h.text] = h
	}
	var out [][]place
	for i := range a.Localities {
		l := &a.Localities[i]
		for int(l.Priority) >= len(out) {
			out = append(out, nil)
		}
		p := place{weight: l.Weight}
		for j := range l.Endpoints {
			text := endpointText(&l.Endpoints[j])
			if h := byAddr[text]; h != nil {
				h.priority.Store(l.Priority)
				p.hosts = append(p.hosts, h)
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

func countPriority(places []place) (p priority) {
	for _, pl := range places {
		for _, h := range pl.hosts {
			p.total++
			switch {
			case h.healthy():
				p.healthyCount++
			case h.degraded():
				p.degradedCount++
			}
		}
	}
	return p
}

// shareLoad sets every priority's load and panic (Envoy's
// priority levels, panic threshold and degraded endpoints).
func (hs *hostSet) shareLoad(over uint64, threshold uint32) {
	health := func(n, total int) uint32 {
		if total == 0 {
			return 0
		}
		return uint32(min(100, over*uint64(n)/uint64(total)))
	}
	var sum uint32
	for i := range hs.priorities {
		p := &hs.priorities[i]
		p.health = health(p.healthyCount, p.total)
		sum += p.health + health(p.degradedCount, p.total)
	}
	total := min(100, sum)
	if hs.judgePanic(total, threshold) {
		hs.shareInPanic()
		return
	}
	if total == 0 {
		return // nobody may be picked
	}
	left := uint32(100)
	var firstHealthy, firstDegraded *uint32
	for i := range hs.priorities {
		p := &hs.priorities[i]
		p.load = min(left, p.health*100/total)
		left -= p.load
		if p.health > 0 && firstHealthy == nil {
			firstHealthy = &p.load
		}
	}
	for i := range hs.priorities {
		p := &hs.priorities[i]
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
func (hs *hostSet) judgePanic(total, threshold uint32) (all bool) {
	if threshold == 0 || total == 100 {
		return false
	}
	all = true
	for i := range hs.priorities {
		p := &hs.priorities[i]
		available := 100 * (p.healthyCount + p.degradedCount)
		p.panic = p.total == 0 || available < int(threshold)*p.total
		all = all && p.panic
	}
	return all
}

// shareInPanic splits load by number of hosts: every priority panics.
func (hs *hostSet) shareInPanic() {
	all := 0
	for i := range hs.priorities {
		all += hs.priorities[i].total
	}
	left := uint32(100)
	var first *uint32
	for i := range hs.priorities {
		p := &hs.priorities[i]
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

// fill makes the groups that requests choose from.
func (p *priority) fill(spec *Spec, places []place, over uint64, now time.Time) {
	var healthy, degraded []*Host
	var shares []float64 // of healthy, for hash policies with localities
	var up []place
	for _, pl := range places {
		from := len(healthy)
		for _, h := range pl.hosts {
			switch {
			case p.panic || h.healthy():
				healthy = append(healthy, h)
			case h.degraded():
				degraded = append(degraded, h)
			}
		}
		up = append(up, place{pl.weight, healthy[from:len(healthy):len(healthy)]})
	}
	if spec.LocalityWeighted && spec.hashes() {
		shares = localityShares(up)
	}
	p.healthy = newGroup(spec, healthy, shares, now)
	p.degraded = newGroup(spec, degraded, nil, now)
	if spec.LocalityWeighted && !spec.hashes() && !p.panic {
		p.fillLocalities(spec, places, up, over, now)
	}
}

func (s *Spec) hashes() bool { return s.Policy == RingHash || s.Policy == Maglev }

// localityShares weighs hosts by the weight of their place: hash policies put
// them all in one table, so that a key keeps its host. It is nil if no place
// has a weight.
func localityShares(up []place) []float64 {
	var shares []float64
	weighted := false
	for _, pl := range up {
		var sum float64
		for _, h := range pl.hosts {
			sum += float64(h.weight())
		}
		for _, h := range pl.hosts {
			shares = append(shares, float64(pl.weight)*float64(h.weight())/sum)
			weighted = weighted || pl.weight > 0
		}
	}
	if !weighted {
		return nil
	}
	return shares
}

// fillLocalities makes a group of each place that has a weight and anyone
// healthy; the weight is lowered by what is unhealthy beyond overprovisioning.
func (p *priority) fillLocalities(spec *Spec, places, up []place, over uint64, now time.Time) {
	var weights []float64
	for i, pl := range up {
		if pl.weight == 0 || len(pl.hosts) == 0 {
			continue
		}
		health := min(1, float64(over)/100*float64(len(pl.hosts))/float64(len(places[i].hosts)))
		weights = append(weights, float64(pl.weight)*health)
		p.localities = append(p.localities, newGroup(spec, pl.hosts, nil, now))
	}
	if len(p.localities) > 0 {
		p.localitySchedule = schedule(weights)
		p.healthy.next = newCounter()
	}
}

// newGroup prepares the choice among hosts. shares, if not nil, stand for the
// hosts' own weights in a hash policy; a share of 0 keeps a host out.
func newGroup(spec *Spec, hosts []*Host, shares []float64, now time.Time) group {
	g := group{hosts: hosts, start: rand.Uint32(), next: newCounter()}
	if len(hosts) == 0 {
		return g
	}
	switch spec.Policy {
	case RingHash:
		g.ring = newRing(hosts, shares, spec.RingMin, spec.RingMax)
		return g
	case Maglev:
		g.maglev = newMaglev(hosts, shares, spec.MaglevSize)
		return g
	case Random:
		return g
	}
	weights := make([]float64, len(hosts))
	equal := true
	for i, h := range hosts {
		weights[i] = float64(h.weight()) * slowStartFactor(spec.SlowStart, h, now)
		equal = equal && weights[i] == weights[0]
	}
	if !equal {
		g.schedule = schedule(weights)
	}
	return g
}

// pick chooses for the attempt-th try of one selection. Hash policies use the
// request's hash in the place of chance, so that one key keeps its priority and
// its host.
func (hs *hostSet) pick(spec *Spec, r *Request, random uint64, attempt int) *Host {
	if spec.hashes() && r.HasHash {
		random = r.Hash
	} else {
		attempt = 0 // the next draw is another one anyway
	}
	g, ok := hs.untried(r, random)
	if !ok {
		g, ok = hs.group(random)
	}
	if !ok {
		return nil
	}
	return g.pick(spec, random, attempt)
}

// group chooses a priority by load, then a place in it.
func (hs *hostSet) group(random uint64) (*group, bool) {
	at := uint32(random%100) + 1
	var sum uint32
	for i := range hs.priorities {
		p := &hs.priorities[i]
		if sum += p.load; at <= sum && p.load > 0 {
			return p.place()
		}
	}
	for i := range hs.priorities {
		p := &hs.priorities[i]
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
	return &p.healthy, len(p.healthy.hosts) > 0
}

func (g *group) pick(spec *Spec, random uint64, attempt int) *Host {
	n := uint64(len(g.hosts))
	switch {
	case n == 0:
		return nil
	case n == 1:
		return g.hosts[0]
	case g.ring != nil:
		return g.ring.pick(random, attempt)
	case g.maglev != nil:
		return g.maglev.pick(random, attempt)
	}
	switch spec.Policy {
	case RoundRobin:
		i := uint64(g.start) + g.next.add()
		if g.schedule != nil {
			return g.hosts[g.schedule[i%uint64(len(g.schedule))]]
		}
		return g.hosts[i%n]
	case LeastRequest:
		return g.leastRequest(spec, random)
	}
	return g.hosts[(random>>8)%n]
}

// leastRequest draws ChoiceCount hosts, by weight and with replacement, and
// takes the one with the fewest active requests for its weight; a tie goes to
// the first. Envoy keeps a scheduler under a lock for unequal weights; drawing
// by weight has the same shares without one (see RATIONALE.md).
func (g *group) leastRequest(spec *Spec, random uint64) *Host {
	choices := int(spec.ChoiceCount)
	if choices < 2 {
		choices = 2
	}
	var best *Host
	var bestActive, bestWeight int64
	for i := range choices {
		if i > 0 {
			random = mix(random)
		}
		h := g.draw(random)
		active, weight := h.stats.Active.Load(), int64(1)
		if g.schedule != nil {
			weight = int64(h.weight())
		}
		if best == nil || active*bestWeight < bestActive*weight {
			best, bestActive, bestWeight = h, active, weight
		}
	}
	return best
}

func (g *group) draw(random uint64) *Host {
	if g.schedule != nil {
		return g.hosts[g.schedule[(random>>8)%uint64(len(g.schedule))]]
	}
	return g.hosts[(random>>8)%uint64(len(g.hosts))]
}

// mix is SplitMix64's finaliser: the next draw of one exchange's random number.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
