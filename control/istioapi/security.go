// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	security "istio.io/api/security/v1beta1"
)

type (
	peerObject   = *source.Object[*source.PeerAuthentication]
	policyObject = *source.Object[*source.AuthorizationPolicy]
)

var mtlsModes = map[security.PeerAuthentication_MutualTLS_Mode]intent.MTLSMode{
	security.PeerAuthentication_MutualTLS_UNSET:      intent.MTLSUnset,
	security.PeerAuthentication_MutualTLS_DISABLE:    intent.MTLSDisable,
	security.PeerAuthentication_MutualTLS_PERMISSIVE: intent.MTLSPermissive,
	security.PeerAuthentication_MutualTLS_STRICT:     intent.MTLSStrict,
}

// peer compiles a PeerAuthentication.
func (p compiler) peer(k source.Key, o peerObject) *intent.PeerRule {
	r := &intent.PeerRule{
		Object: k, Selector: o.Spec.GetSelector().GetMatchLabels(), Mode: mtlsModes[o.Spec.GetMtls().GetMode()],
	}
	for port, m := range o.Spec.PortLevelMtls {
		r.Ports = append(r.Ports, intent.PortMode{Port: int(port), Mode: mtlsModes[m.GetMode()]})
	}
	slices.SortFunc(r.Ports, func(a, b intent.PortMode) int { return cmp.Compare(a.Port, b.Port) })
	return r
}

// policy compiles an AuthorizationPolicy. CUSTOM becomes DENY: no provider can be asked yet, and
// letting through what it would have refused is not an answer.
func (p compiler) policy(k source.Key, o policyObject) *intent.Policy {
	s := o.Spec
	origin := source.Origin{Object: k, Field: "spec"}
	out := &intent.Policy{
		Object: k, Selector: s.GetSelector().GetMatchLabels(), Provider: s.GetProvider().GetName(),
		DryRun: o.Annotations[mesh.AnnotationDryRun] == "true",
		Action: map[security.AuthorizationPolicy_Action]intent.Action{
			security.AuthorizationPolicy_ALLOW:  intent.Allow,
			security.AuthorizationPolicy_DENY:   intent.Deny,
			security.AuthorizationPolicy_AUDIT:  intent.Audit,
			security.AuthorizationPolicy_CUSTOM: intent.Deny,
		}[s.Action],
	}
	for i, r := range s.Rules {
		rule := intent.Rule{Origin: origin.At("rules", i)}
		for j, f := range r.GetFrom() {
			rule.From = append(rule.From, peerOf(rule.Origin.At("from", j), k.Namespace, f.Source))
		}
		for j, t := range r.GetTo() {
			rule.To = append(rule.To, operation(rule.Origin.At("to", j), t.Operation))
		}
		for j, w := range r.GetWhen() {
			rule.When = append(rule.When, condition(rule.Origin.At("when", j), k.Namespace, w))
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

func peerOf(origin source.Origin, ns mesh.Namespace, s *security.Source) intent.Peer {
	return intent.Peer{
		Origin:     origin,
		Principals: s.Principals, NotPrincipals: s.NotPrincipals,
		RequestPrincipals: s.RequestPrincipals, NotRequestPrincipals: s.NotRequestPrincipals,
		Namespaces: s.Namespaces, NotNamespaces: s.NotNamespaces,
		ServiceAccounts: accounts(ns, s.ServiceAccounts), NotServiceAccounts: accounts(ns, s.NotServiceAccounts),
		IPBlocks: s.IpBlocks, NotIPBlocks: s.NotIpBlocks, RemoteIPBlocks: s.RemoteIpBlocks, NotRemoteIPBlocks: s.NotRemoteIpBlocks,
		TrustDomains: s.TrustDomains, NotTrustDomains: s.NotTrustDomains,
	}
}

// accounts completes service accounts with the policy's namespace.
func accounts(ns mesh.Namespace, list []string) []string {
	var all []string
	for _, a := range list {
		if !strings.Contains(a, "/") {
			a = string(ns) + "/" + a
		}
		all = append(all, a)
	}
	return all
}

func operation(origin source.Origin, o *security.Operation) intent.Operation {
	return intent.Operation{
		Origin: origin, Hosts: o.Hosts, NotHosts: o.NotHosts, Ports: numbers(o.Ports), NotPorts: numbers(o.NotPorts),
		Methods: o.Methods, NotMethods: o.NotMethods, Paths: o.Paths, NotPaths: o.NotPaths,
	}
}

func numbers(list []string) []int {
	var all []int
	for _, s := range list {
		if n, err := strconv.Atoi(s); err == nil {
			all = append(all, n)
		}
	}
	return all
}

func condition(origin source.Origin, ns mesh.Namespace, w *security.Condition) intent.Condition {
	out := intent.Condition{Origin: origin, Key: w.Key, Values: w.Values, NotValues: w.NotValues}
	if w.Key == "source.serviceAccount" {
		out.Values, out.NotValues = accounts(ns, w.Values), accounts(ns, w.NotValues)
	}
	return out
}
