// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// The order of authorization: AUDIT never denies, DENY wins over ALLOW.
var rbacOrder = []struct {
	action intent.Action
	envoy  rbacv3.RBAC_Action
}{{intent.Audit, rbacv3.RBAC_LOG}, {intent.Deny, rbacv3.RBAC_DENY}, {intent.Allow, rbacv3.RBAC_ALLOW}}

// httpRBAC is the filters that authorize requests to the workload, in order.
func (b *Backend) httpRBAC(c *derive.Context, cl Client) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, o := range rbacOrder {
		rules, shadow := b.rules(c, cl, o.action, o.envoy, true)
		if rules == nil && shadow == nil {
			continue
		}
		out = append(out, httpFilter(nameRBAC, &httprbacv3.RBAC{Rules: rules, ShadowRules: shadow, ShadowRulesStatPrefix: shadowPrefix(o.action, shadow)}))
	}
	return out
}

// networkRBAC is the same for connections.
func (b *Backend) networkRBAC(c *derive.Context, cl Client) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	for _, o := range rbacOrder {
		rules, shadow := b.rules(c, cl, o.action, o.envoy, false)
		if rules == nil && shadow == nil {
			continue
		}
		out = append(out, networkFilter("envoy.filters.network.rbac", &netrbacv3.RBAC{
			StatPrefix: "tcp.", Rules: rules, ShadowRules: shadow, ShadowRulesStatPrefix: shadowPrefix(o.action, shadow),
		}))
	}
	return out
}

func shadowPrefix(a intent.Action, shadow *rbacv3.RBAC) string {
	if shadow == nil {
		return ""
	}
	return "istio_dry_run_" + strings.ToLower(a.String()) + "_"
}

func (b *Backend) rules(c *derive.Context, cl Client, action intent.Action, envoy rbacv3.RBAC_Action, http bool) (rules, shadow *rbacv3.RBAC) {
	for _, p := range b.wishes.Authorization.Get(c, cl.Subject).Policies {
		if p.Action != action {
			continue
		}
		to := &rules
		if p.DryRun {
			to = &shadow
		}
		if *to == nil {
			*to = &rbacv3.RBAC{Action: envoy, Policies: make(map[string]*rbacv3.Policy)}
		}
		addPolicy((*to).Policies, p, http)
	}
	return rules, shadow
}

func addPolicy(to map[string]*rbacv3.Policy, p *intent.Policy, http bool) {
	name := func(i int) string {
		return fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Object.Namespace, p.Object.Name, i)
	}
	if len(p.Rules) == 0 {
		if p.Action == intent.Allow { // allows nothing: everything is denied
			to[name(0)] = &rbacv3.Policy{
				Permissions: []*rbacv3.Permission{notRule(anyPermission())},
				Principals:  []*rbacv3.Principal{notID(anyPrincipal())},
			}
		}
		return
	}
	for i := range p.Rules {
		r := ruleBuilder{namespace: p.Object.Namespace, http: http}
		if policy := r.policy(&p.Rules[i], p.Action); policy != nil {
			to[name(i)] = policy
		}
	}
	if len(to) == 0 && p.Action == intent.Allow {
		to[name(0)] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{notRule(anyPermission())},
			Principals:  []*rbacv3.Principal{notID(anyPrincipal())},
		}
	}
}

// A ruleBuilder turns one rule into permissions and principals. Conditions that
// need HTTP cannot be asked of a connection: an ALLOW rule that has one is left
// out, a DENY rule asks what is left and so denies more. Either way less is allowed.
type ruleBuilder struct {
	namespace mesh.Namespace
	http      bool
	dropped   bool
}

func (r *ruleBuilder) policy(w *intent.Rule, action intent.Action) *rbacv3.Policy {
	var whenPermissions []*rbacv3.Permission
	var whenPrincipals []*rbacv3.Principal
	for i := range w.When {
		perm, princ := r.when(&w.When[i])
		whenPermissions = append(whenPermissions, perm...)
		whenPrincipals = append(whenPrincipals, princ...)
	}
	p := &rbacv3.Policy{}
	for i := range w.To {
		p.Permissions = append(p.Permissions, andRules(append(r.operation(&w.To[i]), whenPermissions...)))
	}
	if len(w.To) == 0 {
		p.Permissions = []*rbacv3.Permission{andRules(whenPermissions)}
	}
	for i := range w.From {
		p.Principals = append(p.Principals, andIDs(append(r.peer(&w.From[i]), whenPrincipals...)))
	}
	if len(w.From) == 0 {
		p.Principals = []*rbacv3.Principal{andIDs(whenPrincipals)}
	}
	if r.dropped && action == intent.Allow {
		return nil
	}
	return p
}

// needsHTTP says whether a condition on requests may be asked here.
func (r *ruleBuilder) needsHTTP(values ...[]string) bool {
	some := false
	for _, v := range values {
		some = some || len(v) > 0
	}
	if some && !r.http {
		r.dropped = true
	}
	return some && r.http
}

