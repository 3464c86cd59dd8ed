// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
)

// everything matches every request.
func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// match turns a condition into Envoy's; nil matches everything.
func match(m *intent.HTTPMatch) *routev3.RouteMatch {
	out := everything()
	if m == nil {
		return out
	}
	if m.URI != nil {
		switch m.URI.Kind {
		case intent.Exact:
			out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.URI.Value}
		case intent.Prefix:
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.URI.Value}
		case intent.Regex:
			out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.URI.Value}}
		}
	}
	out.CaseSensitive = wrapperspb.Bool(!m.IgnoreCase)
	for i := range m.Headers {
		out.Headers = append(out.Headers, header(&m.Headers[i]))
	}
	for i := range m.NotHeaders {
		h := header(&m.NotHeaders[i])
		h.InvertMatch = true
		// A header that is missing has not the value; Envoy would take it as no match.
		h.TreatMissingHeaderAsEmpty = m.NotHeaders[i].Kind != intent.Present
		out.Headers = append(out.Headers, h)
	}
	for _, p := range []struct {
		name string
		with *intent.StringMatch
	}{{":method", m.Method}, {":authority", m.Authority}, {":scheme", m.Scheme}} {
		if p.with != nil {
			out.Headers = append(out.Headers, header(&intent.NamedMatch{Name: p.name, StringMatch: *p.with}))
		}
	}
	for i := range m.Query {
		q := &routev3.QueryParameterMatcher{Name: m.Query[i].Name}
		if m.Query[i].Kind == intent.Present {
			q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		} else {
			q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: text(&m.Query[i].StringMatch)}
		}
		out.QueryParameters = append(out.QueryParameters, q)
	}
	for i := range m.Claims {
		out.DynamicMetadata = append(out.DynamicMetadata, claim(&m.Claims[i]))
	}
	return out
}

func header(m *intent.NamedMatch) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: m.Name}
	if m.Kind == intent.Present || m.Kind == intent.Regex && m.Value == "*" {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return h
	}
	h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: text(&m.StringMatch)}
	return h
}

func text(m *intent.StringMatch) *matcherv3.StringMatcher {
	s := &matcherv3.StringMatcher{}
	switch m.Kind {
	case intent.Exact:
		s.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	case intent.Prefix:
		s.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case intent.Regex:
		s.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: m.Value}}
	case intent.Present:
		s.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ".+"}}
	}
	return s
}

// claim compares a claim of a verified token, which the JWT filter leaves in the request's metadata.
func claim(m *intent.ClaimMatch) *matcherv3.MetadataMatcher {
	path := []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "payload"}}}
	for _, p := range m.Path {
		path = append(path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p}})
	}
	value := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: text(&m.StringMatch)}}
	return &matcherv3.MetadataMatcher{
		Filter: "envoy.filters.http.jwt_authn", Path: path, Invert: m.Not,
		Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: []*matcherv3.ValueMatcher{
			value,
			{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: value}}}},
		}}}},
	}
}
