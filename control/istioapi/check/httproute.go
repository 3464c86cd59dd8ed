// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// claimsPrefix begins the name of a header that stands for a claim of a token.
const claimsPrefix = "@request.auth.claims"

// Reserved reports whether a header's name stands for a part of the request that has its own field.
func Reserved(name string) bool {
	return slices.Contains([]string{"uri", "scheme", "method", "authority"}, name)
}

// ClaimPath takes @request.auth.claims.a.b or @request.auth.claims[a][b] apart.
func ClaimPath(name string) ([]string, bool) {
	rest, ok := strings.CutPrefix(name, claimsPrefix)
	if !ok || rest == "" {
		return nil, false
	}
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return strings.Split(inner, "]["), ok
	}
	path, ok := strings.CutPrefix(rest, ".")
	return strings.Split(path, "."), ok
}

func (c *checker) httpRoute(path string, h *networking.HTTPRoute, delegate bool) {
	if h == nil {
		c.errorf(path, "the route is empty")
		return
	}
	c.httpAction(path, h, delegate)
	for i, m := range h.Match {
		c.httpMatch(at("%s.match[%d]", path, i), m)
	}
	c.httpDestinations(path, h.Route)
	c.redirect(path+".redirect", h)
	c.directResponse(path+".directResponse", h.DirectResponse)
	c.rewrite(path+".rewrite", h.Rewrite)
	c.millisecond(path+".timeout", h.Timeout)
	c.retries(path+".retries", h.Retries)
	c.fault(path+".fault", h.Fault)
	c.mirrors(path, h)
	c.cors(path+".corsPolicy", h.CorsPolicy)
	c.headers(path+".headers", h.Headers)
	if rewritesHost(h.Headers) && h.Rewrite.GetAuthority() != "" {
		c.errorf(path+".rewrite.authority", "headers.request sets the host, too; only one of the two may")
	}
}

// httpAction checks that a route says what to do, and only one thing.
func (c *checker) httpAction(path string, h *networking.HTTPRoute, delegate bool) {
	if d := h.Delegate; d != nil {
		switch {
		case delegate:
			c.errorf(path+".delegate", "a delegate cannot delegate further")
		case len(h.Route) > 0 || h.Redirect != nil || h.DirectResponse != nil:
			c.errorf(path+".delegate", "cannot stand together with route, redirect or directResponse")
		case !nameForm.MatchString(d.Name):
			c.errorf(path+".delegate.name", "%q is no name of a VirtualService", d.Name)
		case d.Namespace != "" && !nameForm.MatchString(d.Namespace):
			c.errorf(path+".delegate.namespace", "%q is no namespace", d.Namespace)
		}
		return
	}
	var actions []string
	if len(h.Route) > 0 {
		actions = append(actions, "route")
	}
	if h.Redirect != nil {
		actions = append(actions, "redirect")
	}
	if h.DirectResponse != nil {
		actions = append(actions, "directResponse")
	}
	switch {
	case len(actions) == 0:
		c.errorf(path, "one of route, redirect, directResponse and delegate is wanted")
	case len(actions) > 1:
		c.errorf(path, "%s exclude each other", strings.Join(actions, " and "))
	case actions[0] != "route":
		if h.Fault != nil {
			c.errorf(path+".fault", "cannot stand together with %s", actions[0])
		}
		if h.Rewrite != nil {
			c.errorf(path+".rewrite", "cannot stand together with %s", actions[0])
		}
	}
}

