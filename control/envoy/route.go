// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
)

// compile turns the routes of a host into Envoy's, one for each match. Routes
// behind one that takes everything can never be reached and are left out.
func (r *router) compile(routes []intent.HTTPRoute) []*routev3.Route {
	var out []*routev3.Route
	for i := range routes {
		w := &routes[i]
		if len(w.Matches) == 0 {
			out = append(out, r.route(w, nil))
			return out
		}
		for j := range w.Matches {
			m := &w.Matches[j]
			if !r.holds(m) {
				continue
			}
			out = append(out, r.route(w, m))
			if takesAll(m) {
				return out
			}
		}
	}
	return out
}

// holds says whether a match can be true for this view and port at all.
func (r *router) holds(m *intent.HTTPMatch) bool {
	if m.Port != 0 && m.Port != r.port {
		return false
	}
	if len(r.gateways) > 0 {
		return slices.ContainsFunc(m.Gateways, func(g intent.GatewayName) bool { return slices.Contains(r.gateways, g) })
	}
	if m.SourceNS != "" && m.SourceNS != r.view.namespace() {
		return false
	}
	return slices.Contains(m.Gateways, intent.GatewayMesh) && m.SourceLabels.Match(r.view.Subject.Labels())
}

// takesAll says whether m holds for every request.
func takesAll(m *intent.HTTPMatch) bool {
	uri := m.URI == nil || m.URI.Kind == intent.Prefix && m.URI.Value == "/" || m.URI.Kind == intent.Regex && m.URI.Value == ".*"
	return uri && m.Scheme == nil && m.Method == nil && m.Authority == nil &&
		len(m.Headers)+len(m.NotHeaders)+len(m.Query)+len(m.Claims) == 0
}

func (r *router) route(w *intent.HTTPRoute, m *intent.HTTPMatch) *routev3.Route {
	origin := w.Origin
	name := w.Name
	out := &routev3.Route{Match: r.match(m)}
	if m != nil {
		origin = m.Origin
		if m.Name != "" {
			name += "." + m.Name
		}
		out.StatPrefix = m.StatPrefix
	}
	out.Name = strings.TrimPrefix(name, ".")
	out.Metadata = provenanceMetadata(append([]source.Origin{origin}, w.Origins...)...)
	if origin.Object.IsZero() {
		out.Metadata = provenanceMetadata(w.Origin)
	}
	headers := headerOps(w.Headers.Request)
	responses := headerOps(w.Headers.Response)
	out.RequestHeadersToRemove, out.RequestHeadersToAdd = headers.remove, headers.add
	out.ResponseHeadersToRemove, out.ResponseHeadersToAdd = responses.remove, responses.add
	switch {
	case w.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(w.Redirect)}
	case w.Direct != nil:
		d := &routev3.DirectResponseAction{Status: uint32(w.Direct.Status)}
		if len(w.Direct.Body) > 0 {
			d.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: w.Direct.Body}}
		}
		out.Action = &routev3.Route_DirectResponse{DirectResponse: d}
	default:
		out.Action = &routev3.Route_Route{Route: r.action(w, m, headers.host)}
		out.Decorator = &routev3.Decorator{Operation: r.operation(w, m)}
	}
	out.TypedPerFilterConfig = perFilter(w)
	return out
}

// operation names spans of the route: host:port/uri of the first destination.
func (r *router) operation(w *intent.HTTPRoute, m *intent.HTTPMatch) string {
	uri := "/*"
	if m != nil && m.URI != nil {
		uri = m.URI.Value
		if m.URI.Kind == intent.Prefix {
			uri += "*"
		}
	}
	d := w.Forward[0]
	port := d.Port
	if port == 0 {
		port = r.port
	}
	return string(d.Host) + ":" + strconv.Itoa(port) + uri
}

