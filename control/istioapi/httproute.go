// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi/check"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

func (r router) http(origin source.Origin, h *networking.HTTPRoute) intent.HTTPRoute {
	out := intent.HTTPRoute{
		Origin: origin, Name: h.Name, Timeout: h.Timeout.AsDuration(),
		Redirect: redirect(h.Redirect), Direct: direct(h.DirectResponse), Rewrite: rewrite(h.Rewrite),
		Retries: retries(h.Retries), Fault: fault(h.Fault), CORS: cors(h.CorsPolicy), Headers: headers(h.Headers),
	}
	for i, m := range h.Match {
		out.Matches = append(out.Matches, r.httpMatch(origin.At("match", i), m))
	}
	for i, d := range h.Route {
		dest := r.destination(origin.At("route", i), d.Destination, d.Weight, len(h.Route))
		dest.Headers = headers(d.Headers)
		out.Forward = append(out.Forward, dest)
	}
	if d := h.Delegate; d != nil {
		out.Delegate = &source.Key{
			Kind: source.KindVirtualService, Name: d.Name,
			Namespace: mesh.Namespace(cmp.Or(d.Namespace, string(r.ns))),
		}
	}
	if h.Mirror != nil {
		percent := 100.0
		if h.MirrorPercentage != nil {
			percent = h.MirrorPercentage.Value
		} else if h.MirrorPercent != nil {
			percent = float64(h.MirrorPercent.Value)
		}
		out.Mirrors = r.mirror(out.Mirrors, origin.At("mirror"), h.Mirror, percent)
	}
	for i, m := range h.Mirrors {
		percent := 100.0
		if m.Percentage != nil {
			percent = m.Percentage.Value
		}
		out.Mirrors = r.mirror(out.Mirrors, origin.At("mirrors", i), m.Destination, percent)
	}
	return out
}

func (r router) mirror(all []intent.Mirror, origin source.Origin, d *networking.Destination, percent float64) []intent.Mirror {
	if percent == 0 {
		return all
	}
	return append(all, intent.Mirror{
		Origin: origin, Host: mesh.ExpandHost(d.Host, r.ns, r.domain), Subset: d.Subset,
		Port: int(d.GetPort().GetNumber()), Percent: percent,
	})
}

func (r router) httpMatch(origin source.Origin, m *networking.HTTPMatchRequest) intent.HTTPMatch {
	out := intent.HTTPMatch{
		Origin: origin, Name: m.Name, StatPrefix: m.StatPrefix, IgnoreCase: m.IgnoreUriCase,
		URI: stringMatch(m.Uri), Scheme: stringMatch(m.Scheme), Method: stringMatch(m.Method), Authority: stringMatch(m.Authority),
		Port: int(m.Port), SourceLabels: m.SourceLabels, SourceNS: mesh.Namespace(m.SourceNamespace),
		Gateways: r.boundTo(m.Gateways),
	}
	split := func(list map[string]*networking.StringMatch, not bool) (named []intent.NamedMatch) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			value := valueMatch(list[name])
			if path, ok := check.ClaimPath(name); ok {
				out.Claims = append(out.Claims, intent.ClaimMatch{Path: path, Not: not, StringMatch: value})
			} else if !check.Reserved(name) {
				named = append(named, intent.NamedMatch{Name: strings.ToLower(name), StringMatch: value})
			}
		}
		slices.SortStableFunc(named, func(a, b intent.NamedMatch) int { return strings.Compare(a.Name, b.Name) })
		return named
	}
	out.Headers = split(m.Headers, false)
	out.NotHeaders = split(m.WithoutHeaders, true)
	for _, name := range slices.Sorted(maps.Keys(m.QueryParams)) {
		out.Query = append(out.Query, intent.NamedMatch{Name: name, StringMatch: valueMatch(m.QueryParams[name])})
	}
	return out
}

// stringMatch is nil where there is no condition.
func stringMatch(m *networking.StringMatch) *intent.StringMatch {
	if m == nil || m.MatchType == nil {
		return nil
	}
	v := valueMatch(m)
	return &v
}

// valueMatch is a condition on something that may be missing: one without a value asks for presence.
func valueMatch(m *networking.StringMatch) intent.StringMatch {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		if t.Exact != "" {
			return intent.StringMatch{Kind: intent.Exact, Value: t.Exact}
		}
	case *networking.StringMatch_Prefix:
		if t.Prefix != "" {
			return intent.StringMatch{Kind: intent.Prefix, Value: t.Prefix}
		}
	case *networking.StringMatch_Regex:
		if t.Regex != "" && t.Regex != "*" {
			return intent.StringMatch{Kind: intent.Regex, Value: t.Regex}
		}
	}
	return intent.StringMatch{Kind: intent.Present}
}

