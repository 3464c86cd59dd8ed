// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meltemi/meltemi/proxy/route"
)

// defaultTimeout is Envoy's for a route that has none.
const defaultTimeout = 15 * time.Second

func (d *Routes) action(r *route.Route, m *routev3.Route) (err error) {
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		if r.Forward, err = d.forward(a.Route); err != nil {
			return fmt.Errorf("route: %w", err)
		}
	case *routev3.Route_Redirect:
		if r.Redirect, err = redirect(a.Redirect); err != nil {
			return fmt.Errorf("redirect: %w", err)
		}
	case *routev3.Route_DirectResponse:
		body, err := d.body(a.DirectResponse.GetBody())
		if err != nil {
			return fmt.Errorf("direct_response.body: %w", err)
		}
		r.Direct = &route.Direct{Status: int(a.DirectResponse.GetStatus()), Body: body}
	default:
		return errors.New("the action is missing")
	}
	return nil
}

func (d *Routes) body(s *corev3.DataSource) (string, error) {
	var body string
	d.host.bodies = d.host.bodies || s != nil
	switch s := s.GetSpecifier().(type) {
	case nil:
	case *corev3.DataSource_InlineString:
		body = s.InlineString
	case *corev3.DataSource_InlineBytes:
		body = string(s.InlineBytes)
	case *corev3.DataSource_Filename:
		b, err := d.Read(s.Filename)
		if err != nil {
			return "", err
		}
		body = string(b)
	}
	if len(body) > d.maxBody {
		return "", fmt.Errorf("%d bytes, more than max_direct_response_body_size_bytes %d", len(body), d.maxBody)
	}
	return body, nil
}

func (d *Routes) forward(m *routev3.RouteAction) (f *route.Forward, err error) {
	if m.GetPriority() != corev3.RoutingPriority_DEFAULT {
		return nil, fmt.Errorf("priority %s is not supported", m.GetPriority())
	}
	f = &route.Forward{NotFoundStatus: 503, Timeout: defaultTimeout, GRPCOffset: m.GetGrpcTimeoutOffset().AsDuration()}
	switch m.GetClusterNotFoundResponseCode() {
	case routev3.RouteAction_NOT_FOUND:
		f.NotFoundStatus = 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		f.NotFoundStatus = 500
	}
	if t := m.GetTimeout(); t != nil {
		f.Timeout = t.AsDuration()
	}
	f.MaxGRPCTimeout, f.IdleTimeout = optional(m.GetMaxGrpcTimeout()), optional(m.GetIdleTimeout())
	if s := m.GetMaxStreamDuration(); s != nil {
		f.Stream = &route.StreamLimit{
			Max: optional(s.GetMaxStreamDuration()), GRPCMax: optional(s.GetGrpcTimeoutHeaderMax()),
			GRPCOffset: s.GetGrpcTimeoutHeaderOffset().AsDuration(),
		}
	}
	if err := d.clusters(f, m); err != nil {
		return nil, err
	}
	if f.Retry, err = Retry(m.GetRetryPolicy()); err != nil {
		return nil, fmt.Errorf("retry_policy: %w", err)
	}
	if f.Mirrors, err = each(m.GetRequestMirrorPolicies(), mirror); err != nil {
		return nil, fmt.Errorf("request_mirror_policies%w", err)
	}
	if f.Hash, err = each(m.GetHashPolicy(), hashPolicy); err != nil {
		return nil, fmt.Errorf("hash_policy%w", err)
	}
	for _, u := range m.GetUpgradeConfigs() {
		f.Upgrades = append(f.Upgrades, route.Upgrade{
			Type: strings.ToLower(u.GetUpgradeType()), Enabled: u.GetEnabled() == nil || u.GetEnabled().GetValue(),
			Terminate: u.GetConnectConfig() != nil, AllowPost: u.GetConnectConfig().GetAllowPost(),
		})
	}
	f.Rewrite = rewrite(m)
	return f, nil
}

func optional(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := d.AsDuration()
	return &v
}

