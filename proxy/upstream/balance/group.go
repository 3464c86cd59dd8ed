// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math/rand/v2"
	"time"
)

// A group is members among which one policy chooses.
type group struct {
	members  []Member
	schedule []uint32 // indices by weight; nil: all weights are equal
	start    uint32   // where this group's rotation begins, so that proxies do not march in step
	next     *counter
	ring     *ring
	maglev   *maglevTable
}

// fill makes the groups that requests choose from.
func (p *priority) fill(cfg *Config, places []Place, over uint64, now time.Time) {
	var healthy, degraded []Member
	var shares []float64 // of healthy, for hash policies with localities
	var up []Place
	for _, pl := range places {
		from := len(healthy)
		for _, h := range pl.Members {
			switch {
			case p.panic || h.Healthy:
				healthy = append(healthy, h)
			case h.Degraded:
				degraded = append(degraded, h)
			}
		}
		up = append(up, Place{pl.Weight, healthy[from:len(healthy):len(healthy)]})
	}
	if cfg.LocalityWeighted && cfg.hashes() {
		shares = localityShares(up)
	}
	p.healthy = newGroup(cfg, healthy, shares, now)
	p.degraded = newGroup(cfg, degraded, nil, now)
	if cfg.LocalityWeighted && !cfg.hashes() && !p.panic {
		p.fillLocalities(cfg, places, up, over, now)
	}
}

// localityShares weighs members by the weight of their place: hash policies put
// them all in one table, so that a key keeps its member. It is nil if no place
// has a weight.
func localityShares(up []Place) []float64 {
	var shares []float64
	weighted := false
	for _, pl := range up {
		var sum float64
		for _, h := range pl.Members {
			sum += float64(h.Weight)
		}
		for _, h := range pl.Members {
			shares = append(shares, float64(pl.Weight)*float64(h.Weight)/sum)
			weighted = weighted || pl.Weight > 0
		}
	}
	if !weighted {
		return nil
	}
	return shares
}

// fillLocalities makes a group of each place that has a weight and anyone
// healthy; the weight is lowered by what is unhealthy beyond overprovisioning.
func (p *priority) fillLocalities(cfg *Config, places, up []Place, over uint64, now time.Time) {
	var weights []float64
	for i, pl := range up {
		if pl.Weight == 0 || len(pl.Members) == 0 {
			continue
		}
		health := min(1, float64(over)/100*float64(len(pl.Members))/float64(len(places[i].Members)))
		weights = append(weights, float64(pl.Weight)*health)
		p.localities = append(p.localities, newGroup(cfg, pl.Members, nil, now))
	}
	if len(p.localities) > 0 {
		p.localitySchedule = schedule(weights)
		p.healthy.next = newCounter()
	}
}

// newGroup prepares the choice among hosts. shares, if not nil, stand for the
// hosts' own weights in a hash policy; a share of 0 keeps a host out.
func newGroup(cfg *Config, members []Member, shares []float64, now time.Time) group {
	g := group{members: members, start: rand.Uint32(), next: newCounter()}
	if len(members) == 0 {
		return g
	}
	switch cfg.Policy {
	case RingHash:
		g.ring = newRing(members, shares, cfg.RingMin, cfg.RingMax)
		return g
	case Maglev:
		g.maglev = newMaglev(members, shares, cfg.MaglevSize)
		return g
	case Random:
		return g
	}
	weights := make([]float64, len(members))
	equal := true
	for i, h := range members {
		weights[i] = float64(h.Weight) * cfg.SlowStart.factor(h.Since, now)
		equal = equal && weights[i] == weights[0]
	}
	if !equal {
		g.schedule = schedule(weights)
	}
	return g
}
