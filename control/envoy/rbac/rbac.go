// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package rbac turns authorization policies into Envoy's RBAC filters.
//
//	rbac.go      HTTP, Network: the filters, in the order in which they decide
//	rule.go      one rule: which callers, which requests
//	matchers.go  the values that rules compare
//
// What cannot be asked never lets anybody through: over plain connections an ALLOW rule that
// looks at requests is left out, and a DENY rule forgets that it looks at requests, so that it denies more.
package rbac

import (
	"fmt"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// order is in which actions are asked: AUDIT never denies, DENY wins over ALLOW.
var order = []struct {
	action intent.Action
	envoy  rbacv3.RBAC_Action
}{{intent.Audit, rbacv3.RBAC_LOG}, {intent.Deny, rbacv3.RBAC_DENY}, {intent.Allow, rbacv3.RBAC_ALLOW}}

// Trust is the mesh's trust domain with its aliases: a principal of one of them is meant in all.
type Trust struct {
	Domain  mesh.TrustDomain
	Aliases []mesh.TrustDomain
}

// all lists the domains, each once.
func (t Trust) all() []string {
	out := []string{string(t.Domain)}
	for _, a := range t.Aliases {
		if !slices.Contains(out, string(a)) {
			out = append(out, string(a))
		}
	}
	return out
}

// HTTP is the filters that authorize requests.
func HTTP(policies []*intent.Policy, trust Trust) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, o := range order {
		if rules, shadow := rulesOf(policies, o.action, o.envoy, trust, true); rules != nil || shadow != nil {
			out = append(out, filter.HTTPFilter(filter.NameRBAC, &httprbacv3.RBAC{
				Rules: rules, ShadowRules: shadow, ShadowRulesStatPrefix: shadowPrefix(o.action, shadow),
			}))
		}
	}
	return out
}

// Network is the filters that authorize connections.
func Network(policies []*intent.Policy, trust Trust) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	for _, o := range order {
		if rules, shadow := rulesOf(policies, o.action, o.envoy, trust, false); rules != nil || shadow != nil {
			out = append(out, filter.Network("envoy.filters.network.rbac", &netrbacv3.RBAC{
				StatPrefix: "tcp.", Rules: rules, ShadowRules: shadow, ShadowRulesStatPrefix: shadowPrefix(o.action, shadow),
			}))
		}
	}
	return out
}

func shadowPrefix(a intent.Action, shadow *rbacv3.RBAC) string {
	if shadow == nil {
		return ""
	}
	return "istio_dry_run_" + strings.ToLower(a.String()) + "_"
}

// rulesOf are the rules of one action: those in force, and those that only say what they would do.
func rulesOf(policies []*intent.Policy, action intent.Action, envoy rbacv3.RBAC_Action, trust Trust, http bool) (rules, shadow *rbacv3.RBAC) {
	for _, p := range policies {
		act := p.Action
		if act == intent.Custom { // nobody can be asked; to let through what they might refuse is no answer
			act = intent.Deny
		}
		if act != action {
			continue
		}
		to := &rules
		if p.DryRun {
			to = &shadow
		}
		if *to == nil {
			*to = &rbacv3.RBAC{Action: envoy, Policies: make(map[string]*rbacv3.Policy)}
		}
		addPolicy((*to).Policies, p, act, trust, http)
	}
	return rules, shadow
}

// addPolicy adds the rules of p under the names by which logs and metrics call them.
func addPolicy(to map[string]*rbacv3.Policy, p *intent.Policy, action intent.Action, trust Trust, http bool) {
	name := func(i int) string {
		return fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Object.Namespace, p.Object.Name, i)
	}
	added := false
	for i := range p.Rules {
		b := builder{namespace: p.Object.Namespace, http: http, trust: trust}
		if policy := b.policy(&p.Rules[i], action); policy != nil {
			to[name(i)] = policy
			added = true
		}
	}
	if !added && action == intent.Allow { // it allows nothing, which must be said: everything else is denied then
		to[name(0)] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{notRule(anyPermission())},
			Principals:  []*rbacv3.Principal{notID(anyPrincipal())},
		}
	}
}