func (d *Routes) clusters(f *route.Forward, m *routev3.RouteAction) (err error) {
	switch s := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Clusters = []route.Weighted{{Cluster: s.Cluster}}
		return nil
	case *routev3.RouteAction_WeightedClusters:
		f.Random = s.WeightedClusters.GetHeaderName()
		f.Clusters = make([]route.Weighted, len(s.WeightedClusters.GetClusters()))
		total := uint64(0)
		for i, c := range s.WeightedClusters.GetClusters() {
			w := &f.Clusters[i]
			*w = route.Weighted{Cluster: c.GetName(), Weight: c.GetWeight().GetValue(), HostLiteral: c.GetHostRewriteLiteral()}
			total += uint64(w.Weight)
			if w.RequestHeaders, err = HeaderOps(c.GetRequestHeadersToAdd(), c.GetRequestHeadersToRemove()); err != nil {
				return fmt.Errorf("weighted_clusters.clusters[%d].request_headers_to_add%w", i, err)
			}
			if w.ResponseHeaders, err = HeaderOps(c.GetResponseHeadersToAdd(), c.GetResponseHeadersToRemove()); err != nil {
				return fmt.Errorf("weighted_clusters.clusters[%d].response_headers_to_add%w", i, err)
			}
			if err = d.set(w, c.GetTypedPerFilterConfig()); err != nil {
				return fmt.Errorf("weighted_clusters.clusters[%d].%w", i, err)
			}
		}
		if t := s.WeightedClusters.GetTotalWeight(); t != nil && uint64(t.GetValue()) != total {
			return fmt.Errorf("weighted_clusters: the weights sum to %d, total_weight says %d", total, t.GetValue())
		}
		if total == 0 {
			return errors.New("weighted_clusters: the weights sum to 0")
		}
		return nil
	default:
		return errors.New("the cluster specifier is missing")
	}
}

func rewrite(m *routev3.RouteAction) route.Rewrite {
	return route.Rewrite{
		Prefix: m.GetPrefixRewrite(), Regex: substitute(m.GetRegexRewrite()), Path: m.GetPathRewrite(),
		HostLiteral: m.GetHostRewriteLiteral(), HostHeader: m.GetHostRewriteHeader(),
		HostRegex: substitute(m.GetHostRewritePathRegex()), HostAuto: m.GetAutoHostRewrite().GetValue(),
		ForwardedHost: m.GetAppendXForwardedHost(),
	}
}

func substitute(m *matcherv3.RegexMatchAndSubstitute) *route.RegexRewrite {
	if m == nil {
		return nil
	}
	return &route.RegexRewrite{Pattern: m.GetPattern().GetRegex(), Substitution: m.GetSubstitution()}
}

func mirror(m *routev3.RouteAction_RequestMirrorPolicy) (route.Mirror, error) {
	out := route.Mirror{Cluster: m.GetCluster(), NoHostSuffix: m.GetDisableShadowHostSuffixAppend()}
	if out.Cluster == "" {
		return out, errors.New("cluster is missing")
	}
	if f := m.GetRuntimeFraction(); f != nil {
		share := Fraction(f.GetDefaultValue())
		out.Fraction = &share
	}
	if t := m.GetTraceSampled(); t != nil {
		v := t.GetValue()
		out.TraceSampled = &v
	}
	return out, nil
}

func hashPolicy(m *routev3.RouteAction_HashPolicy) (route.HashPolicy, error) {
	p := route.HashPolicy{Terminal: m.GetTerminal()}
	switch s := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		p.Kind, p.Name, p.Regex = route.HashHeader, s.Header.GetHeaderName(), substitute(s.Header.GetRegexRewrite())
	case *routev3.RouteAction_HashPolicy_Cookie_:
		p.Kind, p.Name, p.Path, p.TTL = route.HashCookie, s.Cookie.GetName(), s.Cookie.GetPath(), optional(s.Cookie.GetTtl())
		for _, a := range s.Cookie.GetAttributes() {
			p.Attributes = append(p.Attributes, route.Attribute{Name: a.GetName(), Value: a.GetValue()})
		}
		if bad := strings.IndexFunc(p.Name+p.Path, func(r rune) bool { return r < ' ' || r == ';' || r == 0x7f }); bad >= 0 {
			return p, fmt.Errorf("cookie %q: name or path has a character that no cookie has", p.Name)
		}
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		p.Kind = route.HashSourceIP
		if !s.ConnectionProperties.GetSourceIp() {
			return p, errors.New("connection_properties without source_ip hashes nothing")
		}
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		p.Kind, p.Name = route.HashQuery, s.QueryParameter.GetName()
	default:
		return p, errors.New("the hash policy is missing")
	}
	return p, nil
}

func redirect(m *routev3.RedirectAction) (*route.Redirect, error) {
	r := &route.Redirect{Host: m.GetHostRedirect(), Port: m.GetPortRedirect(), StripQuery: m.GetStripQuery()}
	switch s := m.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		if s.HttpsRedirect {
			r.Scheme = "https"
		}
	case *routev3.RedirectAction_SchemeRedirect:
		r.Scheme = s.SchemeRedirect
	}
	switch s := m.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		r.Path = s.PathRedirect
	case *routev3.RedirectAction_PrefixRewrite:
		r.Prefix, r.HasPrefix = s.PrefixRewrite, true
	case *routev3.RedirectAction_RegexRewrite:
		r.Regex = substitute(s.RegexRewrite)
	}
	status, ok := map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
	}[m.GetResponseCode()]
	if !ok {
		return nil, fmt.Errorf("response_code %s is not known", m.GetResponseCode())
	}
	r.Status = status
	return r, nil
}