func redirect(r *networking.HTTPRedirect) *intent.Redirect {
	if r == nil {
		return nil
	}
	out := &intent.Redirect{
		Path: r.Uri, PathPrefix: r.PrefixRewrite, Authority: r.Authority, Scheme: r.Scheme,
		Code: int(cmp.Or(r.RedirectCode, 301)),
	}
	switch p := r.RedirectPort.(type) {
	case *networking.HTTPRedirect_Port:
		out.Port = int(p.Port)
	case *networking.HTTPRedirect_DerivePort:
		out.DerivePort = intent.PortProtocol
		if p.DerivePort == networking.HTTPRedirect_FROM_REQUEST_PORT {
			out.DerivePort = intent.PortRequest
		}
	}
	return out
}

func direct(d *networking.HTTPDirectResponse) *intent.DirectResponse {
	if d == nil {
		return nil
	}
	out := &intent.DirectResponse{Status: int(d.Status)}
	switch b := d.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body = []byte(b.String_)
	case *networking.HTTPBody_Bytes:
		out.Body = b.Bytes
	}
	return out
}

func rewrite(r *networking.HTTPRewrite) *intent.Rewrite {
	if r == nil {
		return nil
	}
	return &intent.Rewrite{
		URI: r.Uri, Authority: r.Authority,
		Regex: r.GetUriRegexRewrite().GetMatch(), Subst: r.GetUriRegexRewrite().GetRewrite(),
	}
}

func retries(r *networking.HTTPRetry) *intent.Retries {
	if r == nil {
		return nil
	}
	out := &intent.Retries{
		Attempts: int(r.Attempts), PerTry: r.PerTryTimeout.AsDuration(), Backoff: r.Backoff.AsDuration(),
		RemoteLocalities: r.RetryRemoteLocalities.GetValue(),
		SameHosts:        r.RetryIgnorePreviousHosts != nil && !r.RetryIgnorePreviousHosts.Value,
	}
	for on := range strings.SplitSeq(r.RetryOn, ",") {
		on = strings.TrimSpace(on)
		if code, err := strconv.Atoi(on); err == nil {
			out.Codes = append(out.Codes, code)
		} else if on != "" {
			out.On = append(out.On, on)
		}
	}
	if len(out.Codes) > 0 && !slices.Contains(out.On, "retriable-status-codes") {
		out.On = append(out.On, "retriable-status-codes")
	}
	return out
}

func fault(f *networking.HTTPFaultInjection) *intent.Fault {
	if f == nil {
		return nil
	}
	out := &intent.Fault{}
	if d := f.Delay; d != nil {
		out.Delay, out.DelayPercent = d.GetFixedDelay().AsDuration(), float64(d.Percent)
		if d.Percentage != nil {
			out.DelayPercent = d.Percentage.Value
		}
	}
	if a := f.Abort; a != nil {
		out.AbortStatus, out.AbortGRPC, out.AbortPercent = int(a.GetHttpStatus()), a.GetGrpcStatus(), a.GetPercentage().GetValue()
	}
	return out
}

func cors(p *networking.CorsPolicy) *intent.CORS {
	if p == nil {
		return nil
	}
	out := &intent.CORS{
		Methods: p.AllowMethods, Headers: p.AllowHeaders, Expose: p.ExposeHeaders, MaxAge: p.MaxAge.AsDuration(),
		IgnorePreflights: p.UnmatchedPreflights == networking.CorsPolicy_IGNORE,
	}
	for _, o := range p.AllowOrigin {
		out.Origins = append(out.Origins, intent.StringMatch{Kind: intent.Exact, Value: o})
	}
	for _, o := range p.AllowOrigins {
		out.Origins = append(out.Origins, valueMatch(o))
	}
	if p.AllowCredentials != nil {
		out.Credentials = &p.AllowCredentials.Value
	}
	return out
}

func headers(h *networking.Headers) intent.Headers {
	return intent.Headers{Request: headerOps(h.GetRequest()), Response: headerOps(h.GetResponse())}
}

func headerOps(o *networking.Headers_HeaderOperations) intent.HeaderOps {
	var out intent.HeaderOps
	for _, name := range o.GetRemove() {
		out.Remove = append(out.Remove, strings.ToLower(name))
	}
	slices.Sort(out.Remove)
	out.Set, out.Add = headerList(o.GetSet()), headerList(o.GetAdd())
	return out
}

func headerList(m map[string]string) []intent.Header {
	var all []intent.Header
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, intent.Header{Name: strings.ToLower(name), Value: m[name]})
	}
	slices.SortStableFunc(all, func(a, b intent.Header) int { return strings.Compare(a.Name, b.Name) })
	return all
}
