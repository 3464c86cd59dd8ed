// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"math"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config/strict"
)

// Rules reads RBAC rules; nil for nil. A rule that cannot be evaluated is an
// error: in a policy that denies, it would let pass what it should stop.
func Rules(m *rbacv3.RBAC, layer authz.Layer) (*authz.Rules, error) {
	if m == nil {
		return nil, nil
	}
	cfg := &authz.Config{Action: authz.Action(m.GetAction())}
	for name, p := range m.GetPolicies() {
		policy := authz.Policy{Name: name}
		var err error
		if policy.Permissions, err = each(p.GetPermissions(), permission); err != nil {
			return nil, fmt.Errorf("policies[%q].permissions%w", name, err)
		}
		if policy.Principals, err = each(p.GetPrincipals(), principal); err != nil {
			return nil, fmt.Errorf("policies[%q].principals%w", name, err)
		}
		cfg.Policies = append(cfg.Policies, policy)
	}
	return authz.Compile(cfg, layer)
}

func permission(m *rbacv3.Permission) (r authz.Rule, err error) {
	switch p := m.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return anyRule(p.Any)
	case *rbacv3.Permission_AndRules:
		r.Op = authz.And
		r.Of, err = each(p.AndRules.GetRules(), permission)
	case *rbacv3.Permission_OrRules:
		r.Op = authz.Or
		r.Of, err = each(p.OrRules.GetRules(), permission)
	case *rbacv3.Permission_NotRule:
		var of authz.Rule
		of, err = permission(p.NotRule)
		r = authz.Rule{Op: authz.Not, Of: []authz.Rule{of}}
	case *rbacv3.Permission_Header:
		r.Op = authz.Header
		r.Header, err = Header(p.Header)
	case *rbacv3.Permission_UrlPath:
		return urlPath(p.UrlPath)
	case *rbacv3.Permission_UriTemplate:
		var t uritemplatev3.UriTemplateMatchConfig
		if err = strict.Unmarshal(p.UriTemplate.GetTypedConfig(), &t); err == nil {
			r.Op = authz.Template
			r.Template, err = match.NewTemplate(t.GetPathTemplate())
		}
	case *rbacv3.Permission_DestinationIp:
		r.Op = authz.DestinationIP
		r.Prefixes, err = prefixSet(p.DestinationIp)
	case *rbacv3.Permission_DestinationPort:
		r.Op = authz.DestinationPort
		r.Ports, err = ports(int64(p.DestinationPort), int64(p.DestinationPort)+1)
	case *rbacv3.Permission_DestinationPortRange:
		r.Op = authz.DestinationPort
		r.Ports, err = ports(int64(p.DestinationPortRange.GetStart()), int64(p.DestinationPortRange.GetEnd()))
	case *rbacv3.Permission_RequestedServerName:
		r.Op = authz.ServerName
		r.Text, err = String(p.RequestedServerName)
	case *rbacv3.Permission_Metadata:
		r.Op = authz.Metadata
		r.Metadata, err = Metadata(p.Metadata)
	default:
		err = errors.New("the permission is missing")
	}
	return r, err
}

func principal(m *rbacv3.Principal) (r authz.Rule, err error) {
	switch p := m.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return anyRule(p.Any)
	case *rbacv3.Principal_AndIds:
		r.Op = authz.And
		r.Of, err = each(p.AndIds.GetIds(), principal)
	case *rbacv3.Principal_OrIds:
		r.Op = authz.Or
		r.Of, err = each(p.OrIds.GetIds(), principal)
	case *rbacv3.Principal_NotId:
		var of authz.Rule
		of, err = principal(p.NotId)
		r = authz.Rule{Op: authz.Not, Of: []authz.Rule{of}}
	case *rbacv3.Principal_Authenticated_:
		r.Op = authz.Authenticated
		if name := p.Authenticated.GetPrincipalName(); name != nil {
			r.Text, err = String(name)
		}
	case *rbacv3.Principal_DirectRemoteIp:
		r.Op = authz.DirectRemoteIP
		r.Prefixes, err = prefixSet(p.DirectRemoteIp)
	case *rbacv3.Principal_SourceIp: // the old name of the former
		r.Op = authz.DirectRemoteIP
		r.Prefixes, err = prefixSet(p.SourceIp)
	case *rbacv3.Principal_RemoteIp:
		r.Op = authz.RemoteIP
		r.Prefixes, err = prefixSet(p.RemoteIp)
	case *rbacv3.Principal_Header:
		r.Op = authz.Header
		r.Header, err = Header(p.Header)
	case *rbacv3.Principal_UrlPath:
		return urlPath(p.UrlPath)
	case *rbacv3.Principal_Metadata:
		r.Op = authz.Metadata
		r.Metadata, err = Metadata(p.Metadata)
	default:
		err = errors.New("the principal is missing")
	}
	return r, err
}

// anyRule reads "any: true"; Envoy's schema does not allow false.
func anyRule(v bool) (authz.Rule, error) {
	if !v {
		return authz.Rule{}, errors.New("any: false is not supported")
	}
	return authz.Rule{Op: authz.Any}, nil
}

func urlPath(m *matcherv3.PathMatcher) (authz.Rule, error) {
	text, err := String(m.GetPath())
	return authz.Rule{Op: authz.Path, Text: text}, err
}

func ports(lo, hi int64) (match.Ports, error) {
	if lo < 0 || hi > math.MaxUint16+1 || lo >= hi {
		return match.Ports{}, fmt.Errorf("ports [%d, %d) are no range of ports", lo, hi)
	}
	return match.Ports{Lo: uint32(lo), Hi: uint32(hi)}, nil
}
