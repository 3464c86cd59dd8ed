// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// A builder turns one rule into permissions and principals.
type builder struct {
	namespace mesh.Namespace
	http      bool
	trust     Trust
	dropped   bool // a condition could not be asked
}

// policy is one rule; nil for one that must not allow anything here.
func (b *builder) policy(w *intent.Rule, action intent.Action) *rbacv3.Policy {
	var whenPermissions []*rbacv3.Permission
	var whenPrincipals []*rbacv3.Principal
	for i := range w.When {
		permissions, principals := b.when(&w.When[i])
		whenPermissions = append(whenPermissions, permissions...)
		whenPrincipals = append(whenPrincipals, principals...)
	}
	p := &rbacv3.Policy{}
	for i := range w.To {
		p.Permissions = append(p.Permissions, andRules(append(b.operation(&w.To[i]), whenPermissions...)))
	}
	if len(w.To) == 0 {
		p.Permissions = []*rbacv3.Permission{andRules(whenPermissions)}
	}
	for i := range w.From {
		p.Principals = append(p.Principals, andIDs(append(b.peer(&w.From[i]), whenPrincipals...)))
	}
	if len(w.From) == 0 {
		p.Principals = []*rbacv3.Principal{andIDs(whenPrincipals)}
	}
	if b.dropped && action == intent.Allow {
		return nil
	}
	return p
}

// needsHTTP says whether a condition on requests, if there is one, may be asked here.
func (b *builder) needsHTTP(values ...[]string) bool {
	some := false
	for _, v := range values {
		some = some || len(v) > 0
	}
	if some && !b.http {
		b.dropped = true
	}
	return some && b.http
}

func (b *builder) operation(o *intent.Operation) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	if b.needsHTTP(o.Hosts, o.NotHosts) {
		all = append(all, permissions(o.Hosts, o.NotHosts, func(v string) *rbacv3.Permission { return headerPermission(":authority", v, true) })...)
	}
	if b.needsHTTP(o.Methods, o.NotMethods) {
		all = append(all, permissions(o.Methods, o.NotMethods, func(v string) *rbacv3.Permission { return headerPermission(":method", v, false) })...)
	}
	if b.needsHTTP(o.Paths, o.NotPaths) {
		all = append(all, permissions(o.Paths, o.NotPaths, pathPermission)...)
	}
	return append(all, permissions(texts(o.Ports), texts(o.NotPorts), portPermission)...)
}

func texts(numbers []int) []string {
	var out []string
	for _, n := range numbers {
		out = append(out, strconv.Itoa(n))
	}
	return out
}

func (b *builder) peer(p *intent.Peer) []*rbacv3.Principal {
	var all []*rbacv3.Principal
	add := func(values, not []string, each func(string) *rbacv3.Principal) {
		all = append(all, principals(values, not, each)...)
	}
	add(p.Principals, p.NotPrincipals, b.trust.principal)
	add(p.Namespaces, p.NotNamespaces, namespacePrincipal)
	add(p.ServiceAccounts, p.NotServiceAccounts, b.serviceAccount)
	add(p.TrustDomains, p.NotTrustDomains, trustDomain)
	add(p.IPBlocks, p.NotIPBlocks, directIP)
	add(p.RemoteIPBlocks, p.NotRemoteIPBlocks, remoteIP)
	if b.needsHTTP(p.RequestPrincipals, p.NotRequestPrincipals) {
		add(p.RequestPrincipals, p.NotRequestPrincipals, requestPrincipal)
	}
	return all
}

// when turns a condition into permissions or principals, by what it is about.
func (b *builder) when(w *intent.Condition) ([]*rbacv3.Permission, []*rbacv3.Principal) {
	who := func(each func(string) *rbacv3.Principal) ([]*rbacv3.Permission, []*rbacv3.Principal) {
		return nil, principals(w.Values, w.NotValues, each)
	}
	what := func(each func(string) *rbacv3.Permission) ([]*rbacv3.Permission, []*rbacv3.Principal) {
		return permissions(w.Values, w.NotValues, each), nil
	}
	switch w.Key {
	case "destination.ip":
		return what(destinationIP)
	case "destination.port":
		return what(portPermission)
	case "connection.sni":
		return what(sniPermission)
	case "source.ip":
		return who(directIP)
	case "remote.ip":
		return who(remoteIP)
	case "source.namespace":
		return who(namespacePrincipal)
	case "source.principal":
		return who(b.trust.principal)
	case "source.serviceAccount":
		return who(b.serviceAccount)
	case "source.trustDomain":
		return who(trustDomain)
	}
	if !b.needsHTTP(w.Values, w.NotValues) {
		return nil, nil
	}
	if name, ok := bracketed(w.Key, "request.headers"); ok {
		return who(func(v string) *rbacv3.Principal { return headerPrincipal(name, v) })
	}
	// Conditions on tokens: without a filter that verifies them nothing satisfies these.
	switch w.Key {
	case "request.auth.principal":
		return who(requestPrincipal)
	case "request.auth.audiences":
		return who(func(v string) *rbacv3.Principal { return claim(v, "aud") })
	case "request.auth.presenter":
		return who(func(v string) *rbacv3.Principal { return claim(v, "azp") })
	}
	if path, ok := bracketed(w.Key, "request.auth.claims"); ok {
		return who(func(v string) *rbacv3.Principal { return claim(v, strings.Split(path, "][")...) })
	}
	b.dropped = true // the front end refuses keys it does not know
	return nil, nil
}

// bracketed takes key[...] apart.
func bracketed(s, key string) (string, bool) {
	if !strings.HasPrefix(s, key+"[") || !strings.HasSuffix(s, "]") {
		return "", false
	}
	return s[len(key)+1 : len(s)-1], true
}

// permissions asks for any of values, and none of not.
func permissions(values, not []string, each func(string) *rbacv3.Permission) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	if len(values) > 0 {
		all = append(all, orRules(values, each))
	}
	if len(not) > 0 {
		all = append(all, notRule(orRules(not, each)))
	}
	return all
}

func principals(values, not []string, each func(string) *rbacv3.Principal) []*rbacv3.Principal {
	var all []*rbacv3.Principal
	if len(values) > 0 {
		all = append(all, orIDs(values, each))
	}
	if len(not) > 0 {
		all = append(all, notID(orIDs(not, each)))
	}
	return all
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

func orRules(values []string, each func(string) *rbacv3.Permission) *rbacv3.Permission {
	set := &rbacv3.Permission_Set{}
	for _, v := range values {
		set.Rules = append(set.Rules, each(v))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: set}}
}

func orIDs(values []string, each func(string) *rbacv3.Principal) *rbacv3.Principal {
	set := &rbacv3.Principal_Set{}
	for _, v := range values {
		set.Ids = append(set.Ids, each(v))
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: set}}
}

func notRule(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func notID(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}
