// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/route"
)

// String reads a StringMatcher.
func String(m *matcherv3.StringMatcher) (match.String, error) {
	var s match.String
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s = match.Exact(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		s = match.Prefix(p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		s = match.Suffix(p.Suffix)
	case *matcherv3.StringMatcher_Contains:
		s = match.Contains(p.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		return match.Regex(p.SafeRegex.GetRegex())
	default:
		return s, errors.New("a string matcher without a pattern")
	}
	if m.GetIgnoreCase() {
		s = s.IgnoreCase()
	}
	return s, nil
}

// Header reads a HeaderMatcher.
func Header(m *routev3.HeaderMatcher) (match.Header, error) {
	h := match.Header{
		Name: m.GetName(), Test: match.HeaderString,
		Invert: m.GetInvertMatch(), MissingIsEmpty: m.GetTreatMissingHeaderAsEmpty(),
	}
	var err error
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		h.Test = match.HeaderPresent
	case *routev3.HeaderMatcher_PresentMatch:
		h.Test = match.HeaderAbsent
		if s.PresentMatch {
			h.Test = match.HeaderPresent
		}
	case *routev3.HeaderMatcher_StringMatch:
		h.Value, err = String(s.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		h.Value = match.Exact(s.ExactMatch)
	case *routev3.HeaderMatcher_PrefixMatch:
		h.Value = match.Prefix(s.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		h.Value = match.Suffix(s.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		h.Value = match.Contains(s.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		h.Value, err = match.Regex(s.SafeRegexMatch.GetRegex())
	case *routev3.HeaderMatcher_RangeMatch:
		h.Test, h.Lo, h.Hi = match.HeaderRange, s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()
	default:
		err = errors.New("the condition is missing")
	}
	if err != nil {
		return h, fmt.Errorf("header %q: %w", h.Name, err)
	}
	return h, nil
}

// Headers reads a list of HeaderMatcher.
func Headers(list []*routev3.HeaderMatcher) ([]match.Header, error) { return each(list, Header) }

// each reads a list; its errors name the element.
func each[M, V any](list []M, read func(M) (V, error)) ([]V, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]V, len(list))
	for i, m := range list {
		v, err := read(m)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		out[i] = v
	}
	return out, nil
}

func query(m *routev3.QueryParameterMatcher) (match.Query, error) {
	q := match.Query{Name: m.GetName(), Present: true}
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case nil:
	case *routev3.QueryParameterMatcher_PresentMatch:
		if !s.PresentMatch {
			return q, fmt.Errorf("query parameter %q: present_match: false is not supported", q.Name)
		}
	case *routev3.QueryParameterMatcher_StringMatch:
		var err error
		q.Present = false
		if q.Value, err = String(s.StringMatch); err != nil {
			return q, fmt.Errorf("query parameter %q: %w", q.Name, err)
		}
	}
	return q, nil
}

// Metadata reads a MetadataMatcher.
func Metadata(m *matcherv3.MetadataMatcher) (match.MetadataValue, error) {
	out := match.MetadataValue{Filter: m.GetFilter(), Invert: m.GetInvert()}
	for _, p := range m.GetPath() {
		out.Path = append(out.Path, p.GetKey())
	}
	var err error
	if out.Value, err = value(m.GetValue()); err != nil {
		return out, fmt.Errorf("metadata %s: %w", out.Filter, err)
	}
	return out, nil
}

func value(m *matcherv3.ValueMatcher) (match.Value, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return match.Value{Test: match.ValueNull}, nil
	case *matcherv3.ValueMatcher_PresentMatch:
		if p.PresentMatch {
			return match.Value{Test: match.ValuePresent}, nil
		}
		return match.Value{Test: match.ValueAbsent}, nil
	case *matcherv3.ValueMatcher_BoolMatch:
		return match.Value{Test: match.ValueBool, Bool: p.BoolMatch}, nil
	case *matcherv3.ValueMatcher_StringMatch:
		s, err := String(p.StringMatch)
		return match.Value{Test: match.ValueString, Text: s}, err
	case *matcherv3.ValueMatcher_DoubleMatch:
		v := match.Value{Test: match.ValueNumber}
		switch d := p.DoubleMatch.GetMatchPattern().(type) {
		case *matcherv3.DoubleMatcher_Exact:
			v.Lo, v.Hi = d.Exact, d.Exact
		case *matcherv3.DoubleMatcher_Range:
			v.Lo, v.Hi = d.Range.GetStart(), d.Range.GetEnd()
			if v.Lo >= v.Hi {
				return v, fmt.Errorf("range [%v, %v) is empty", v.Lo, v.Hi)
			}
		}
		return v, nil
	case *matcherv3.ValueMatcher_ListMatch:
		of, err := value(p.ListMatch.GetOneOf())
		return match.Value{Test: match.ValueList, Of: []match.Value{of}}, err
	case *matcherv3.ValueMatcher_OrMatch:
		of, err := each(p.OrMatch.GetValueMatchers(), value)
		return match.Value{Test: match.ValueAny, Of: of}, err
	}
	return match.Value{}, errors.New("a value matcher without a pattern")
}

// Prefix reads a CidrRange.
func Prefix(c *corev3.CidrRange) (netip.Prefix, error) {
	addr, err := netip.ParseAddr(c.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, err
	}
	bits := 0 // as Envoy: unset is 0
	if c.GetPrefixLen() != nil {
		bits = int(c.GetPrefixLen().GetValue())
	}
	if bits > addr.BitLen() {
		return netip.Prefix{}, fmt.Errorf("%s/%d: the prefix is longer than the address", addr, bits)
	}
	return netip.PrefixFrom(addr.WithZone(""), bits).Masked(), nil
}

// Prefixes reads a list of CidrRange.
func Prefixes(list []*corev3.CidrRange) ([]netip.Prefix, error) { return each(list, Prefix) }

func prefixSet(c *corev3.CidrRange) (match.Prefixes, error) {
	p, err := Prefix(c)
	if err != nil {
		return match.Prefixes{}, err
	}
	return match.NewPrefixes(p)
}

// Fraction reads a FractionalPercent.
func Fraction(p *typev3.FractionalPercent) route.Fraction {
	per := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}[p.GetDenominator()]
	return route.Fraction{Of: p.GetNumerator(), Per: per}
}

// Source says which objects a resource comes from, as its metadata tells it: our
// own control plane under "meltemi.io", "Kind/namespace/name field" each, joined
// by "; "; Istio's under "istio".
func Source(md *corev3.Metadata) string {
	var from []string
	for _, v := range md.GetFilterMetadata()["meltemi.io"].GetFields()["from"].GetListValue().GetValues() {
		if s := v.GetStringValue(); s != "" {
			from = append(from, s)
		}
	}
	if len(from) > 0 {
		return strings.Join(from, "; ")
	}
	return md.GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue()
}
