// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"maps"
	"slices"
	"time"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

type destinationRuleObject = *source.Object[*source.DestinationRule]

func (p compiler) ruleHost(k source.Key, o destinationRuleObject) mesh.Hostname {
	return mesh.ExpandHost(o.Spec.Host, k.Namespace, p.domain)
}

// rule compiles a DestinationRule.
func (p compiler) rule(k source.Key, o destinationRuleObject) *intent.TrafficRule {
	s := o.Spec
	out := &intent.TrafficRule{
		Origins: []source.Origin{{Object: k, Field: "spec"}}, Host: p.ruleHost(k, o), Namespace: k.Namespace,
		Selector: s.GetWorkloadSelector().GetMatchLabels(), ExportTo: exportTo(s.ExportTo, p.ruleExportTo, k.Namespace),
		Policy: trafficPolicy(s.TrafficPolicy),
	}
	for i, sub := range s.Subsets {
		out.Subsets = append(out.Subsets, intent.Subset{
			Origin: source.Origin{Object: k, Field: at("spec.subsets[%d]", i)},
			Name:   sub.Name, Labels: sub.Labels, Policy: trafficPolicy(sub.TrafficPolicy),
		})
	}
	return out
}

func trafficPolicy(t *networking.TrafficPolicy) intent.TrafficPolicy {
	if t == nil {
		return intent.TrafficPolicy{}
	}
	out := intent.TrafficPolicy{ClusterPolicy: intent.ClusterPolicy{
		LoadBalancer: loadBalancer(t.LoadBalancer), Pool: connectionPool(t.ConnectionPool),
		Outliers: outliers(t.OutlierDetection), TLS: clientTLS(t.Tls),
	}}
	if t.ProxyProtocol != nil {
		out.ProxyProtocol = int(t.ProxyProtocol.Version) + 1
	}
	if b := t.RetryBudget; b != nil {
		out.RetryBudget = &intent.RetryBudget{MinConcurrency: b.MinRetryConcurrency, Interval: b.BudgetInterval.AsDuration()}
		if b.Percent != nil {
			out.RetryBudget.Percent = &b.Percent.Value
		}
	}
	for _, p := range t.PortLevelSettings {
		out.Ports = append(out.Ports, intent.PortPolicy{
			Port: int(p.GetPort().GetNumber()),
			ClusterPolicy: intent.ClusterPolicy{
				LoadBalancer: loadBalancer(p.LoadBalancer), Pool: connectionPool(p.ConnectionPool),
				Outliers: outliers(p.OutlierDetection), TLS: clientTLS(p.Tls),
			},
		})
	}
	return out
}

func loadBalancer(l *networking.LoadBalancerSettings) *intent.LoadBalancer {
	if l == nil {
		return nil
	}
	out := &intent.LoadBalancer{Locality: localityLB(l.LocalityLbSetting)}
	switch p := l.LbPolicy.(type) {
	case *networking.LoadBalancerSettings_Simple:
		out.Algorithm = map[networking.LoadBalancerSettings_SimpleLB]intent.Algorithm{
			networking.LoadBalancerSettings_ROUND_ROBIN: intent.RoundRobin,
			networking.LoadBalancerSettings_RANDOM:      intent.Random,
			networking.LoadBalancerSettings_PASSTHROUGH: intent.Passthrough,
		}[p.Simple] // LeastRequest for the rest
	case *networking.LoadBalancerSettings_ConsistentHash:
		consistentHash(out, p.ConsistentHash)
	}
	if w := l.Warmup; w != nil {
		out.Warmup = &intent.Warmup{
			Duration: w.Duration.AsDuration(), MinimumPercent: w.MinimumPercent.GetValue(), Aggression: w.Aggression.GetValue(),
		}
	} else if l.WarmupDurationSecs != nil {
		out.Warmup = &intent.Warmup{Duration: l.WarmupDurationSecs.AsDuration()}
	}
	return out
}

func consistentHash(out *intent.LoadBalancer, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	out.Algorithm, out.TableSize = intent.RingHash, h.MinimumRingSize
	switch a := h.HashAlgorithm.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		out.TableSize = a.RingHash.MinimumRingSize
	case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
		out.Algorithm, out.TableSize = intent.Maglev, a.Maglev.TableSize
	}
	out.Hash = &intent.Hash{Header: h.GetHttpHeaderName(), Query: h.GetHttpQueryParameterName(), SourceIP: h.GetUseSourceIp()}
	if c := h.GetHttpCookie(); c != nil {
		cookie := &intent.Cookie{Name: c.Name, Path: c.Path, TTL: optional(c.Ttl)}
		for _, a := range c.Attributes {
			cookie.Attributes = append(cookie.Attributes, intent.Header{Name: a.Name, Value: a.Value})
		}
		out.Hash.Cookie = cookie
	}
}

