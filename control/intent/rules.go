// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"maps"
	"reflect"
	"slices"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// rulesOf is a host as the rules of a namespace name it.
type rulesOf struct {
	Namespace mesh.Namespace
	Host      mesh.Hostname
}

// rules finds the traffic rules for a service: those of the client's namespace, of the service's, of the root's.
func (m *merger) rules(c *derive.Context, k RuleFor) *Rules {
	out := &Rules{}
	covering := registry.Covering(k.Service.Host)
	take := func(ns mesh.Namespace, own bool) {
		for _, h := range covering {
			for _, r := range m.general.Get(c, rulesOf{ns, h}) {
				switch {
				case !own && !r.ExportTo.To(k.Client):
				case len(r.Selector) > 0:
					// A rule for certain clients is for clients of its own namespace.
					if own {
						out.Selective = append(out.Selective, r)
					}
				case out.General == nil:
					out.General = r
				}
			}
		}
	}
	take(k.Client, true)
	if out.General == nil && k.Service.Namespace != k.Client && k.Service.Namespace != "" {
		take(k.Service.Namespace, false)
	}
	if out.General == nil && m.root != k.Client && m.root != k.Service.Namespace {
		take(m.root, false)
	}
	return out
}

// rulesFor lists the rules of one namespace for one host as it is written, merged.
func (m *merger) rulesFor(c *derive.Context, k rulesOf) []*TrafficRule {
	var all []*TrafficRule
	for _, f := range m.fronts {
		if f.Rules.byHost == nil {
			continue
		}
		for _, o := range f.Rules.byHost.Get(c, hostOf{k.Namespace, k.Host}) {
			if r := f.Rules.compile.Get(c, o); r != nil {
				all = mergeRule(all, r)
			}
		}
	}
	return all
}

// mergeRule adds r to rules, or to the one among them that is for the same clients.
func mergeRule(rules []*TrafficRule, r *TrafficRule) []*TrafficRule {
	i := slices.IndexFunc(rules, func(o *TrafficRule) bool {
		return maps.Equal(o.Selector, r.Selector) && reflect.DeepEqual(o.ExportTo, r.ExportTo)
	})
	if i < 0 {
		return append(rules, r)
	}
	merged := *rules[i]
	merged.Origins = slices.Concat(merged.Origins, r.Origins)
	merged.Subsets = slices.Clone(merged.Subsets)
	for _, s := range r.Subsets {
		if !slices.ContainsFunc(merged.Subsets, func(o Subset) bool { return o.Name == s.Name }) {
			merged.Subsets = append(merged.Subsets, s)
		}
	}
	if reflect.ValueOf(merged.Policy).IsZero() {
		merged.Policy = r.Policy
	}
	rules[i] = &merged
	return rules
}
