// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"fmt"
	"strings"
)

// An Explanation is a verdict with all that was considered for it.
type Explanation struct {
	Verdict
	Action   Action
	Policies []Considered // in the order of evaluation; those after a match are not asked
}

// Considered is one policy and what became of it.
type Considered struct {
	Policy, Source string
	Matched        bool
	Why            string
}

// Explain decides as Check does and says why.
func (r *Rules) Explain(f *Facts) Explanation {
	e := Explanation{Verdict: r.Check(f)}
	if r == nil {
		return e
	}
	e.Action = r.action
	for i := range r.policies {
		p := &r.policies[i]
		c := Considered{Policy: p.Name, Source: p.Source}
		switch {
		case !matches(p.Permissions, f, r.reading()):
			c.Why = "no permission matches: " + describe(p.Permissions, "or")
		case !matches(p.Principals, f, r.reading()):
			c.Why = "no principal matches: " + describe(p.Principals, "or")
			if !f.Verified {
				c.Why += " (the client showed no verified certificate)"
			}
		default:
			c.Matched, c.Why = true, "matches"
		}
		e.Policies = append(e.Policies, c)
		if c.Matched {
			break
		}
	}
	return e
}

// String tells the verdict in a few lines.
func (e *Explanation) String() string {
	var b strings.Builder
	verdict := "denied"
	if e.Allowed {
		verdict = "allowed"
	}
	policy := "no policy matches"
	if e.Policy != "" {
		policy = "policy " + e.Policy + " matches"
	}
	fmt.Fprintf(&b, "%s: %s (%s)\n", verdict, policy, e.Action)
	for _, c := range e.Policies {
		fmt.Fprintf(&b, "  %s: %s", c.Policy, c.Why)
		if c.Source != "" {
			fmt.Fprintf(&b, " [%s]", c.Source)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func describe(rules []Rule, word string) string {
	parts := make([]string, len(rules))
	for i := range rules {
		parts[i] = rules[i].String()
	}
	return strings.Join(parts, " "+word+" ")
}

// String describes the rule.
func (r *Rule) String() string {
	switch r.Op {
	case And, Or:
		if len(r.Of) == 1 {
			return r.Of[0].String()
		}
		return "(" + describe(r.Of, r.Op.String()) + ")"
	case Not:
		return "not " + describe(r.Of, "or")
	case Header:
		return r.Header.String()
	case Path, ServerName, Authenticated:
		return r.Op.String() + " " + r.Text.String()
	case Template:
		return "path template " + r.Template.String()
	case DestinationIP, DirectRemoteIP, RemoteIP:
		return r.Op.String() + " in " + r.Prefixes.String()
	case DestinationPort:
		return "destination " + r.Ports.String()
	case Metadata:
		return r.Metadata.String()
	}
	return r.Op.String()
}
