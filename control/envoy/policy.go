// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"reflect"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A policyKey asks for the settings of one cluster as a client sees it.
type policyKey struct {
	Subject intent.Subject
	Service registry.ServiceKey
	Port    int
	Subset  string
}

// A clusterPolicy is what rules say of one cluster, merged: the rule's own
// settings, replaced by those of the port, overlaid by those of the subset.
type clusterPolicy struct {
	intent.ClusterPolicy
	Labels  mesh.Labels // of the subset
	Missing bool        // the subset is not defined
	Origins []source.Origin
}

func deepEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

func (b *Backend) policyOf(c *derive.Context, k policyKey) *clusterPolicy {
	rules := b.wishes.Rules.Get(c, intent.RuleFor{Client: k.Subject.Namespace, Service: k.Service})
	rule := rules.For(k.Subject.Labels())
	if rule == nil {
		return &clusterPolicy{Missing: k.Subset != ""}
	}
	p := &clusterPolicy{ClusterPolicy: atPort(rule.Policy, k.Port), Origins: rule.Origins}
	if k.Subset == "" {
		return p
	}
	for i := range rule.Subsets {
		s := &rule.Subsets[i]
		if s.Name == k.Subset {
			p.ClusterPolicy = overlay(p.ClusterPolicy, atPort(s.Policy, k.Port))
			p.Labels = s.Labels
			p.Origins = append([]source.Origin{s.Origin}, p.Origins...)
			return p
		}
	}
	p.Missing = true
	return p
}

// atPort is a policy as one port sees it. Settings of the port take the place of
// load balancer, pool, outliers and TLS, also those that they leave out.
func atPort(p intent.TrafficPolicy, port int) intent.ClusterPolicy {
	for i := range p.Ports {
		if p.Ports[i].Port == port {
			out := p.ClusterPolicy
			own := &p.Ports[i].ClusterPolicy
			out.LoadBalancer, out.Pool, out.Outliers, out.TLS = own.LoadBalancer, own.Pool, own.Outliers, own.TLS
			return out
		}
	}
	return p.ClusterPolicy
}

// overlay is under with every setting that over has replaced as a whole.
func overlay(under, over intent.ClusterPolicy) intent.ClusterPolicy {
	if over.LoadBalancer != nil {
		under.LoadBalancer = over.LoadBalancer
	}
	if over.Pool != nil {
		under.Pool = over.Pool
	}
	if over.Outliers != nil {
		under.Outliers = over.Outliers
	}
	if over.TLS != nil {
		under.TLS = over.TLS
	}
	if over.Tunnel != nil {
		under.Tunnel = over.Tunnel
	}
	if over.ProxyProtocol != 0 {
		under.ProxyProtocol = over.ProxyProtocol
	}
	if over.RetryBudget != nil {
		under.RetryBudget = over.RetryBudget
	}
	return under
}
