// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package balance chooses among the endpoints of a cluster. It knows neither connections
// nor clusters: a Set is built of what is known of endpoints at the time, and is
// immutable from then on, but for counters.
//
//	balance.go   Config, Member, Set; what Explain shows
//	share.go     how much of the load each priority takes; panic
//	group.go     what one priority chooses from, by place
//	schedule.go  weights laid out as a rotation; slow start
//	hash.go      ring hash and Maglev
//	pick.go      the choice
//	avoid.go     what a retry leaves out
//
// Priorities, panic and localities follow Envoy's arithmetic: integer percent, rounded
// down, the remainder to the first priority that has anyone.
package balance

import (
	"sync/atomic"
	"time"
)

// A Policy chooses among healthy endpoints (Envoy Cluster.lb_policy).
type Policy uint8

// The policies.
const (
	RoundRobin Policy = iota
	LeastRequest
	Random
	RingHash
	Maglev
	ClusterProvided // for clusters that choose otherwise: here as Random
)

// A Config says how to choose.
type Config struct {
	Policy           Policy
	ChoiceCount      uint32 // LeastRequest; default 2
	RingMin, RingMax uint64 // RingHash; default 1024, 8 Mi
	MaglevSize       uint64 // default 65537
	SlowStart        *SlowStart
	PanicThreshold   uint32 // percent; 0: never panic. Envoy default 50
	LocalityWeighted bool
}

// SlowStart raises the weight of a new endpoint over a window.
type SlowStart struct {
	Window     time.Duration
	Aggression float64 // default 1
	MinPercent float64 // default 10
}

func (c *Config) hashes() bool { return c.Policy == RingHash || c.Policy == Maglev }

// A Member is what counts of one endpoint.
type Member struct {
	ID       int // what Pick returns
	Healthy  bool
	Degraded bool
	Weight   uint32 // at least 1
	Key      string // by which hash policies place it
	Since    time.Time
	Active   *atomic.Int64 // requests under way
}

// A Place is one locality's members within one priority.
type Place struct {
	Weight  uint32
	Members []Member
}

// A Set is everything Pick needs.
type Set struct {
	cfg        *Config
	priorities []priority
}

type priority struct {
	total, healthyCount, degradedCount int
	health                             uint32 // percent, of healthy members alone
	load, degradedLoad                 uint32 // percent of all requests; each priority's share
	panic                              bool
	healthy                            group // or every member, in panic
	degraded                           group
	localities                         []group // with LocalityWeighted: healthy members by place
	localitySchedule                   []uint32
}

// None is what Pick returns if there is nobody to choose.
const None = -1

// Build prepares the choice among the members of these priorities, each of which
// has places. Over is the overprovisioning factor in percent; 0: Envoy's 140.
func Build(cfg *Config, priorities [][]Place, over uint32, now time.Time) *Set {
	const usual = 140
	factor := uint64(over)
	if factor == 0 {
		factor = usual
	}
	s := &Set{cfg: cfg, priorities: make([]priority, len(priorities))}
	for i, places := range priorities {
		s.priorities[i] = count(places)
	}
	s.shareLoad(factor, cfg.PanicThreshold)
	for i, places := range priorities {
		s.priorities[i].fill(cfg, places, factor, now)
	}
	return s
}

// A Query is what a choice may depend on.
type Query struct {
	Hash    uint64 // what hash policies choose by
	HasHash bool
	// Tried are the priorities of endpoints that were tried before, in order. AvoidEvery, if positive,
	// leaves them out, anew every so many attempts (previous_priorities.update_frequency).
	Tried      []uint32
	AvoidEvery int
}

// A Standing is how one priority is doing.
type Standing struct {
	Load, DegradedLoad       uint32 // percent of requests
	Total, Healthy, Degraded int
	Panic                    bool
	Members                  []int // that may be chosen
}

// Standings tells of each priority.
func (s *Set) Standings() []Standing {
	var all []Standing
	for i := range s.priorities {
		p := &s.priorities[i]
		st := Standing{Load: p.load, DegradedLoad: p.degradedLoad, Panic: p.panic, Total: p.total, Healthy: p.healthyCount, Degraded: p.degradedCount}
		for _, g := range []*group{&p.healthy, &p.degraded} {
			for j := range g.members {
				st.Members = append(st.Members, g.members[j].ID)
			}
		}
		all = append(all, st)
	}
	return all
}

// Panics says whether any priority does.
func (s *Set) Panics() bool {
	for i := range s.priorities {
		if s.priorities[i].panic {
			return true
		}
	}
	return false
}
