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

// peer checks a PeerAuthentication.
func (c *checker) peer(o peerObject, root mesh.Namespace) {
	labels := o.Spec.GetSelector().GetMatchLabels()
	c.selector("spec.selector.matchLabels", labels)
	if len(labels) > 0 && o.Namespace == root {
		c.warnf("spec.selector", "has no effect: in the root namespace only an object without a selector counts, and this one is ignored")
	}
	if len(o.Spec.PortLevelMtls) > 0 && len(labels) == 0 {
		c.errorf("spec.portLevelMtls", "needs a selector, for ports are those of a workload")
	}
	for port, m := range o.Spec.PortLevelMtls {
		c.port(at("spec.portLevelMtls[%d]", port), port, false)
		if m == nil {
			c.errorf(at("spec.portLevelMtls[%d]", port), "says no mode")
		}
	}
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

// policy checks an AuthorizationPolicy.
func (c *checker) policy(o policyObject) {
	s := o.Spec
	c.selector("spec.selector.matchLabels", s.GetSelector().GetMatchLabels())
	const open = "is not supported yet; the policy is not in force, so nobody is kept out by it"
	if s.TargetRef != nil {
		c.errorf("spec.targetRef", open)
	}
	if len(s.TargetRefs) > 0 {
		c.errorf("spec.targetRefs", open)
	}
	custom := s.Action == security.AuthorizationPolicy_CUSTOM
	switch {
	case custom && s.GetProvider().GetName() == "":
		c.errorf("spec.provider.name", "action CUSTOM needs a provider")
	case custom:
		c.warnf("spec.action", "CUSTOM is not supported yet: requests about which provider %q would be asked are denied", s.GetProvider().GetName())
	case s.GetProvider() != nil:
		c.errorf("spec.provider", "goes with action CUSTOM only")
	}
	if s.Action == security.AuthorizationPolicy_DENY && len(s.Rules) == 0 {
		c.warnf("spec.rules", "a DENY policy without rules denies nothing")
	}
	for i, r := range s.Rules {
		c.policyRule(at("spec.rules[%d]", i), r, custom)
	}
}

func (c *checker) policyRule(path string, r *security.Rule, custom bool) {
	if r == nil {
		return
	}
	for i, f := range r.From {
		field := at("%s.from[%d].source", path, i)
		if f.GetSource() == nil {
			c.errorf(field, "is missing")
			continue
		}
		c.policySource(field, f.Source, custom)
	}
	for i, t := range r.To {
		field := at("%s.to[%d].operation", path, i)
		if t.GetOperation() == nil {
			c.errorf(field, "is missing")
			continue
		}
		c.policyOperation(field, t.Operation)
	}
	for i, w := range r.When {
		c.policyCondition(at("%s.when[%d]", path, i), w, custom)
	}
}

// values checks a list of which every item is not empty and passes each.
func (c *checker) values(field string, list []string, each func(field, v string)) int {
	for i, v := range list {
		f := at("%s[%d]", field, i)
		if v == "" {
			c.errorf(f, "is empty")
		} else if each != nil {
			each(f, v)
		}
	}
	return len(list)
}

func (c *checker) policySource(path string, s *security.Source, custom bool) {
	n := 0
	both := func(field string, yes, no []string, each func(field, v string)) {
		not := ".not" + strings.ToUpper(field[:1]) + field[1:]
		n += c.values(path+"."+field, yes, each) + c.values(path+not, no, each)
	}
	both("principals", s.Principals, s.NotPrincipals, nil)
	both("requestPrincipals", s.RequestPrincipals, s.NotRequestPrincipals, nil)
	both("namespaces", s.Namespaces, s.NotNamespaces, nil)
	both("serviceAccounts", s.ServiceAccounts, s.NotServiceAccounts, c.account)
	both("ipBlocks", s.IpBlocks, s.NotIpBlocks, c.cidr)
	both("remoteIpBlocks", s.RemoteIpBlocks, s.NotRemoteIpBlocks, c.cidr)
	both("trustDomains", s.TrustDomains, s.NotTrustDomains, nil)
	if n == 0 {
		c.errorf(path, "says nothing, and would match everybody; leave from out for that")
	}
	if len(s.ServiceAccounts)+len(s.NotServiceAccounts) > 0 &&
		len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		c.errorf(path+".serviceAccounts", "cannot stand together with principals or namespaces")
	}
	if len(s.RequestPrincipals)+len(s.NotRequestPrincipals) > 0 {
		c.tokenless(path + ".requestPrincipals")
	}
	if custom && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces)+len(s.ServiceAccounts)+len(s.NotServiceAccounts)+
		len(s.TrustDomains)+len(s.NotTrustDomains)+len(s.RequestPrincipals)+len(s.NotRequestPrincipals) > 0 {
		c.errorf(path, "action CUSTOM knows ipBlocks and remoteIpBlocks only")
	}
}