func (r *ruleBuilder) operation(o *intent.Operation) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	both := func(values, not []string, make func(string) *rbacv3.Permission) {
		if len(values) > 0 {
			all = append(all, orRules(values, make))
		}
		if len(not) > 0 {
			all = append(all, notRule(orRules(not, make)))
		}
	}
	if r.needsHTTP(o.Hosts, o.NotHosts) {
		both(o.Hosts, o.NotHosts, func(v string) *rbacv3.Permission { return headerPermission(":authority", v, true) })
	}
	if r.needsHTTP(o.Methods, o.NotMethods) {
		both(o.Methods, o.NotMethods, func(v string) *rbacv3.Permission { return headerPermission(":method", v, false) })
	}
	if r.needsHTTP(o.Paths, o.NotPaths) {
		both(o.Paths, o.NotPaths, pathPermission)
	}
	both(ints(o.Ports), ints(o.NotPorts), portPermission)
	return all
}

func ints(in []int) []string {
	var out []string
	for _, n := range in {
		out = append(out, strconv.Itoa(n))
	}
	return out
}

func portPermission(v string) *rbacv3.Permission {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return notRule(anyPermission()) // the front end refuses it; nothing has such a port
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(n)}}
}

func (r *ruleBuilder) peer(p *intent.Peer) []*rbacv3.Principal {
	var all []*rbacv3.Principal
	both := func(values, not []string, make func(string) *rbacv3.Principal) {
		if len(values) > 0 {
			all = append(all, orIDs(values, make))
		}
		if len(not) > 0 {
			all = append(all, notID(orIDs(not, make)))
		}
	}
	both(p.Principals, p.NotPrincipals, principal)
	both(p.Namespaces, p.NotNamespaces, namespacePrincipal)
	both(p.ServiceAccounts, p.NotServiceAccounts, r.serviceAccount)
	both(p.TrustDomains, p.NotTrustDomains, trustDomain)
	both(p.IPBlocks, p.NotIPBlocks, directIP)
	both(p.RemoteIPBlocks, p.NotRemoteIPBlocks, remoteIP)
	if r.needsHTTP(p.RequestPrincipals, p.NotRequestPrincipals) {
		both(p.RequestPrincipals, p.NotRequestPrincipals, requestPrincipal)
	}
	return all
}

// when turns a condition into permissions or principals, by what it is about.
func (r *ruleBuilder) when(w *intent.Condition) ([]*rbacv3.Permission, []*rbacv3.Principal) {
	permissions := func(make func(string) *rbacv3.Permission) ([]*rbacv3.Permission, []*rbacv3.Principal) {
		var all []*rbacv3.Permission
		if len(w.Values) > 0 {
			all = append(all, orRules(w.Values, make))
		}
		if len(w.NotValues) > 0 {
			all = append(all, notRule(orRules(w.NotValues, make)))
		}
		return all, nil
	}
	principals := func(make func(string) *rbacv3.Principal) ([]*rbacv3.Permission, []*rbacv3.Principal) {
		var all []*rbacv3.Principal
		if len(w.Values) > 0 {
			all = append(all, orIDs(w.Values, make))
		}
		if len(w.NotValues) > 0 {
			all = append(all, notID(orIDs(w.NotValues, make)))
		}
		return nil, all
	}
	switch w.Key {
	case "destination.ip":
		return permissions(destinationIP)
	case "destination.port":
		return permissions(portPermission)
	case "connection.sni":
		return permissions(sniPermission)
	case "source.ip":
		return principals(directIP)
	case "remote.ip":
		return principals(remoteIP)
	case "source.namespace":
		return principals(namespacePrincipal)
	case "source.principal":
		return principals(principal)
	case "source.serviceAccount":
		return principals(r.serviceAccount)
	}
	if name, ok := bracketed(w.Key, "request.headers"); ok {
		if !r.needsHTTP(w.Values, w.NotValues) {
			return nil, nil
		}
		return principals(func(v string) *rbacv3.Principal { return headerPrincipal(name, v) })
	}
	// Conditions on tokens: without a token filter nothing satisfies them.
	if !r.needsHTTP(w.Values, w.NotValues) {
		return nil, nil
	}
	switch w.Key {
	case "request.auth.principal":
		return principals(requestPrincipal)
	case "request.auth.audiences":
		return principals(func(v string) *rbacv3.Principal { return claim(v, "aud") })
	case "request.auth.presenter":
		return principals(func(v string) *rbacv3.Principal { return claim(v, "azp") })
	}
	if path, ok := bracketed(w.Key, "request.auth.claims"); ok {
		return principals(func(v string) *rbacv3.Principal { return claim(v, strings.Split(path, "][")...) })
	}
	r.dropped = true // the front end refuses keys it does not know
	return nil, nil
}

// bracketed takes key[...] apart.
func bracketed(s, key string) (string, bool) {
	if !strings.HasPrefix(s, key+"[") || !strings.HasSuffix(s, "]") {
		return "", false
	}
	return s[len(key)+1 : len(s)-1], true
}

func anyPermission() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