func (c *checker) httpMatch(path string, m *networking.HTTPMatchRequest) {
	if m == nil {
		c.errorf(path, "the match is empty")
		return
	}
	c.stringMatch(path+".uri", m.Uri, false)
	c.stringMatch(path+".scheme", m.Scheme, false)
	c.stringMatch(path+".method", m.Method, false)
	c.stringMatch(path+".authority", m.Authority, false)
	for list, matches := range map[string]map[string]*networking.StringMatch{"headers": m.Headers, "withoutHeaders": m.WithoutHeaders} {
		for _, name := range sortedKeys(matches) {
			field := at("%s.%s[%s]", path, list, name)
			switch {
			case strings.HasPrefix(name, claimsPrefix):
				if _, ok := ClaimPath(name); !ok {
					c.errorf(field, "%q names no claim; the form is %s.name or %s[name][name]", name, claimsPrefix, claimsPrefix)
				} else {
					c.partf(field, "no request has a verified claim, because RequestAuthentication is not supported yet")
				}
			case Reserved(name):
				c.warnf(field, "has no effect; the field %s beside it is meant for this", name)
			default:
				c.headerName(field, name)
			}
			c.stringMatch(field, matches[name], true)
		}
	}
	for _, name := range sortedKeys(m.QueryParams) {
		field := at("%s.queryParams[%s]", path, name)
		if name == "" {
			c.errorf(field, "a query parameter has a name")
		}
		c.stringMatch(field, m.QueryParams[name], true)
	}
	c.l4Match(path, nil, m.Port, m.SourceLabels, m.Gateways, m.SourceNamespace)
	if m.StatPrefix != "" && !wordForm.MatchString(m.StatPrefix) {
		c.errorf(path+".statPrefix", "%q is no name", m.StatPrefix)
	}
}

// stringMatch checks a condition. One that is empty asks for presence, where that makes sense.
func (c *checker) stringMatch(path string, m *networking.StringMatch, presence bool) {
	if m == nil {
		return
	}
	switch t := m.MatchType.(type) {
	case *networking.StringMatch_Exact:
		if t.Exact == "" && !presence {
			c.errorf(path+".exact", "an empty value matches nothing")
		}
	case *networking.StringMatch_Prefix:
		if t.Prefix == "" && !presence {
			c.errorf(path+".prefix", "an empty prefix matches everything; leave the condition out")
		}
	case *networking.StringMatch_Regex:
		if !presence || t.Regex != "" && t.Regex != "*" {
			c.regex(path+".regex", t.Regex)
		}
	case nil:
		if !presence {
			c.errorf(path, "one of exact, prefix and regex is wanted")
		}
	}
}

func (c *checker) httpDestinations(path string, list []*networking.HTTPRouteDestination) {
	weights := make([]int32, len(list))
	for i, d := range list {
		field := at("%s.route[%d]", path, i)
		if d == nil {
			c.errorf(field, "the destination is empty")
			continue
		}
		c.destination(field+".destination", d.Destination)
		c.headers(field+".headers", d.Headers)
		weights[i] = d.Weight
	}
	c.weights(path, weights)
}

func (c *checker) redirect(path string, h *networking.HTTPRoute) {
	r := h.Redirect
	if r == nil {
		return
	}
	if r.Uri == "" && r.PrefixRewrite == "" && r.Authority == "" && r.Scheme == "" && r.RedirectPort == nil && r.RedirectCode == 0 {
		c.errorf(path, "says nothing: uri, prefixRewrite, authority, scheme, port or redirectCode is wanted")
	}
	if r.RedirectCode != 0 && !slices.Contains([]uint32{301, 302, 303, 307, 308}, r.RedirectCode) {
		c.errorf(path+".redirectCode", "%d is none of 301, 302, 303, 307 and 308", r.RedirectCode)
	}
	if r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https" {
		c.errorf(path+".scheme", "%q is neither http nor https", r.Scheme)
	}
	if p, ok := r.RedirectPort.(*networking.HTTPRedirect_Port); ok {
		c.port(path+".port", p.Port, false)
	}
	if r.PrefixRewrite != "" {
		if r.Uri != "" {
			c.errorf(path+".prefixRewrite", "cannot stand together with uri")
		}
		for i, m := range h.Match {
			if _, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Prefix); !ok {
				c.errorf(path+".prefixRewrite", "needs a uri prefix in every match, and match[%d] has none", i)
			}
		}
		if len(h.Match) == 0 {
			c.errorf(path+".prefixRewrite", "needs a match with a uri prefix")
		}
	}
}

