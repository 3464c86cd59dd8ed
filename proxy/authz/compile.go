// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Layer is what rules are asked about.
type Layer uint8

// The layers.
const (
	HTTP    Layer = iota // requests
	Network              // connections: nothing that only a request has may be asked
)

// Limits on what one Config may hold, so that one object cannot make the proxy
// slow or exhaust its stack.
const (
	maxDepth = 64
	maxRules = 100000
)

// Rules is a compiled Config; immutable.
type Rules struct {
	action   Action
	policies []policy // by name, which is the order of evaluation
}

type policy struct {
	Policy
	details string
}

const (
	detailsPrefix = "rbac_access_denied_matched_policy["
	detailsNone   = detailsPrefix + "none]"
)

// Compile checks cfg and prepares it. It keeps what cfg points to.
//
// A rule that could never be evaluated on this layer is an error and not a rule
// that never matches: in a DENY policy it would let pass what it should stop.
func Compile(cfg *Config, layer Layer) (*Rules, error) {
	r := &Rules{action: cfg.Action, policies: make([]policy, 0, len(cfg.Policies))}
	if cfg.Action > Log {
		return nil, fmt.Errorf("action %d is not known", cfg.Action)
	}
	c := checker{layer: layer}
	for _, p := range cfg.Policies {
		if len(p.Permissions) == 0 || len(p.Principals) == 0 {
			return nil, fmt.Errorf("policy %q: permissions and principals must not be empty", p.Name)
		}
		for _, half := range [...]struct {
			name  string
			rules []Rule
		}{{"permissions", p.Permissions}, {"principals", p.Principals}} {
			if err := c.rules(half.rules, 0); err != nil {
				return nil, fmt.Errorf("policy %q: %s: %w", p.Name, half.name, err)
			}
		}
		r.policies = append(r.policies, policy{p, details(p.Name)})
	}
	slices.SortStableFunc(r.policies, func(a, b policy) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(r.policies); i++ {
		if r.policies[i].Name == r.policies[i-1].Name {
			return nil, fmt.Errorf("policy %q is there twice", r.policies[i].Name)
		}
	}
	return r, nil
}

// details has no white space, because a log line is split by it.
func details(name string) string {
	return detailsPrefix + strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, name) + "]"
}

type checker struct {
	layer Layer
	count int
}

func (c *checker) rules(rules []Rule, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("rules are nested more than %d deep", maxDepth)
	}
	for i := range rules {
		if err := c.rule(&rules[i], depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) rule(r *Rule, depth int) error {
	if c.count++; c.count > maxRules {
		return fmt.Errorf("more than %d conditions", maxRules)
	}
	switch r.Op {
	case Any, DestinationIP, DestinationPort, ServerName, Metadata, Authenticated, DirectRemoteIP, RemoteIP:
		return nil
	case And, Or:
		if len(r.Of) == 0 {
			return fmt.Errorf("%s has no conditions", r.Op)
		}
		return c.rules(r.Of, depth+1)
	case Not:
		if len(r.Of) != 1 {
			return fmt.Errorf("not has %d conditions, want 1", len(r.Of))
		}
		return c.rules(r.Of, depth+1)
	case Header, Path, Template:
		if c.layer == Network {
			return fmt.Errorf("%s can only be asked of HTTP requests", r.Op)
		}
		if r.Op == Template && r.Template == nil {
			return fmt.Errorf("template is missing")
		}
		return nil
	}
	return fmt.Errorf("condition %d is not known", r.Op)
}

var opNames = [...]string{
	"any", "and", "or", "not", "header", "path", "path template", "destination ip", "destination port",
	"server name", "metadata", "authenticated", "direct remote ip", "remote ip",
}

func (o Op) String() string { return opNames[o] }

// Action returns what a match means.
func (r *Rules) Action() Action { return r.action }

// Policies returns the number of policies.
func (r *Rules) Policies() int { return len(r.policies) }
