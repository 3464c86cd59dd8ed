// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	security "istio.io/api/security/v1beta1"
)

// peer checks a PeerAuthentication.
func (c *checker) peer(o *source.Object[*source.PeerAuthentication], root mesh.Namespace) {
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

// policy checks an AuthorizationPolicy.
func (c *checker) policy(o *source.Object[*source.AuthorizationPolicy]) {
	s := o.Spec
	c.selector("spec.selector.matchLabels", s.GetSelector().GetMatchLabels())
	c.refuse("spec", map[string]bool{"targetRef": s.TargetRef != nil, "targetRefs": len(s.TargetRefs) > 0})
	custom := s.Action == security.AuthorizationPolicy_CUSTOM
	switch {
	case custom && s.GetProvider().GetName() == "":
		c.errorf("spec.provider.name", "action CUSTOM needs a provider")
	case custom:
		c.partf("spec.action", "CUSTOM is not supported yet: requests about which provider %q would be asked are denied", s.GetProvider().GetName())
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
	c.partf(field, "no request has a verified token, because RequestAuthentication is not supported yet")
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
		c.errorf(path+".key", "%q: conditions on metadata of Envoy's filters are not supported yet", key)
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