func (c *checker) directResponse(path string, d *networking.HTTPDirectResponse) {
	if d == nil {
		return
	}
	if d.Status < 200 || d.Status > 599 {
		c.errorf(path+".status", "%d is no status from 200 to 599", d.Status)
	}
	const most, much = 1 << 20, 100 << 10
	switch size := max(len(d.GetBody().GetString_()), len(d.GetBody().GetBytes())); {
	case size > most:
		c.errorf(path+".body", "is %d bytes long; at most %d are served", size, most)
	case size > much:
		c.warnf(path+".body", "is %d bytes long, and every proxy that may answer with it is sent it", size)
	}
}

func (c *checker) rewrite(path string, r *networking.HTTPRewrite) {
	if r == nil {
		return
	}
	x := r.UriRegexRewrite
	switch {
	case r.Uri == "" && r.Authority == "" && x == nil:
		c.errorf(path, "says nothing: uri, uriRegexRewrite or authority is wanted")
	case x != nil && r.Uri != "":
		c.errorf(path+".uriRegexRewrite", "cannot stand together with uri")
	case r.Uri != "" && r.Uri[0] != '/':
		c.errorf(path+".uri", "%q is no path, and no beginning of one: it must begin with /", r.Uri)
	case x != nil:
		c.regex(path+".uriRegexRewrite.match", x.Match)
		if x.Rewrite == "" {
			c.errorf(path+".uriRegexRewrite.rewrite", "is missing")
		}
	}
}

// retryConditions are Envoy's.
var retryConditions = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "refused-stream",
	"retriable-status-codes", "retriable-4xx", "retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

func (c *checker) retries(path string, r *networking.HTTPRetry) {
	if r == nil {
		return
	}
	switch {
	case r.Attempts < 0:
		c.errorf(path+".attempts", "cannot be negative")
	case r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "" || r.RetryRemoteLocalities != nil || r.Backoff != nil):
		c.errorf(path+".attempts", "is 0, which turns retries off, yet other settings of retries are given")
	}
	c.millisecond(path+".perTryTimeout", r.PerTryTimeout)
	c.millisecond(path+".backoff", r.Backoff)
	if r.RetryOn == "" {
		return
	}
	for on := range strings.SplitSeq(r.RetryOn, ",") {
		on = strings.TrimSpace(on)
		if code, err := strconv.Atoi(on); err == nil {
			if code < 100 || code > 599 {
				c.errorf(path+".retryOn", "%d is no HTTP status", code)
			}
		} else if !slices.Contains(retryConditions, on) {
			c.errorf(path+".retryOn", "%q is no condition; there are %s, and statuses", on, strings.Join(retryConditions, ", "))
		}
	}
}

// grpcStatuses are the names that a gRPC status may have.
var grpcStatuses = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

func (c *checker) fault(path string, f *networking.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.Delay == nil && f.Abort == nil {
		c.errorf(path, "says nothing: delay or abort is wanted")
	}
	if d := f.Delay; d != nil {
		c.percent(path+".delay.percentage", max(d.Percentage.GetValue(), float64(d.Percent)))
		switch t := d.HttpDelayType.(type) {
		case *networking.HTTPFaultInjection_Delay_FixedDelay:
			c.millisecond(path+".delay.fixedDelay", t.FixedDelay)
		case *networking.HTTPFaultInjection_Delay_ExponentialDelay:
			c.unsupported(path + ".delay.exponentialDelay")
		default:
			c.errorf(path+".delay.fixedDelay", "is missing")
		}
	}
	if a := f.Abort; a != nil {
		c.percent(path+".abort.percentage", a.Percentage.GetValue())
		switch t := a.ErrorType.(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			if t.HttpStatus < 200 || t.HttpStatus > 599 {
				c.errorf(path+".abort.httpStatus", "%d is no status from 200 to 599", t.HttpStatus)
			}
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			if !slices.Contains(grpcStatuses, t.GrpcStatus) {
				c.errorf(path+".abort.grpcStatus", "%q is none of %s", t.GrpcStatus, strings.Join(grpcStatuses, ", "))
			}
		case *networking.HTTPFaultInjection_Abort_Http2Error:
			c.unsupported(path + ".abort.http2Error")
		default:
			c.errorf(path+".abort", "httpStatus or grpcStatus is wanted")
		}
	}
}

