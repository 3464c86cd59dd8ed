// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

// A Choice is what Pick considers: explain and /clusters print it.
type Choice struct {
	Policy     Policy
	Priorities []PriorityChoice
	Picked     *Host // by the same code as Pick, for the request given; nil: none
}

// A PriorityChoice is one priority's standing.
type PriorityChoice struct {
	Load, DegradedLoad       uint32 // percent of requests
	Total, Healthy, Degraded int
	Panic                    bool
	Hosts                    []*Host
	Ejected                  []*Host
}

// Explain lists what a Pick for r would weigh, and one pick.
func (c *Cluster) Explain(r *Request) Choice {
	choice := Choice{Policy: c.spec.Policy}
	set := c.balance.Load()
	for i := range set.priorities {
		p := &set.priorities[i]
		pc := PriorityChoice{
			Load: p.load, DegradedLoad: p.degradedLoad, Panic: p.panic,
			Total: p.total, Healthy: p.healthyCount, Degraded: p.degradedCount,
			Hosts: append(append([]*Host(nil), p.healthy.hosts...), p.degraded.hosts...),
		}
		choice.Priorities = append(choice.Priorities, pc)
	}
	for _, h := range set.hosts {
		if h.Ejected() && len(choice.Priorities) > 0 {
			choice.Priorities[0].Ejected = append(choice.Priorities[0].Ejected, h)
		}
	}
	choice.Picked, _ = c.Pick(r)
	return choice
}
