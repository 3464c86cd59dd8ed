// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/route"
)

// filters explains what the chain's filters do with an exchange. It reports false
// if one of them ends it.
func (a *Answer) filters(c *filter.Chain, settings []filter.Setting, x *filter.Exchange) (goesOn bool) {
	goesOn = true
	c.Each(settings, func(e *filter.Entry, setting any) {
		if !goesOn {
			return
		}
		switch f := e.Filter.(type) {
		case *stock.RBAC:
			p := f.Policy()
			if s, ok := setting.(*stock.RBACPolicy); ok {
				p = s
			}
			goesOn = a.rbac(p.Rules, p.Shadow, &x.Facts)
		case *stock.Fault:
			in := f.Injection()
			if s, ok := setting.(*stock.Injection); ok {
				in = s
			}
			goesOn = a.inject(in, x)
		}
	})
	return goesOn
}

// mayConnect explains the policies for connections.
func (a *Answer) mayConnect(chain *config.FilterChain, conn *filter.Conn) bool {
	facts := authz.Facts{
		Verified: conn.Mutual, URISANs: conn.Peer.URISANs, DNSSANs: conn.Peer.DNSSANs, Subject: conn.Peer.Subject,
		DirectRemote: conn.DirectRemote.Addr(), Remote: conn.Remote.Addr(), Local: conn.Local, SNI: conn.SNI,
	}
	for i := range chain.Network {
		if r := chain.Network[i].RBAC; r != nil && !a.rbac(r.Rules, r.Shadow, &facts) {
			a.Status = 0 // the connection is closed
			a.Summary = string(StagePolicy) + ": " + a.Steps[len(a.Steps)-1].Says
			return false
		}
	}
	return true
}

// rbac explains a verdict. It reports false for a denial.
func (a *Answer) rbac(rules, shadow *authz.Rules, facts *authz.Facts) bool {
	if shadow != nil {
		s := verdict(shadow, facts)
		s.Says = "dry run, not enforced: " + s.Says
		s.Fatal = false
		a.add(s)
	}
	if rules == nil {
		return true
	}
	s := verdict(rules, facts)
	if s.Fatal {
		a.fail(403, s)
		return false
	}
	a.add(s)
	return true
}

func verdict(rules *authz.Rules, facts *authz.Facts) Step {
	e := rules.Explain(facts)
	s := Step{Stage: StagePolicy, Name: e.Policy, Fatal: !e.Allowed}
	for _, c := range e.Policies {
		from := policyOrigins(c.Policy, c.Source)
		why := c.Why
		if c.Matched {
			s.From, why = from, "matches"
		}
		s.Considered = append(s.Considered, Considered{Name: e.Action.String() + " " + c.Policy, Chosen: c.Matched, Why: why, From: from})
	}
	switch {
	case e.Action == authz.Log:
		s.Says = "nothing to log"
		if e.Policy != "" {
			s.Says = "logged"
		}
	case e.Policy != "" && e.Allowed:
		s.Says = "allowed by " + e.Policy
	case e.Policy != "":
		s.Says = "denied by " + e.Policy
	case e.Allowed:
		s.Says = "no " + e.Action.String() + " policy matches"
	default:
		s.Says = "denied: there are " + e.Action.String() + " policies and none matches"
		for _, c := range s.Considered {
			s.From = append(s.From, c.From...)
		}
	}
	return s
}

// inject explains fault injection. It reports false if the request is aborted.
func (a *Answer) inject(in *stock.Injection, x *filter.Exchange) bool {
	if in == nil {
		return true
	}
	s := Step{Stage: StageFault}
	for _, step := range a.Steps {
		if step.Stage == StageRoute { // the route says what to inject
			s.Name, s.From = step.Name, step.From
		}
	}
	if in.Delay > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("a delay of %s for %s", in.Delay, share(in.DelayShare)))
	}
	if in.Abort {
		answer := fmt.Sprintf("status %d", in.Status)
		if in.GRPC >= 0 {
			answer = fmt.Sprintf("gRPC status %d", in.GRPC)
		}
		s.Notes = append(s.Notes, fmt.Sprintf("%s for %s", answer, share(in.AbortShare)))
	}
	delay, abort := in.Plan(x)
	switch {
	case abort && in.GRPC >= 0:
		s.Says = fmt.Sprintf("aborted with gRPC status %d", in.GRPC)
		a.fail(200, s)
		return false
	case abort:
		s.Says = fmt.Sprintf("aborted with %d", in.Status)
		a.fail(in.Status, s)
		return false
	case delay:
		s.Says = "delayed by " + in.Delay.String()
	default:
		s.Says = "not this time: the request is spared"
	}
	a.add(s)
	return true
}

func share(f route.Fraction) string {
	if f.Per == 0 {
		return "no requests"
	}
	if f.Of >= f.Per {
		return "all requests"
	}
	return fmt.Sprintf("%g %% of requests", 100*float64(f.Of)/float64(f.Per))
}
