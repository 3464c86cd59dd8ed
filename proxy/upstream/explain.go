// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import "github.com/meltemi/meltemi/proxy/upstream/balance"

// A Choice is what Pick considers: explain and /clusters print it.
type Choice struct {
	Policy     balance.Policy
	Priorities []PriorityChoice
	Picked     *Host // by the same code as Pick, for the request given; nil: none
}

// A PriorityChoice is one priority's standing.
type PriorityChoice struct {
	balance.Standing
	Hosts   []*Host // Members
	Ejected []*Host
}

// Explain lists what a Pick for r would weigh, and one pick.
func (c *Cluster) Explain(r *Request) Choice {
	choice := Choice{Policy: c.spec.Balance.Policy}
	set := c.balance.Load()
	for _, p := range set.set.Standings() {
		pc := PriorityChoice{Standing: p}
		for _, id := range p.Members {
			pc.Hosts = append(pc.Hosts, set.hosts[id])
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
