// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/mesh"
)

// glob turns Istio's "exact", "prefix*", "*suffix" and "*" into a matcher.
func glob(v string, ignoreCase bool) *matcherv3.StringMatcher {
	m := &matcherv3.StringMatcher{IgnoreCase: ignoreCase}
	switch {
	case v == "*":
		return regex(".+")
	case strings.HasPrefix(v, "*"):
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: v[1:]}
	case strings.HasSuffix(v, "*"):
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: v[:len(v)-1]}
	default:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: v}
	}
	return m
}

func regex(pattern string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern}}}
}

func prefix(p string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: p}}
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
			Name: "uri-template", TypedConfig: emit.Any(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: template}),
		}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: glob(v, false)}}}}
}

func portPermission(v string) *rbacv3.Permission {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return notRule(anyPermission()) // the front end refuses it; nothing has such a port
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(n)}}
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

const spiffe = "spiffe://"

// principal is trust-domain/ns/NS/sa/SA, with a wildcard at one end perhaps. A trust domain of the mesh
// stands for all of them; so does cluster.local, under which policies are written that go along from mesh to mesh.
func (t Trust) principal(v string) *rbacv3.Principal {
	switch {
	case v == "*":
		return authenticated(regex(".+"))
	case strings.HasPrefix(v, "*"):
		return authenticated(regex(spiffe + ".*" + regexp.QuoteMeta(v[1:])))
	}
	td, rest, ok := strings.Cut(v, "/")
	all := t.all()
	if !ok || td != string(mesh.DefaultTrustDomain) && !slices.Contains(all, td) {
		all = []string{td}
	}
	if !ok {
		return authenticated(glob(spiffe+v, false))
	}
	names := make([]string, len(all))
	for i, td := range all {
		names[i] = spiffe + td + "/" + rest
	}
	if len(names) == 1 {
		return authenticated(glob(names[0], false))
	}
	return orIDs(names, func(n string) *rbacv3.Principal { return authenticated(glob(n, false)) })
}

func namespacePrincipal(v string) *rbacv3.Principal {
	return authenticated(regex(".*/ns/" + wild(v, ".*") + "/.*"))
}

// wild quotes v, whose "*" stand for what is given.
func wild(v, star string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, star)
}

// serviceAccount reads "account" of the policy's own namespace, or "ns/account".
func (b *builder) serviceAccount(v string) *rbacv3.Principal {
	ns, sa, ok := strings.Cut(v, "/")
	if !ok {
		ns, sa = string(b.namespace), v
	}
	return authenticated(regex(spiffe + ".+/ns/" + regexp.QuoteMeta(ns) + "/(.+/|)sa/" + regexp.QuoteMeta(sa) + "(/.+)?"))
}

func trustDomain(v string) *rbacv3.Principal {
	switch {
	case v == "*":
		return authenticated(prefix(spiffe))
	case strings.Contains(v, "*"):
		return authenticated(regex(spiffe + wild(v, "[^/]*") + "/.*"))
	}
	return authenticated(prefix(spiffe + v + "/"))
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
