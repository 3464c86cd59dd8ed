// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"reflect"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
)

// action forwards. host is what the route's own headers set it to.
func (c *Compiler) action(w *intent.HTTPRoute, host string) *routev3.RouteAction {
	// A timeout of zero is none, which must be said: Envoy's default is 15 s.
	a := &routev3.RouteAction{Timeout: durationpb.New(w.Timeout), MaxGrpcTimeout: durationpb.New(w.Timeout)}
	a.HashPolicy = c.sticky(w.Forward)
	retries := w.Retries
	if retries == nil {
		retries = c.Retries
	}
	a.RetryPolicy = retry(retries, len(a.HashPolicy) > 0)
	if rw := w.Rewrite; rw != nil {
		rewrite(a, rw)
		if rw.Authority != "" {
			host = rw.Authority
		}
	}
	if host != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	for i := range w.Mirrors {
		m := &w.Mirrors[i]
		if m.Percent <= 0 {
			continue
		}
		a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:                       c.Mesh.Cluster(m.Host, m.Port, m.Subset),
			RuntimeFraction:               &corev3.RuntimeFractionalPercent{DefaultValue: emit.Share(m.Percent)},
			TraceSampled:                  wrapperspb.Bool(false),
			DisableShadowHostSuffixAppend: true,
		})
	}
	c.targets(a, w.Forward)
	return a
}

// targets sets the cluster, or the clusters by weight.
func (c *Compiler) targets(a *routev3.RouteAction, forward []intent.Destination) {
	if len(forward) == 1 && plain(&forward[0]) {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: c.Mesh.Cluster(forward[0].Host, forward[0].Port, forward[0].Subset)}
		return
	}
	w := &routev3.WeightedCluster{}
	for i := range forward {
		d := &forward[i]
		weight := d.Weight
		if len(forward) == 1 {
			weight = max(weight, 1)
		}
		if weight == 0 {
			continue
		}
		req, resp := headerOps(d.Headers.Request), headerOps(d.Headers.Response)
		cw := &routev3.WeightedCluster_ClusterWeight{
			Name: c.Mesh.Cluster(d.Host, d.Port, d.Subset), Weight: wrapperspb.UInt32(weight),
			RequestHeadersToAdd: req.add, RequestHeadersToRemove: req.remove,
			ResponseHeadersToAdd: resp.add, ResponseHeadersToRemove: resp.remove,
		}
		if req.host != "" {
			cw.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: req.host}
		}
		w.Clusters = append(w.Clusters, cw)
	}
	if len(w.Clusters) == 0 { // no weight at all: the front end refuses it, and the first is as good as any
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: c.Mesh.Cluster(forward[0].Host, forward[0].Port, forward[0].Subset)}
		return
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
}

func plain(d *intent.Destination) bool { return reflect.ValueOf(d.Headers).IsZero() }

// ops are header operations as Envoy has them, the host apart.
type ops struct {
	add    []*corev3.HeaderValueOption
	remove []string
	host   string
}

func headerOps(h intent.HeaderOps) ops {
	var o ops
	for _, name := range h.Remove {
		if !pseudo(name) {
			o.remove = append(o.remove, name)
		}
	}
	for _, s := range h.Set {
		switch {
		case s.Name == ":authority" || s.Name == "host":
			o.host = s.Value
		case !pseudo(s.Name):
			o.add = append(o.add, headerOption(s, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
		}
	}
	for _, a := range h.Add {
		if !pseudo(a.Name) {
			o.add = append(o.add, headerOption(a, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
		}
	}
	return o
}

// pseudo says that Envoy refuses to change a header so; the front end has warned of it.
func pseudo(name string) bool { return name == "" || name[0] == ':' || name == "host" }

func headerOption(h intent.Header, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: h.Name, Value: h.Value}, AppendAction: action,
	}
}

// rewrite replaces what matched: the prefix, or for an exact or regular match the whole path.
func rewrite(a *routev3.RouteAction, rw *intent.Rewrite) {
	if rw.Regex != "" {
		a.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: rw.Regex}, Substitution: rw.Subst}
		return
	}
	a.PrefixRewrite = rw.URI
}

// sticky is what the rules of the destinations say keeps a client at its endpoint.
func (c *Compiler) sticky(forward []intent.Destination) []*routev3.RouteAction_HashPolicy {
	var seen []*intent.Hash
	var out []*routev3.RouteAction_HashPolicy
	for i := range forward {
		d := &forward[i]
		h := c.Mesh.Hash(d.Host, d.Port, d.Subset)
		if h == nil || slices.ContainsFunc(seen, func(o *intent.Hash) bool { return reflect.DeepEqual(o, h) }) {
			continue
		}
		seen = append(seen, h)
		if p := hashPolicy(h); p != nil {
			out = append(out, p)
		}
	}
	return out
}

func hashPolicy(h *intent.Hash) *routev3.RouteAction_HashPolicy {
	out := &routev3.RouteAction_HashPolicy{}
	switch {
	case h.Header != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
	case h.Query != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query}}
	case h.SourceIP:
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
	case h.Cookie != nil:
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name, Path: h.Cookie.Path}
		if h.Cookie.TTL != nil {
			cookie.Ttl = durationpb.New(*h.Cookie.TTL)
		}
		for _, a := range h.Cookie.Attributes {
			cookie.Attributes = append(cookie.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.Name, Value: a.Value})
		}
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}
	default:
		return nil
	}
	return out
}
