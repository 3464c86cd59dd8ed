// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	rbachttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/telemetry"
)

// Fault reads an HTTPFault; nil for one that injects nothing.
func Fault(m *faultv3.HTTPFault) (*stock.Injection, error) {
	in := &stock.Injection{GRPC: -1, Cluster: m.GetUpstreamCluster()}
	var err error
	if in.Headers, err = Headers(m.GetHeaders()); err != nil {
		return nil, fmt.Errorf("headers%w", err)
	}
	if n := m.GetMaxActiveFaults(); n != nil {
		if in.MaxActive = n.GetValue(); in.MaxActive == 0 {
			return nil, nil // none at once is none
		}
	}
	if d := m.GetDelay(); d != nil {
		in.Delay, in.DelayShare = d.GetFixedDelay().AsDuration(), Fraction(d.GetPercentage())
	}
	if a := m.GetAbort(); a != nil {
		in.Abort, in.AbortShare = true, Fraction(a.GetPercentage())
		switch e := a.GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			in.Status = int(e.HttpStatus)
		case *faultv3.FaultAbort_GrpcStatus:
			in.GRPC = int(e.GrpcStatus)
		default:
			return nil, errors.New("abort: the error is missing")
		}
	}
	if in.Delay == 0 && !in.Abort {
		return nil, nil
	}
	return in, nil
}

// CORS reads a CorsPolicy.
func CORS(m *corsv3.CorsPolicy) (*stock.CORSPolicy, error) {
	p := &stock.CORSPolicy{
		Methods: m.GetAllowMethods(), Headers: m.GetAllowHeaders(), Expose: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(),
		Credentials: m.GetAllowCredentials().GetValue(), PrivateNetwork: m.GetAllowPrivateNetworkAccess().GetValue(),
		ForwardNotMatching: true,
	}
	if f := m.GetForwardNotMatchingPreflights(); f != nil {
		p.ForwardNotMatching = f.GetValue()
	}
	if f := m.GetFilterEnabled(); f != nil {
		switch share := Fraction(f.GetDefaultValue()); share.Of {
		case 0:
			p.Disabled = true
		case share.Per:
		default:
			return nil, errors.New("filter_enabled: only 0 % and 100 % are supported")
		}
	}
	origins, err := each(m.GetAllowOriginStringMatch(), String)
	if err != nil {
		return nil, fmt.Errorf("allow_origin_string_match%w", err)
	}
	p.Origins = origins
	return p, nil
}

// Settings reads a typed_per_filter_config, ordered by name.
func Settings(m map[string]*anypb.Any, reg *telemetry.Registry) ([]filter.Setting, error) {
	var out []filter.Setting
	for _, name := range slices.Sorted(maps.Keys(m)) {
		s, ok, err := setting(name, m[name], reg)
		if err != nil {
			return nil, fmt.Errorf("typed_per_filter_config[%q]: %w", name, err)
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func setting(name string, a *anypb.Any, reg *telemetry.Registry) (s filter.Setting, ok bool, err error) {
	s.Name = name
	optional := false
	if a.GetTypeUrl() == strict.Prefix+"envoy.config.route.v3.FilterConfig" {
		var wrap routev3.FilterConfig
		if err := strict.Unmarshal(a, &wrap); err != nil {
			return s, false, err
		}
		s.Disabled, optional = wrap.GetDisabled(), wrap.GetIsOptional()
		if a = wrap.GetConfig(); a == nil {
			return s, true, nil
		}
	}
	if s.Value, ok, err = settingValue(a, reg); err != nil {
		return s, false, err
	}
	if !ok && !optional {
		return s, false, fmt.Errorf("type %q is not supported", a.GetTypeUrl())
	}
	return s, ok, nil
}

// settingValue returns the values that the filters of proxy/filter/stock
// document; false for a type that none of them has.
func settingValue(a *anypb.Any, reg *telemetry.Registry) (any, bool, error) {
	switch a.GetTypeUrl() {
	case strict.Prefix + "envoy.extensions.filters.http.fault.v3.HTTPFault":
		var m faultv3.HTTPFault
		if err := strict.Unmarshal(a, &m); err != nil {
			return nil, true, err
		}
		in, err := Fault(&m)
		if in == nil {
			in = &stock.Injection{GRPC: -1} // injects nothing, and takes the place of the filter's own
		}
		return in, true, err
	case strict.Prefix + "envoy.extensions.filters.http.cors.v3.CorsPolicy":
		var m corsv3.CorsPolicy
		if err := strict.Unmarshal(a, &m); err != nil {
			return nil, true, err
		}
		p, err := CORS(&m)
		return p, true, err
	case strict.Prefix + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute":
		var m rbachttpv3.RBACPerRoute
		if err := strict.Unmarshal(a, &m); err != nil {
			return nil, true, err
		}
		cfg, err := HTTPRBAC(m.GetRbac(), "")
		if err != nil {
			return nil, true, err
		}
		return stock.NewRBACPolicy(cfg, reg), true, nil
	}
	return nil, false, nil
}

// HTTPRBAC reads the RBAC filter's configuration; nil enforces nothing. Manager
// is the stat_prefix of the connection manager.
func HTTPRBAC(m *rbachttpv3.RBAC, manager string) (stock.RBACConfig, error) {
	cfg := stock.RBACConfig{StatPrefix: m.GetRulesStatPrefix(), ShadowPrefix: m.GetShadowRulesStatPrefix(), Manager: manager}
	var err error
	if cfg.Rules, err = Rules(m.GetRules(), authz.HTTP); err != nil {
		return cfg, fmt.Errorf("rules.%w", err)
	}
	if cfg.Shadow, err = Rules(m.GetShadowRules(), authz.HTTP); err != nil {
		return cfg, fmt.Errorf("shadow_rules.%w", err)
	}
	return cfg, nil
}

// Merge returns the settings that hold where several levels speak, the most
// specific first: for each filter the most specific wins.
func Merge(levels ...[]filter.Setting) []filter.Setting {
	var out []filter.Setting
	for i, level := range levels {
		if len(out) == 0 && allEmpty(levels[i+1:]) {
			return level // shared: most routes say nothing of their own
		}
		for _, s := range level {
			if !slices.ContainsFunc(out, func(o filter.Setting) bool { return o.Name == s.Name }) {
				out = append(out, s)
			}
		}
	}
	return out
}

func allEmpty(levels [][]filter.Setting) bool {
	for _, l := range levels {
		if len(l) > 0 {
			return false
		}
	}
	return true
}
