// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	security "istio.io/api/security/v1beta1"
	"istio.io/api/type/v1beta1"
)

// StandIn is a [source.StandIn]: a policy that cannot be enforced fails closed. A refused AuthorizationPolicy denies
// what it selects, a refused PeerAuthentication accepts nothing but mutual TLS there; if the selector is what is wrong, in
// the whole namespace. A policy that would only have been logged is none to enforce.
func StandIn(e source.Entry, bad []string) (source.Entry, string) {
	switch o := e.(type) {
	case policyObject:
		return refusedPolicy(o, bad)
	case peerObject:
		return &source.Object[*source.PeerAuthentication]{
			Key: o.Key, Labels: o.Labels, Annotations: o.Annotations, Generation: o.Generation, StandIn: true,
			Spec: &source.PeerAuthentication{
				Selector: trusted(o.Spec.GetSelector(), bad),
				Mtls:     &security.PeerAuthentication_MutualTLS{Mode: security.PeerAuthentication_MutualTLS_STRICT},
			},
		}, "until it is mended everything it selects accepts mutual TLS only"
	}
	return nil, ""
}

// refusedPolicy denies everything. An ALLOW policy can only add to what others allow, so that without rules it
// does; whatever else it was, or may have been, others must not allow it.
func refusedPolicy(o policyObject, bad []string) (source.Entry, string) {
	action, sure := o.Spec.GetAction(), !slices.ContainsFunc(bad, besideAction)
	if sure && action == security.AuthorizationPolicy_AUDIT || o.Annotations[mesh.AnnotationDryRun] == "true" {
		return nil, ""
	}
	spec := &source.AuthorizationPolicy{Selector: trusted(o.Spec.GetSelector(), bad)}
	says := "until it is mended everything it selects is denied, but for what other ALLOW policies allow"
	if !sure || action != security.AuthorizationPolicy_ALLOW {
		spec.Action, spec.Rules = security.AuthorizationPolicy_DENY, []*security.Rule{{}}
		says = "until it is mended everything it selects is denied"
	}
	return &source.Object[*source.AuthorizationPolicy]{
		Key: o.Key, Labels: o.Labels, Annotations: o.Annotations, Generation: o.Generation, StandIn: true, Spec: spec,
	}, says
}

// besideAction reports whether a field that is wrong leaves in doubt which action was meant.
func besideAction(field string) bool {
	return !slices.ContainsFunc([]string{"spec.rules", "spec.selector", "spec.targetRef", "metadata", "apiVersion"},
		func(p string) bool { return strings.HasPrefix(field, p) })
}

// trusted is a selector in which nothing is wrong, or else nil, which selects the namespace.
func trusted(s *v1beta1.WorkloadSelector, bad []string) *v1beta1.WorkloadSelector {
	if slices.ContainsFunc(bad, func(f string) bool { return f == "" || f == "spec" || strings.HasPrefix(f, "spec.selector") }) {
		return nil
	}
	return s
}
