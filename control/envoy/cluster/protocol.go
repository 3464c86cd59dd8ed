// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	stringv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/transport"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// CarriesHTTP says whether a port may carry HTTP, known or found by sniffing.
func CarriesHTTP(p mesh.Protocol) bool { return p.IsHTTP() || p == mesh.Unset }

// A Version is how a cluster's endpoints are spoken to.
type Version uint8

// The versions.
const (
	HTTP1    Version = iota // also of what is not HTTP at all
	HTTP2                   // always
	AsClient                // as the client spoke to us
)

// VersionOf decides for a port; upgrade says that HTTP/1.1 may travel over HTTP/2 unless the pool says otherwise.
func VersionOf(p mesh.Protocol, pool *intent.ConnectionPool, upgrade bool) Version {
	if pool != nil {
		switch pool.H2Upgrade {
		case intent.H2Always:
			upgrade = true
		case intent.H2Never:
			upgrade = false
		}
		if pool.ClientProtocol && CarriesHTTP(p) {
			return AsClient
		}
	}
	switch {
	case p.IsHTTP2(), p == mesh.HTTP && upgrade:
		return HTTP2
	case p == mesh.Unset:
		return AsClient
	}
	return HTTP1
}

// HTTP is what an HTTP connection pool is told besides the version.
type HTTP struct {
	Pool     *intent.ConnectionPool
	Outliers *intent.Outliers
	Verifies transport.Verifies
}

// SetHTTP says how endpoints are spoken to. What is Envoy's default anyway is left out.
func SetHTTP(m *clusterv3.Cluster, v Version, h HTTP) {
	o := &httpv3.HttpProtocolOptions{}
	http2 := &corev3.Http2ProtocolOptions{}
	needed := v != HTTP1
	if h.Pool != nil {
		needed = commonOptions(o, h.Pool) || needed
		if h.Pool.MaxStreams > 0 {
			http2.MaxConcurrentStreams = wrapperspb.UInt32(uint32(h.Pool.MaxStreams))
		}
		if h.Pool.PingInterval > 0 {
			timeout := h.Pool.PingTimeout
			if timeout <= 0 {
				timeout = h.Pool.PingInterval
			}
			http2.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: durationpb.New(h.Pool.PingInterval), Timeout: durationpb.New(timeout)}
		}
	}
	if h.Verifies.NameBySNI {
		o.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: h.Verifies.NameByRequest}
		needed = true
	}
	if h.Outliers != nil && len(h.Outliers.Codes) > 0 {
		o.OutlierDetection = &httpv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: errors(h.Outliers.Codes)}
		needed = true
	}
	if !needed {
		return
	}
	switch v {
	case AsClient:
		o.UpstreamProtocolOptions = likeClient(http2)
	case HTTP2:
		o.UpstreamProtocolOptions = explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2},
		})
	default:
		o.UpstreamProtocolOptions = explicit(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		})
	}
	m.TypedExtensionProtocolOptions = map[string]*anypb.Any{options: emit.Any(o)}
}

// commonOptions reports whether the pool says anything that belongs there.
func commonOptions(o *httpv3.HttpProtocolOptions, pool *intent.ConnectionPool) bool {
	common := &corev3.HttpProtocolOptions{}
	some := false
	idle := pool.HTTPIdle
	if idle == nil {
		idle = pool.TCPIdle
	}
	if idle != nil {
		common.IdleTimeout, some = durationpb.New(*idle), true
	}
	if pool.MaxPerConnection > 0 {
		common.MaxRequestsPerConnection, some = wrapperspb.UInt32(uint32(pool.MaxPerConnection)), true
	}
	if pool.MaxDuration >= time.Millisecond {
		common.MaxConnectionDuration, some = durationpb.New(pool.MaxDuration), true
	}
	if some {
		o.CommonHttpProtocolOptions = common
	}
	return some
}

func explicit(c *httpv3.HttpProtocolOptions_ExplicitHttpConfig) *httpv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c}
}

// errors matches responses that count against an endpoint, in place of those with a status of 5xx.
func errors(codes []int) *matcherv3.MatchPredicate {
	var rules []*matcherv3.MatchPredicate
	for _, c := range codes {
		rules = append(rules, &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &matcherv3.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{{
				Name: ":status", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &stringv3.StringMatcher{
					MatchPattern: &stringv3.StringMatcher_Exact{Exact: strconv.Itoa(c)},
				}},
			}}},
		}})
	}
	if len(rules) == 1 {
		return rules[0]
	}
	return &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_OrMatch{OrMatch: &matcherv3.MatchPredicate_MatchSet{Rules: rules}}}
}