func localityLB(l *networking.LocalityLoadBalancerSetting) *intent.LocalityLB {
	if l == nil {
		return nil
	}
	out := &intent.LocalityLB{Priority: l.FailoverPriority}
	if l.Enabled != nil {
		out.Enabled = &l.Enabled.Value
	}
	for _, d := range l.Distribute {
		to := intent.Distribute{From: d.From}
		for _, k := range slices.Sorted(maps.Keys(d.To)) {
			to.To = append(to.To, intent.LocalityWeight{Locality: k, Percent: d.To[k]})
		}
		out.Distribute = append(out.Distribute, to)
	}
	for _, f := range l.Failover {
		out.Failover = append(out.Failover, intent.Failover{From: f.From, To: f.To})
	}
	return out
}

func connectionPool(s *networking.ConnectionPoolSettings) *intent.ConnectionPool {
	if s == nil {
		return nil
	}
	out := &intent.ConnectionPool{}
	if t := s.Tcp; t != nil {
		out.MaxConnections, out.ConnectTimeout = int(t.MaxConnections), t.ConnectTimeout.AsDuration()
		out.MaxDuration, out.TCPIdle = t.MaxConnectionDuration.AsDuration(), optional(t.IdleTimeout)
		if k := t.TcpKeepalive; k != nil {
			out.Keepalive = &intent.Keepalive{Probes: int(k.Probes), Time: k.Time.AsDuration(), Interval: k.Interval.AsDuration()}
		}
	}
	if h := s.Http; h != nil {
		out.MaxPending, out.MaxRequests = int(h.Http1MaxPendingRequests), int(h.Http2MaxRequests)
		out.MaxPerConnection, out.MaxRetries = int(h.MaxRequestsPerConnection), int(h.MaxRetries)
		out.HTTPIdle, out.ClientProtocol, out.MaxStreams = optional(h.IdleTimeout), h.UseClientProtocol, int(h.MaxConcurrentStreams)
		out.PingInterval, out.PingTimeout = h.Http2KeepAlive.GetInterval().AsDuration(), h.Http2KeepAlive.GetTimeout().AsDuration()
		switch h.H2UpgradePolicy {
		case networking.ConnectionPoolSettings_HTTPSettings_UPGRADE:
			out.H2Upgrade = intent.H2Always
		case networking.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE:
			out.H2Upgrade = intent.H2Never
		}
	}
	return out
}

func outliers(o *networking.OutlierDetection) *intent.Outliers {
	if o == nil {
		return nil
	}
	out := &intent.Outliers{
		Consecutive5xx: number(o.Consecutive_5XxErrors), ConsecutiveGateway: number(o.ConsecutiveGatewayErrors),
		ConsecutiveLocal: number(o.ConsecutiveLocalOriginFailures), SplitLocal: o.SplitExternalLocalOriginErrors,
		Interval: o.Interval.AsDuration(), BaseEjection: o.BaseEjectionTime.AsDuration(),
		MaxEjectionPercent: int(o.MaxEjectionPercent), MinHealthPercent: int(o.MinHealthPercent),
	}
	for _, c := range o.OutlierDetectionHttpErrorCodes {
		out.Codes = append(out.Codes, int(c))
	}
	return out
}

func clientTLS(t *networking.ClientTLSSettings) *intent.ClientTLS {
	if t == nil {
		return nil
	}
	return &intent.ClientTLS{
		Mode: map[networking.ClientTLSSettings_TLSmode]intent.TLSMode{
			networking.ClientTLSSettings_DISABLE:      intent.TLSDisable,
			networking.ClientTLSSettings_SIMPLE:       intent.TLSSimple,
			networking.ClientTLSSettings_MUTUAL:       intent.TLSMutual,
			networking.ClientTLSSettings_ISTIO_MUTUAL: intent.TLSMesh,
		}[t.Mode],
		Certificate: t.ClientCertificate, PrivateKey: t.PrivateKey, CA: t.CaCertificates, CRL: t.CaCrl,
		Credential: t.CredentialName, SubjectAltNames: t.SubjectAltNames, SNI: t.Sni,
		SkipVerify: t.InsecureSkipVerify.GetValue(),
	}
}

func optional(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := d.AsDuration()
	return &v
}

func number(v *wrapperspb.UInt32Value) *uint32 {
	if v == nil {
		return nil
	}
	return &v.Value
}