func (r *router) action(w *intent.HTTPRoute, m *intent.HTTPMatch, host string) *routev3.RouteAction {
	a := &routev3.RouteAction{Timeout: durationpb.New(w.Timeout), MaxGrpcTimeout: durationpb.New(w.Timeout)}
	settings := r.b.settings(r.c)
	first := w.Forward[0]
	if s := r.b.visible(r.c, r.view, first.Host, first.Port); !s.IsZero() {
		a.HashPolicy = r.hashPolicy(s, first.Port, first.Subset)
	}
	retries := w.Retries
	if retries == nil {
		retries = &settings.OutboundRetries
	}
	a.RetryPolicy = retryPolicy(retries, len(a.HashPolicy) > 0)
	if rw := w.Rewrite; rw != nil {
		applyRewrite(a, rw)
		if rw.Authority != "" {
			host = rw.Authority
		}
	}
	if host != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	for i := range w.Mirrors {
		mr := &w.Mirrors[i]
		if mr.Percent <= 0 {
			continue
		}
		a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:                       r.cluster(mr.Host, mr.Port, mr.Subset),
			RuntimeFraction:               &corev3.RuntimeFractionalPercent{DefaultValue: fraction(mr.Percent)},
			TraceSampled:                  wrapperspb.Bool(false),
			DisableShadowHostSuffixAppend: true,
		})
	}
	r.targets(a, w.Forward)
	return a
}

// targets sets the cluster, or the clusters by weight.
func (r *router) targets(a *routev3.RouteAction, forward []intent.Destination) {
	if len(forward) == 1 && plainHeaders(forward[0].Headers) {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: r.cluster(forward[0].Host, forward[0].Port, forward[0].Subset)}
		return
	}
	w := &routev3.WeightedCluster{}
	for i := range forward {
		d := &forward[i]
		weight := d.Weight
		if len(forward) == 1 && weight == 0 {
			weight = 100
		}
		if weight == 0 {
			continue
		}
		req, resp := headerOps(d.Headers.Request), headerOps(d.Headers.Response)
		cw := &routev3.WeightedCluster_ClusterWeight{
			Name: r.cluster(d.Host, d.Port, d.Subset), Weight: wrapperspb.UInt32(weight),
			RequestHeadersToAdd: req.add, RequestHeadersToRemove: req.remove,
			ResponseHeadersToAdd: resp.add, ResponseHeadersToRemove: resp.remove,
		}
		if req.host != "" {
			cw.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: req.host}
		}
		w.Clusters = append(w.Clusters, cw)
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
}

func plainHeaders(h intent.Headers) bool {
	return len(h.Request.Set)+len(h.Request.Add)+len(h.Request.Remove)+len(h.Response.Set)+len(h.Response.Add)+len(h.Response.Remove) == 0
}

// ops are header operations as Envoy has them, the host apart.
type ops struct {
	add    []*corev3.HeaderValueOption
	remove []string
	host   string
}

func headerOps(h intent.HeaderOps) ops {
	o := ops{remove: h.Remove}
	for _, s := range h.Set {
		if s.Name == ":authority" || s.Name == "host" {
			o.host = s.Value
			continue
		}
		o.add = append(o.add, headerOption(s, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
	}
	for _, a := range h.Add {
		o.add = append(o.add, headerOption(a, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return o
}

func headerOption(h intent.Header, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: h.Name, Value: h.Value}, AppendAction: action}
}

func applyRewrite(a *routev3.RouteAction, rw *intent.Rewrite) {
	// What matched is replaced: the prefix, or for an exact or regular match the whole path.
	if rw.Regex != "" {
		a.RegexRewrite = regexRewrite(rw.Regex, rw.Subst)
		return
	}
	a.PrefixRewrite = rw.URI
}

func regexRewrite(pattern, subst string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: subst}
}

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	http.StatusMovedPermanently: routev3.RedirectAction_MOVED_PERMANENTLY, http.StatusFound: routev3.RedirectAction_FOUND,
	http.StatusSeeOther: routev3.RedirectAction_SEE_OTHER, http.StatusTemporaryRedirect: routev3.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(w *intent.Redirect) *routev3.RedirectAction {
	r := &routev3.RedirectAction{HostRedirect: w.Authority, ResponseCode: redirectCodes[w.Code]}
	switch {
	case w.Path != "":
		r.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: w.Path}
	case w.PathPrefix != "":
		r.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: w.PathPrefix}
	}
	if w.Scheme != "" {
		r.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: w.Scheme}
	}
	switch {
	case w.Port != 0:
		r.PortRedirect = uint32(w.Port)
	case w.DerivePort == intent.PortProtocol && w.Scheme == "https":
		r.PortRedirect = 443
	case w.DerivePort == intent.PortProtocol && w.Scheme == "http":
		r.PortRedirect = 80
	}
	return r
}

