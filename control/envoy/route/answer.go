// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/intent"
)

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	http.StatusMovedPermanently: routev3.RedirectAction_MOVED_PERMANENTLY, http.StatusFound: routev3.RedirectAction_FOUND,
	http.StatusSeeOther: routev3.RedirectAction_SEE_OTHER, http.StatusTemporaryRedirect: routev3.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(w *intent.Redirect, secure bool) *routev3.RedirectAction {
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
	case w.DerivePort != intent.PortProtocol: // the request's own, or the authority's
	case w.Scheme == "https", w.Scheme == "" && secure:
		r.PortRedirect = 443
	default:
		r.PortRedirect = 80
	}
	return r
}

func direct(w *intent.DirectResponse) *routev3.DirectResponseAction {
	d := &routev3.DirectResponseAction{Status: uint32(w.Status)}
	if len(w.Body) > 0 {
		d.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: w.Body}}
	}
	return d
}

// perFilter is what the route says to filters: faults and CORS.
func perFilter(w *intent.HTTPRoute) map[string]*anypb.Any {
	if w.Fault == nil && w.CORS == nil {
		return nil
	}
	out := make(map[string]*anypb.Any)
	if w.Fault != nil {
		out[filter.NameFault] = emit.Any(fault(w.Fault))
	}
	if w.CORS != nil {
		out[filter.NameCORS] = emit.Any(cors(w.CORS))
	}
	return out
}

func fault(w *intent.Fault) *faultv3.HTTPFault {
	f := &faultv3.HTTPFault{}
	if w.Delay > 0 && w.DelayPercent > 0 {
		f.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(w.Delay)},
			Percentage:         emit.Share(w.DelayPercent),
		}
	}
	if w.AbortPercent > 0 && (w.AbortStatus != 0 || w.AbortGRPC != "") {
		f.Abort = &faultv3.FaultAbort{Percentage: emit.Share(w.AbortPercent)}
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

func cors(w *intent.CORS) *corsv3.CorsPolicy {
	p := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(w.Methods, ","), AllowHeaders: strings.Join(w.Headers, ","),
		ExposeHeaders: strings.Join(w.Expose, ","), ForwardNotMatchingPreflights: wrapperspb.Bool(!w.IgnorePreflights),
		FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: emit.Share(100)},
	}
	if w.MaxAge > 0 {
		p.MaxAge = strconv.FormatInt(int64(w.MaxAge/time.Second), 10)
	}
	if w.Credentials != nil {
		p.AllowCredentials = wrapperspb.Bool(*w.Credentials)
	}
	for i := range w.Origins {
		p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, text(&w.Origins[i]))
	}
	return p
}
