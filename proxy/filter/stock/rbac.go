// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"strings"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry"
)

// An RBACConfig is envoy.extensions.filters.http.rbac.v3.RBAC. As the value of a
// route's setting (*RBACPolicy, made by NewRBACPolicy) it replaces the filter's
// own wholly.
type RBACConfig struct {
	Rules        *authz.Rules // nil: enforces nothing, permits everything
	Shadow       *authz.Rules // nil: no dry run
	StatPrefix   string       // rules_stat_prefix
	ShadowPrefix string       // shadow_rules_stat_prefix
	// Manager is the connection manager's stat_prefix.
	Manager string
}

// RBAC permits or denies requests.
type RBAC struct {
	filter.Pass
	own *RBACPolicy
}

var _ filter.Guard = (*RBAC)(nil)

// NewRBAC returns the filter.
func NewRBAC(cfg RBACConfig, reg *telemetry.Registry) *RBAC {
	return &RBAC{own: NewRBACPolicy(cfg, reg)}
}

// An RBACPolicy is a configuration with its counters.
type RBACPolicy struct {
	RBACConfig
	allowed, denied             *telemetry.Counter
	shadowAllowed, shadowDenied *telemetry.Counter
}

// NewRBACPolicy returns cfg with its counters.
func NewRBACPolicy(cfg RBACConfig, reg *telemetry.Registry) *RBACPolicy {
	manager := telemetry.Tag{Key: "http_conn_manager_prefix", Value: cfg.Manager}
	result := func(v string) *telemetry.Counter {
		return reg.Counter("http.{http_conn_manager_prefix}.rbac."+cfg.StatPrefix+"{authz_enforce_result}",
			manager, telemetry.Tag{Key: "authz_enforce_result", Value: v})
	}
	p := &RBACPolicy{RBACConfig: cfg, allowed: result("allowed"), denied: result("denied")}
	if cfg.Shadow != nil {
		p.shadowAllowed = shadowCounter(reg, manager, cfg.ShadowPrefix, "allowed")
		p.shadowDenied = shadowCounter(reg, manager, cfg.ShadowPrefix, "denied")
	}
	return p
}

// shadowCounter names dry runs as Istio's stats tags take them apart.
func shadowCounter(reg *telemetry.Registry, manager telemetry.Tag, prefix, result string) *telemetry.Counter {
	tags := []telemetry.Tag{manager}
	template := "http.{http_conn_manager_prefix}.rbac." + prefix + "shadow_"
	if action, ok := strings.CutPrefix(strings.TrimSuffix(prefix, "_"), "istio_dry_run_"); ok {
		template = "http.{http_conn_manager_prefix}.rbac.istio_dry_run_{authz_dry_run_action}_shadow_"
		tags = append(tags, telemetry.Tag{Key: "authz_dry_run_action", Value: action})
	}
	tags = append(tags, telemetry.Tag{Key: "authz_dry_run_result", Value: result})
	return reg.Counter(template+"{authz_dry_run_result}", tags...)
}

// Policy is what r enforces where no route says otherwise.
func (r *RBAC) Policy() *RBACPolicy { return r.own }

// Guards marks RBAC as a filter that authorizes.
func (*RBAC) Guards() {}

// OnRequest decides.
func (r *RBAC) OnRequest(x *filter.Exchange) *fault.Fault {
	p := r.own
	if s, ok := x.Setting().(*RBACPolicy); ok {
		p = s
	}
	if p.Shadow != nil {
		v := p.Shadow.Check(&x.Facts)
		x.Shadow = append(x.Shadow, filter.Shadow{Prefix: p.ShadowPrefix, Policy: v.Policy, Allowed: v.Allowed})
		if v.Allowed {
			p.shadowAllowed.Inc()
		} else {
			p.shadowDenied.Inc()
		}
	}
	if p.Rules == nil {
		x.Grant()
		return nil
	}
	v := p.Rules.Check(&x.Facts)
	if v.Allowed {
		p.allowed.Inc()
		x.Grant()
		return nil
	}
	p.denied.Inc()
	return Denial(v)
}

// Denial is the fault of a request or connection that policy denies.
func Denial(v authz.Verdict) *fault.Fault {
	f := &fault.Fault{
		Side: fault.Mesh, Kind: fault.Denied, Status: 403, Details: v.Details, Body: "RBAC: access denied",
		Object: v.Policy, Hint: "this policy denies the caller",
	}
	if v.Policy == "" {
		f.Hint = "no AuthorizationPolicy with action ALLOW matches the caller"
	}
	return f
}