func retryPolicy(w *intent.Retries, sticky bool) *routev3.RetryPolicy {
	if w.Attempts <= 0 {
		return nil
	}
	on := w.On
	if len(on) == 0 {
		on = []string{"connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"}
	}
	p := &routev3.RetryPolicy{
		NumRetries:                    wrapperspb.UInt32(uint32(w.Attempts)),
		HostSelectionRetryMaxAttempts: 5,
	}
	for _, code := range w.Codes {
		p.RetriableStatusCodes = append(p.RetriableStatusCodes, uint32(code))
	}
	if len(p.RetriableStatusCodes) > 0 && !slices.Contains(on, "retriable-status-codes") {
		on = append(slices.Clone(on), "retriable-status-codes")
	}
	p.RetryOn = strings.Join(on, ",")
	if w.PerTry > 0 {
		p.PerTryTimeout = durationpb.New(w.PerTry)
	}
	if !w.SameHosts && !sticky {
		p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}}
	}
	if w.RemoteLocalities {
		p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name:       "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
		}
	}
	if w.Backoff > 0 {
		p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(w.Backoff)}
	}
	return p
}

// hashPolicy is what the destination's rule says keeps a client at its endpoint.
func (r *router) hashPolicy(key registry.ServiceKey, port int, subset string) []*routev3.RouteAction_HashPolicy {
	if port == 0 {
		port = r.port
	}
	p := r.b.policies.Get(r.c, policyKey{r.view.Subject, key, port, subset})
	if p.LoadBalancer == nil || p.LoadBalancer.Hash == nil {
		return nil
	}
	h := p.LoadBalancer.Hash
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
	return []*routev3.RouteAction_HashPolicy{out}
}

// perFilter is what the route says to filters: faults and CORS.
func perFilter(w *intent.HTTPRoute) map[string]*anypb.Any {
	out := make(map[string]*anypb.Any)
	if w.Fault != nil {
		out[nameFault] = pack(httpFault(w.Fault))
	}
	if w.CORS != nil {
		out[nameCORS] = pack(corsPolicy(w.CORS))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func httpFault(w *intent.Fault) *faultv3.HTTPFault {
	f := &faultv3.HTTPFault{}
	if w.Delay > 0 && w.DelayPercent > 0 {
		f.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(w.Delay)},
			Percentage:         fraction(w.DelayPercent),
		}
	}
	if w.AbortPercent > 0 && (w.AbortStatus != 0 || w.AbortGRPC != "") {
		f.Abort = &faultv3.FaultAbort{Percentage: fraction(w.AbortPercent)}
		if w.AbortGRPC != "" {
			var code codes.Code
			if err := code.UnmarshalJSON([]byte(strconv.Quote(w.AbortGRPC))); err != nil {
				code = codes.Unknown // the front end has refused other names
			}
			f.Abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: uint32(code)}
		} else {
			f.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(w.AbortStatus)}
		}
	}
	return f
}

// fraction writes a percentage in the coarsest unit that holds it.
func fraction(percent float64) *typev3.FractionalPercent {
	percent = min(percent, 100)
	if percent == math.Trunc(percent) {
		return &typev3.FractionalPercent{Numerator: uint32(percent), Denominator: typev3.FractionalPercent_HUNDRED}
	}
	return &typev3.FractionalPercent{Numerator: uint32(math.Round(percent * 10000)), Denominator: typev3.FractionalPercent_MILLION}
}

func corsPolicy(w *intent.CORS) *corsv3.CorsPolicy {
	p := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(w.Methods, ","), AllowHeaders: strings.Join(w.Headers, ","),
		ExposeHeaders: strings.Join(w.Expose, ","), ForwardNotMatchingPreflights: wrapperspb.Bool(!w.IgnorePreflights),
		FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: fraction(100)},
	}
	if w.MaxAge > 0 {
		p.MaxAge = fmt.Sprint(int(w.MaxAge / time.Second))
	}
	if w.Credentials != nil {
		p.AllowCredentials = wrapperspb.Bool(*w.Credentials)
	}
	for i := range w.Origins {
		p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, stringMatcher(&w.Origins[i], false))
	}
	return p
}
