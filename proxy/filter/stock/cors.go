// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
)

// A CORSPolicy is envoy.extensions.filters.http.cors.v3.CorsPolicy: the value of
// a route's setting (*CORSPolicy). Lists come joined, as they are sent.
type CORSPolicy struct {
	Origins            []match.String // allow_origin_string_match
	Methods            string         // access-control-allow-methods; "" sends none
	Headers            string         // access-control-allow-headers; "*" is sent as it is
	Expose             string         // access-control-expose-headers
	MaxAge             string         // seconds
	Credentials        bool
	PrivateNetwork     bool // allow_private_network_access
	ForwardNotMatching bool // forward_not_matching_preflights; Envoy's default is true
	Disabled           bool // filter_enabled is 0 %
}

// CORS answers preflight requests and marks responses for origins that may read
// them. What to allow comes from routes alone.
type CORS struct{ filter.Pass }

// policyFor returns the policy in force and the request's origin, or nil for a
// request that is none of ours.
func policyFor(x *filter.Exchange) (*CORSPolicy, string) {
	p, ok := x.Setting().(*CORSPolicy)
	if !ok || p.Disabled {
		return nil, ""
	}
	origin := x.Request.Header.Get("origin")
	if origin == "" {
		return nil, ""
	}
	return p, origin
}

func (p *CORSPolicy) allows(origin string) bool {
	for i := range p.Origins {
		if p.Origins[i].Match(origin) {
			return true
		}
	}
	return false
}

// OnRequest answers preflights: OPTIONS with Origin and Access-Control-Request-Method.
func (CORS) OnRequest(x *filter.Exchange) *fault.Fault {
	p, origin := policyFor(x)
	if p == nil || x.Request.Method != "OPTIONS" || x.Request.Header.Get("access-control-request-method") == "" {
		return nil
	}
	if !p.allows(origin) {
		if !p.ForwardNotMatching {
			x.Answer(200, "cors_response", "")
		}
		return nil
	}
	x.Answer(200, "cors_response", "")
	h := &x.Response.Header
	p.mark(h, origin)
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("access-control-allow-methods", p.Methods)
	set("access-control-allow-headers", p.Headers)
	set("access-control-max-age", p.MaxAge)
	if p.PrivateNetwork && x.Request.Header.Get("access-control-request-private-network") == "true" {
		h.Set("access-control-allow-private-network", "true")
	}
	return nil
}

// OnResponse marks responses to allowed origins. An answer of our own to a
// preflight is marked already.
func (CORS) OnResponse(x *filter.Exchange) {
	if x.Details == "cors_response" {
		return
	}
	p, origin := policyFor(x)
	if p == nil || !p.allows(origin) {
		return
	}
	p.mark(&x.Response.Header, origin)
}

func (p *CORSPolicy) mark(h *message.Header, origin string) {
	h.Set("access-control-allow-origin", origin)
	if p.Credentials {
		h.Set("access-control-allow-credentials", "true")
	}
	if p.Expose != "" {
		h.Set("access-control-expose-headers", p.Expose)
	}
}
