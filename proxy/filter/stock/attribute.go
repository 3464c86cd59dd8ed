// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/filter"
)

// An Attribute is an expression for a label's value. Of Envoy's attribute
// expressions (CEL) it knows those that name one thing: a literal, or one
// attribute of the exchange, possibly inside string(…).
type Attribute struct {
	literal string
	get     func(*filter.Exchange) string
	http    bool // a connection that is not HTTP has none
}

func (a *Attribute) value(x *filter.Exchange) string {
	switch {
	case a.get == nil:
		return a.literal
	case a.http && x.Request == nil:
		return ""
	}
	return a.get(x)
}

// attributes are those without a key.
func attributes() map[string]func(*filter.Exchange) string {
	return map[string]func(*filter.Exchange) string{
		"request.host":                     func(x *filter.Exchange) string { return x.Request.Authority },
		"request.method":                   func(x *filter.Exchange) string { return x.Request.Method },
		"request.path":                     func(x *filter.Exchange) string { return x.Request.Path },
		"request.scheme":                   func(x *filter.Exchange) string { return x.Request.Scheme },
		"request.protocol":                 func(x *filter.Exchange) string { return x.Request.Version.String() },
		"request.useragent":                func(x *filter.Exchange) string { return x.Request.Header.Get("user-agent") },
		"request.referer":                  func(x *filter.Exchange) string { return x.Request.Header.Get("referer") },
		"request.id":                       func(x *filter.Exchange) string { return x.Request.Header.Get("x-request-id") },
		"response.code":                    func(x *filter.Exchange) string { return strconv.Itoa(x.Response.Status) },
		"response.code_details":            func(x *filter.Exchange) string { return x.Details },
		"source.address":                   func(x *filter.Exchange) string { return x.Remote.String() },
		"destination.address":              func(x *filter.Exchange) string { return x.Conn.Local.String() },
		"destination.port":                 func(x *filter.Exchange) string { return strconv.Itoa(int(x.Conn.Local.Port())) },
		"connection.requested_server_name": func(x *filter.Exchange) string { return x.Conn.SNI },
		"connection.mtls":                  func(x *filter.Exchange) string { return strconv.FormatBool(x.Conn.Mutual) },
		"upstream.address":                 func(x *filter.Exchange) string { return x.Upstream.Remote.String() },
		"xds.route_name":                   func(x *filter.Exchange) string { return x.Target.Route },
		"xds.cluster_name":                 func(x *filter.Exchange) string { return x.Target.Cluster },
		"request.url_path": func(x *filter.Exchange) string {
			path, _ := match.PathOf(x.Request.Path)
			return path
		},
	}
}

// ParseAttribute compiles an expression; one that it does not know is an error
// that names it.
func ParseAttribute(expr string) (Attribute, error) {
	s := strings.TrimSpace(expr)
	if inner, ok := strings.CutPrefix(s, "string("); ok && strings.HasSuffix(inner, ")") {
		s = strings.TrimSpace(strings.TrimSuffix(inner, ")"))
	}
	if lit, ok := quoted(s); ok {
		return Attribute{literal: lit}, nil
	}
	http := strings.HasPrefix(s, "request.") || strings.HasPrefix(s, "response.")
	if get, ok := attributes()[s]; ok {
		return Attribute{get: get, http: http}, nil
	}
	if name, ok := keyed(s, "request.headers"); ok {
		return Attribute{http: http, get: func(x *filter.Exchange) string {
			v, _ := match.RequestField(x.Request, name)
			return v
		}}, nil
	}
	if name, ok := keyed(s, "response.headers"); ok {
		return Attribute{http: http, get: func(x *filter.Exchange) string { return x.Response.Header.Get(name) }}, nil
	}
	return Attribute{}, fmt.Errorf("expression %q is not supported: use a literal, or one of the request.*, response.*, connection.* attributes", expr)
}

func keyed(s, what string) (string, bool) {
	rest, ok := strings.CutPrefix(s, what+"[")
	if !ok || !strings.HasSuffix(rest, "]") {
		return "", false
	}
	return quoted(strings.TrimSuffix(rest, "]"))
}

func quoted(s string) (string, bool) {
	if len(s) < 2 || (s[0] != '\'' && s[0] != '"') || s[len(s)-1] != s[0] {
		return "", false
	}
	in := s[1 : len(s)-1]
	return in, !strings.ContainsAny(in, "\\'\"")
}