func (c *checker) tokenless(field string) {
	c.warnf(field, "no request has a verified token, because RequestAuthentication is not supported yet")
}

func (c *checker) account(field, v string) {
	ns, name, ok := strings.Cut(v, "/")
	if !ok {
		ns, name = "default", v
	}
	if !nameForm.MatchString(ns) || !nameForm.MatchString(name) {
		c.errorf(field, "%q is no service account: name or namespace/name, without wildcards", v)
	}
}

func (c *checker) policyOperation(path string, o *security.Operation) {
	n := 0
	both := func(field string, yes, no []string, each func(field, v string)) {
		not := ".not" + strings.ToUpper(field[:1]) + field[1:]
		n += c.values(path+"."+field, yes, each) + c.values(path+not, no, each)
	}
	both("hosts", o.Hosts, o.NotHosts, nil)
	both("ports", o.Ports, o.NotPorts, c.portText)
	both("methods", o.Methods, o.NotMethods, nil)
	both("paths", o.Paths, o.NotPaths, c.pathPattern)
	if n == 0 {
		c.errorf(path, "says nothing, and would match every request; leave to out for that")
	}
}

func (c *checker) portText(field, v string) {
	if p, err := strconv.Atoi(v); err != nil || p < 1 || p > 65535 {
		c.errorf(field, "%q is no port", v)
	}
}

// pathPattern checks the templates {*} and {**}: whole segments, the second one at most once.
func (c *checker) pathPattern(field, v string) {
	if !strings.ContainsAny(v, "{}") {
		return
	}
	deep := 0
	for seg := range strings.SplitSeq(v, "/") {
		switch {
		case seg == "{**}":
			deep++
		case seg == "{*}":
		case strings.ContainsAny(seg, "{}*"):
			c.errorf(field, "%q: in a template {*} and {**} stand for whole segments, and no other wildcard is known", v)
			return
		}
	}
	if deep > 1 {
		c.errorf(field, "%q: {**} may be there once", v)
	}
}

// conditionKeys are the attributes that a condition may name as they stand.
var conditionKeys = []string{
	"source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain",
	"request.auth.principal", "request.auth.audiences", "request.auth.presenter",
	"destination.ip", "destination.port", "connection.sni",
}

func (c *checker) policyCondition(path string, w *security.Condition, custom bool) {
	if w == nil {
		c.errorf(path, "the condition is empty")
		return
	}
	var each func(field, v string)
	switch key := w.Key; {
	case key == "source.ip" || key == "remote.ip" || key == "destination.ip":
		each = c.cidr
	case key == "destination.port":
		each = c.portText
	case key == "source.serviceAccount":
		each = c.account
	case strings.HasPrefix(key, "request.auth."):
		if !slices.Contains(conditionKeys, key) && !bracketed(key, "request.auth.claims") {
			c.errorf(path+".key", "%q is no attribute", key)
		}
		c.tokenless(path + ".key")
	case slices.Contains(conditionKeys, key), bracketed(key, "request.headers"):
	case strings.HasPrefix(key, "experimental.envoy.filters.") && strings.HasSuffix(key, "]"):
	default:
		c.errorf(path+".key", "%q is no attribute", key)
	}
	if c.values(path+".values", w.Values, each)+c.values(path+".notValues", w.NotValues, each) == 0 {
		c.errorf(path, "values or notValues are wanted")
	}
	if custom && (strings.HasPrefix(w.Key, "request.auth.") || slices.Contains([]string{
		"source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain",
	}, w.Key)) {
		c.errorf(path+".key", "action CUSTOM does not know %s", w.Key)
	}
}

// bracketed reports whether key is prefix[x] or prefix[x][y].
func bracketed(key, prefix string) bool {
	rest, ok := strings.CutPrefix(key, prefix+"[")
	return ok && strings.HasSuffix(rest, "]") && len(rest) > 1
}