func (c *checker) mirrors(path string, h *networking.HTTPRoute) {
	if h.Mirror != nil {
		c.destination(path+".mirror", h.Mirror)
		if len(h.Mirrors) > 0 {
			c.errorf(path+".mirrors", "cannot stand together with mirror")
		}
	}
	if h.MirrorPercentage != nil {
		c.percent(path+".mirrorPercentage", h.MirrorPercentage.Value)
	}
	if h.MirrorPercent != nil {
		c.percent(path+".mirrorPercent", float64(h.MirrorPercent.Value))
	}
	for i, m := range h.Mirrors {
		field := at("%s.mirrors[%d]", path, i)
		if m == nil {
			c.errorf(field, "the mirror is empty")
			continue
		}
		c.destination(field+".destination", m.Destination)
		c.percent(field+".percentage", m.Percentage.GetValue())
	}
}

func (c *checker) cors(path string, p *networking.CorsPolicy) {
	if p == nil {
		return
	}
	for i, o := range p.AllowOrigins {
		c.stringMatch(at("%s.allowOrigins[%d]", path, i), o, false)
	}
	for i, m := range p.AllowMethods {
		if !headerForm.MatchString(m) {
			c.errorf(at("%s.allowMethods[%d]", path, i), "%q is no method", m)
		}
	}
	for list, names := range map[string][]string{"allowHeaders": p.AllowHeaders, "exposeHeaders": p.ExposeHeaders} {
		for i, n := range names {
			c.headerName(at("%s.%s[%d]", path, list, i), n)
		}
	}
	if p.MaxAge != nil {
		c.atLeast(path+".maxAge", p.MaxAge, 0)
	}
}

func (c *checker) headers(path string, h *networking.Headers) {
	for _, side := range []struct {
		name string
		ops  *networking.Headers_HeaderOperations
	}{{"request", h.GetRequest()}, {"response", h.GetResponse()}} {
		for _, op := range []struct {
			name   string
			values map[string]string
		}{{"set", side.ops.GetSet()}, {"add", side.ops.GetAdd()}} {
			for _, name := range sortedKeys(op.values) {
				field := at("%s.%s.%s[%s]", path, side.name, op.name, name)
				c.headerName(field, name)
				if strings.HasPrefix(name, ":") && (name != ":authority" || side.name == "response") {
					c.warnf(field, "has no effect: pseudo headers cannot be changed")
				}
				if strings.ContainsAny(op.values[name], "\r\n\x00") {
					c.errorf(field, "the value has a line break or a zero byte in it")
				}
			}
		}
		for i, name := range side.ops.GetRemove() {
			field := at("%s.%s.remove[%d]", path, side.name, i)
			c.headerName(field, name)
			if strings.HasPrefix(name, ":") || strings.EqualFold(name, "host") {
				c.warnf(field, "has no effect: %s cannot be removed", name)
			}
		}
	}
}

// rewritesHost reports whether the host of requests is set as a header.
func rewritesHost(h *networking.Headers) bool {
	for _, ops := range []map[string]string{h.GetRequest().GetSet(), h.GetRequest().GetAdd()} {
		for name := range ops {
			if name == ":authority" || strings.EqualFold(name, "host") {
				return true
			}
		}
	}
	return false
}
