// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
)

// peerAuth decides about mutual TLS: port, workload, namespace, mesh. In the root namespace only
// an object without a selector counts.
func (m *merger) peerAuth(c *derive.Context, s Subject) *PeerAuth {
	labels := s.Labels()
	var workload, namespace, mesh *PeerRule
	for _, r := range m.peers.Get(c, s.Namespace) {
		switch {
		case len(r.Selector) == 0 && s.Namespace == m.root:
			mesh = first(mesh, r)
		case len(r.Selector) == 0:
			namespace = first(namespace, r)
		case s.Namespace != m.root && r.Selector.Match(labels):
			workload = first(workload, r)
		}
	}
	if s.Namespace != m.root {
		for _, r := range m.peers.Get(c, m.root) {
			if len(r.Selector) == 0 {
				mesh = first(mesh, r)
			}
		}
	}
	out := &PeerAuth{Mode: MTLSPermissive}
	for _, r := range []*PeerRule{workload, namespace, mesh} {
		if r != nil && r.Mode != MTLSUnset {
			out.Mode = r.Mode
			out.Origins = append(out.Origins, source.Origin{Object: r.Object, Field: "spec.mtls"})
			break
		}
	}
	if workload != nil {
		for _, p := range workload.Ports {
			origin := source.Origin{Object: workload.Object, Field: "spec.portLevelMtls"}
			if p.Mode == MTLSUnset {
				p.Mode = out.Mode
			} else if !slices.Contains(out.Origins, origin) {
				out.Origins = append(out.Origins, origin)
			}
			out.Ports = append(out.Ports, p)
		}
	}
	return out
}

func first[T any](have, next *T) *T {
	if have != nil {
		return have
	}
	return next
}

// authorization lists the policies of the workload's namespace and of the root namespace that select it.
func (m *merger) authorization(c *derive.Context, s Subject) *Authorization {
	labels := s.Labels()
	out := &Authorization{}
	take := func(policies []*Policy) {
		for _, p := range policies {
			if p.Selector.Match(labels) {
				out.Policies = append(out.Policies, p)
			}
		}
	}
	take(m.policies.Get(c, s.Namespace))
	if s.Namespace != m.root {
		take(m.policies.Get(c, m.root))
	}
	slices.SortFunc(out.Policies, func(a, b *Policy) int { return a.Object.Compare(b.Object) })
	return out
}

// accessLog decides about the access log: an object that selects the workload, one of its namespace, one of the mesh,
// the settings.
func (m *merger) accessLog(c *derive.Context, s Subject) *AccessLog {
	labels := s.Labels()
	var workload, namespace, mesh *LogRule
	for _, r := range m.logs.Get(c, s.Namespace) {
		switch {
		case len(r.Selector) == 0 && s.Namespace == m.root:
			mesh = first(mesh, r)
		case len(r.Selector) == 0:
			namespace = first(namespace, r)
		case r.Selector.Match(labels):
			workload = first(workload, r)
		}
	}
	if s.Namespace != m.root {
		for _, r := range m.logs.Get(c, m.root) {
			if len(r.Selector) == 0 {
				mesh = first(mesh, r)
			}
		}
	}
	set := m.wishes.Settings.Get(c, struct{}{})
	out := &AccessLog{Disabled: set.AccessLogFile == "", File: set.AccessLogFile, JSON: set.AccessLogJSON, Format: set.AccessLogFormat}
	for _, r := range []*LogRule{workload, namespace, mesh} {
		if r == nil {
			continue
		}
		out.Disabled = r.Disabled
		out.Origins = []source.Origin{r.Origin}
		if !r.Disabled && out.File == "" {
			out.File = "/dev/stdout"
		}
		break
	}
	if out.Disabled {
		out.File = ""
	}
	return out
}
