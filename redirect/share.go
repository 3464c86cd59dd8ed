// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package redirect

import "net/netip"

const (
	priorityFilter    = 0
	prioritySourceNAT = 100
)

// Share returns rules for the machine's own namespace, in a table of that name: what lies in subnet behind link may
// reach what the machine reaches, under the machine's address; nobody else may begin a connection to it.
// They do their work only while the machine forwards packets between the interfaces.
func Share(table, link string, subnet netip.Prefix) Rules {
	outward := Match{Field: OutInterface, Not: true, Name: link}
	inward := Match{Field: OutInterface, Name: link}
	fromElsewhere := Match{Field: InInterface, Not: true, Name: link}
	return Rules{Table: table, Chains: []Chain{
		{Name: "forward", Type: "filter", Hook: Forward, Priority: priorityFilter, Rules: []Rule{
			{Match: []Match{fromElsewhere, inward, {Field: New}}, Verdict: Drop, Why: "the mesh is not for others to enter"},
		}},
		{Name: "postrouting", Type: "nat", Hook: Postrouting, Priority: prioritySourceNAT, Rules: []Rule{
			{Match: []Match{outward, prefix(Source, subnet)}, Verdict: Masquerade, Why: "workloads reach the world"},
		}},
	}}
}