func anyPrincipal() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func andRules(all []*rbacv3.Permission) *rbacv3.Permission {
	if len(all) == 0 {
		return anyPermission()
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func andIDs(all []*rbacv3.Principal) *rbacv3.Principal {
	if len(all) == 0 {
		return anyPrincipal()
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: all}}}
}

func orRules(values []string, make func(string) *rbacv3.Permission) *rbacv3.Permission {
	set := &rbacv3.Permission_Set{}
	for _, v := range values {
		set.Rules = append(set.Rules, make(v))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: set}}
}

func orIDs(values []string, make func(string) *rbacv3.Principal) *rbacv3.Principal {
	set := &rbacv3.Principal_Set{}
	for _, v := range values {
		set.Ids = append(set.Ids, make(v))
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: set}}
}

func notRule(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func notID(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}

// glob turns Istio's "exact", "prefix*", "*suffix" and "*" into a matcher.
func glob(v string, ignoreCase bool) *matcherv3.StringMatcher {
	m := &matcherv3.StringMatcher{IgnoreCase: ignoreCase}
	switch {
	case v == "*":
		m.IgnoreCase = false
		m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ".+"}}
	case strings.HasPrefix(v, "*"):
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: v[1:]}
	case strings.HasSuffix(v, "*"):
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: v[:len(v)-1]}
	default:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: v}
	}
	return m
}

func header(name, v string, ignoreCase bool) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: name}
	if v == "*" {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return h
	}
	h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: glob(v, ignoreCase)}
	return h
}

func headerPermission(name, v string, ignoreCase bool) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: header(name, v, ignoreCase)}}
}

func headerPrincipal(name, v string) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: header(name, v, false)}}
}

func pathPermission(v string) *rbacv3.Permission {
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		template := strings.NewReplacer("{**}", "**", "{*}", "*").Replace(v)
		return &rbacv3.Permission{Rule: &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{
			Name: "uri-template", TypedConfig: pack(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: template}),
		}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: glob(v, false)}}}}
}

func sniPermission(v string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: glob(v, false)}}
}

func destinationIP(v string) *rbacv3.Permission {
	r, ok := cidr(v)
	if !ok {
		return notRule(anyPermission())
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: r}}
}

func directIP(v string) *rbacv3.Principal {
	r, ok := cidr(v)
	if !ok {
		return notID(anyPrincipal())
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: r}}
}

func remoteIP(v string) *rbacv3.Principal {
	r, ok := cidr(v)
	if !ok {
		return notID(anyPrincipal())
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: r}}
}

// cidr reads an address or a prefix; the front end refuses anything else.
func cidr(v string) (*corev3.CidrRange, bool) {
	if a, err := netip.ParseAddr(v); err == nil {
		return &corev3.CidrRange{AddressPrefix: a.String(), PrefixLen: wrapperspb.UInt32(uint32(a.BitLen()))}, true
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return nil, false
	}
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}, true
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m}}}
}

func authenticatedRegex(pattern string) *rbacv3.Principal {
	return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern}}})
}

func principal(v string) *rbacv3.Principal {
	switch {
	case v == "*":
		return authenticatedRegex(".+")
	case strings.HasPrefix(v, "*"):
		return authenticatedRegex("spiffe://.*" + regexp.QuoteMeta(v[1:]))
	}
	return authenticated(glob("spiffe://"+v, false))
}

func namespacePrincipal(v string) *rbacv3.Principal {
	return authenticatedRegex(".*/ns/" + strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, ".*") + "/.*")
}

// serviceAccount reads "account" of the policy's own namespace, or "ns/account".
func (r *ruleBuilder) serviceAccount(v string) *rbacv3.Principal {
	ns, sa, ok := strings.Cut(v, "/")
	if !ok {
		ns, sa = string(r.namespace), v
	}
	return authenticatedRegex("spiffe://.+/ns/" + regexp.QuoteMeta(ns) + "/(.+/|)sa/" + regexp.QuoteMeta(sa) + "(/.+)?")
}

func trustDomain(v string) *rbacv3.Principal {
	if v == "*" {
		return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://"}})
	}
	if strings.Contains(v, "*") {
		return authenticatedRegex("spiffe://" + strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, "[^/]*") + "/.*")
	}
	return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + v + "/"}})
}

func requestPrincipal(v string) *rbacv3.Principal {
	if v == "*" {
		return andIDs([]*rbacv3.Principal{claim("*", "iss"), claim("*", "sub")})
	}
	i := strings.LastIndexByte(v, '/')
	if i < 0 {
		return claim(v, "iss")
	}
	return andIDs([]*rbacv3.Principal{claim(v[:i], "iss"), claim(v[i+1:], "sub")})
}

// claim compares a claim of a verified token with v, or with one of its values.
func claim(v string, path ...string) *rbacv3.Principal {
	segments := []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "payload"}}}
	for _, p := range path {
		segments = append(segments, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p}})
	}
	text := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: glob(v, false)}}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Metadata{Metadata: &matcherv3.MetadataMatcher{
		Filter: "envoy.filters.http.jwt_authn", Path: segments,
		Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: []*matcherv3.ValueMatcher{
			text,
			{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: text}}}},
		}}}},
	}}}
}
