// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sight

import (
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A PolicyKey asks for the settings of one cluster as a client sees it.
type PolicyKey struct {
	Client  intent.Subject // see Asked
	Service registry.ServiceKey
	Port    int
	Subset  string
}

// A Policy is what rules say of one cluster, merged: the rule's own
// settings, replaced by those of the port, overlaid by those of the subset.
type Policy struct {
	intent.ClusterPolicy
	Labels  mesh.Labels // of the subset
	Missing bool        // the subset is not defined
	Origins []source.Origin
}

// Asked is the client as the rules for a service tell clients apart: without labels, unless one of them selects some. All
// clients of a namespace that are not told apart share results.
func (w *World) Asked(c *derive.Context, client intent.Subject, service registry.ServiceKey) intent.Subject {
	if w.selective(c, client.Namespace, service) {
		return client
	}
	return Nobody(client.Namespace)
}

// selective reports whether rules for a service tell clients of a namespace apart.
func (w *World) selective(c *derive.Context, client mesh.Namespace, service registry.ServiceKey) bool {
	return len(w.Wishes.Rules.Get(c, intent.RuleFor{Client: client, Service: service}).Selective) > 0
}

// Personal reports the same for what a host means.
func (w *World) Personal(c *derive.Context, s Sight, host mesh.Hostname) bool {
	svc := w.Service(c, s, host)
	return svc != nil && w.selective(c, s.Namespace(), svc.ServiceKey)
}

func (w *World) policyOf(c *derive.Context, k PolicyKey) *Policy {
	rules := w.Wishes.Rules.Get(c, intent.RuleFor{Client: k.Client.Namespace, Service: k.Service})
	rule := rules.For(k.Client.Labels())
	if rule == nil {
		return &Policy{Missing: k.Subset != ""}
	}
	p := &Policy{ClusterPolicy: atPort(rule.Policy, k.Port), Origins: rule.Origins}
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
	if over.ProxyProtocol != 0 {
		under.ProxyProtocol = over.ProxyProtocol
	}
	if over.RetryBudget != nil {
		under.RetryBudget = over.RetryBudget
	}
	return under
}
