// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"

	"github.com/meltemi/meltemi/control/source"
	networking "istio.io/api/networking/v1alpha3"
)

// destinationRule checks a DestinationRule.
func (c *checker) destinationRule(o *source.Object[*source.DestinationRule]) {
	s := o.Spec
	c.host("spec.host", s.Host, true, true)
	c.exportTo(s.ExportTo)
	c.selector("spec.workloadSelector.matchLabels", s.GetWorkloadSelector().GetMatchLabels())
	c.trafficPolicy("spec.trafficPolicy", s.TrafficPolicy)
	names := map[string]bool{}
	for i, sub := range s.Subsets {
		path := at("spec.subsets[%d]", i)
		switch {
		case sub == nil:
			c.errorf(path, "the subset is empty")
			continue
		case sub.Name == "":
			c.errorf(path+".name", "is missing")
		case !labelForm.MatchString(strings.ToLower(sub.Name)):
			c.errorf(path+".name", "%q is no name: letters, digits and dashes", sub.Name)
		case names[sub.Name]:
			c.errorf(path+".name", "%q is there twice", sub.Name)
		}
		names[sub.Name] = true
		c.labels(path+".labels", sub.Labels)
		c.trafficPolicy(path+".trafficPolicy", sub.TrafficPolicy)
	}
}

func (c *checker) trafficPolicy(path string, t *networking.TrafficPolicy) {
	if t == nil {
		return
	}
	c.loadBalancer(path+".loadBalancer", t.LoadBalancer, t.OutlierDetection)
	c.connectionPool(path+".connectionPool", t.ConnectionPool)
	c.outliers(path+".outlierDetection", t.OutlierDetection)
	c.clientTLS(path+".tls", t.Tls)
	ports := map[uint32]bool{}
	for i, p := range t.PortLevelSettings {
		at := at("%s.portLevelSettings[%d]", path, i)
		number := p.GetPort().GetNumber()
		c.port(at+".port.number", number, false)
		if ports[number] {
			c.errorf(at+".port.number", "%d is there twice", number)
		}
		ports[number] = true
		c.loadBalancer(at+".loadBalancer", p.GetLoadBalancer(), p.GetOutlierDetection())
		c.connectionPool(at+".connectionPool", p.GetConnectionPool())
		c.outliers(at+".outlierDetection", p.GetOutlierDetection())
		c.clientTLS(at+".tls", p.GetTls())
	}
	if t.Tunnel != nil {
		c.unsupported(path + ".tunnel") // bytes must not go another way
	}
	if b := t.RetryBudget; b != nil {
		c.percent(path+".retryBudget.percent", b.Percent.GetValue())
		c.atLeast(path+".retryBudget.budgetInterval", b.BudgetInterval, 0)
		if b.BudgetInterval != nil {
			c.warnf(path+".retryBudget.budgetInterval", "has no effect: the requests that are active now are what counts")
		}
	}
}

func (c *checker) loadBalancer(path string, l *networking.LoadBalancerSettings, o *networking.OutlierDetection) {
	if l == nil {
		return
	}
	if l.ZoneAwareLbSetting != nil {
		c.unsupported(path + ".zoneAwareLbSetting")
	}
	if h := l.GetConsistentHash(); h != nil {
		c.consistentHash(path+".consistentHash", h)
	}
	c.localityLB(path+".localityLbSetting", l.LocalityLbSetting, o)
	warms := l.GetConsistentHash() == nil && l.GetSimple() != networking.LoadBalancerSettings_RANDOM && l.GetSimple() != networking.LoadBalancerSettings_PASSTHROUGH
	if w := l.Warmup; w != nil {
		if w.Duration == nil {
			c.errorf(path+".warmup.duration", "is missing")
		}
		c.millisecond(path+".warmup.duration", w.Duration)
		c.percent(path+".warmup.minimumPercent", w.MinimumPercent.GetValue())
		if w.Aggression != nil && w.Aggression.Value < 1 {
			c.errorf(path+".warmup.aggression", "is at least 1")
		}
		if !warms {
			c.errorf(path+".warmup", "works with ROUND_ROBIN and LEAST_REQUEST only")
		}
	}
	if l.WarmupDurationSecs != nil {
		c.millisecond(path+".warmupDurationSecs", l.WarmupDurationSecs)
		if !warms {
			c.errorf(path+".warmupDurationSecs", "works with ROUND_ROBIN and LEAST_REQUEST only")
		}
		if l.Warmup != nil {
			c.errorf(path+".warmupDurationSecs", "cannot stand together with warmup")
		}
	}
}

func (c *checker) consistentHash(path string, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	switch k := h.HashKey.(type) {
	case nil:
		c.errorf(path, "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is wanted")
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		c.headerName(path+".httpHeaderName", k.HttpHeaderName)
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			c.errorf(path+".httpQueryParameterName", "is empty")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if !k.UseSourceIp {
			c.errorf(path+".useSourceIp", "is false, and nothing else is there to hash")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		if k.HttpCookie.GetName() == "" {
			c.errorf(path+".httpCookie.name", "is missing")
		}
		c.atLeast(path+".httpCookie.ttl", k.HttpCookie.GetTtl(), 0)
	}
	switch a := h.HashAlgorithm.(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
		const most = 5_000_011
		if n := a.Maglev.TableSize; n != 0 && (n > most || !prime(n)) {
			c.errorf(path+".maglev.tableSize", "%d is no prime of at most %d", n, most)
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		c.ringSize(path+".ringHash.minimumRingSize", a.RingHash.MinimumRingSize)
	}
	c.ringSize(path+".minimumRingSize", h.MinimumRingSize)
}

func (c *checker) ringSize(path string, n uint64) {
	const most = 8 << 20 // Envoy's limit
	if n > most {
		c.errorf(path, "%d is above %d", n, most)
	}
}

func prime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func (c *checker) localityLB(path string, l *networking.LocalityLoadBalancerSetting, o *networking.OutlierDetection) {
	if l == nil {
		return
	}
	if len(l.Distribute) > 0 && (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) {
		c.errorf(path+".distribute", "cannot stand together with failover or failoverPriority")
	}
	for i, d := range l.Distribute {
		sum := uint64(0)
		for _, k := range sortedKeys(d.GetTo()) {
			sum += uint64(d.To[k])
			if d.To[k] == 0 {
				c.errorf(at("%s.distribute[%d].to[%s]", path, i, k), "a weight is at least 1")
			}
		}
		if sum != 100 {
			c.errorf(at("%s.distribute[%d].to", path, i), "the weights add up to %d, not 100", sum)
		}
		if d.GetFrom() == "" {
			c.errorf(at("%s.distribute[%d].from", path, i), "is missing")
		}
	}
	for i, f := range l.Failover {
		field := at("%s.failover[%d]", path, i)
		switch {
		case f.GetFrom() == "" || f.GetTo() == "":
			c.errorf(field, "from and to are wanted")
		case f.From == f.To:
			c.errorf(field, "%q cannot take over for itself", f.From)
		case strings.Contains(f.From+f.To, "/") || strings.Contains(f.From+f.To, "*"):
			c.errorf(field, "regions are wanted, without zones or wildcards")
		}
	}
	for i, k := range l.FailoverPriority {
		if name, _, _ := strings.Cut(k, "="); name == "" {
			c.errorf(at("%s.failoverPriority[%d]", path, i), "a label key is wanted")
		}
	}
	if (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) && o == nil {
		c.warnf(path, "has no effect without outlierDetection, which tells when to fail over")
	}
}

func (c *checker) connectionPool(path string, s *networking.ConnectionPoolSettings) {
	if s == nil {
		return
	}
	if s.Tcp == nil && s.Http == nil {
		c.errorf(path, "says nothing: tcp or http is wanted")
	}
	positive := func(field string, v int32) {
		if v < 0 {
			c.errorf(path+field, "cannot be negative")
		}
	}
	if t := s.Tcp; t != nil {
		positive(".tcp.maxConnections", t.MaxConnections)
		c.millisecond(path+".tcp.connectTimeout", t.ConnectTimeout)
		c.millisecond(path+".tcp.maxConnectionDuration", t.MaxConnectionDuration)
		c.atLeast(path+".tcp.idleTimeout", t.IdleTimeout, 0)
		c.millisecond(path+".tcp.tcpKeepalive.time", t.TcpKeepalive.GetTime())
		c.millisecond(path+".tcp.tcpKeepalive.interval", t.TcpKeepalive.GetInterval())
	}
	if h := s.Http; h != nil {
		positive(".http.http1MaxPendingRequests", h.Http1MaxPendingRequests)
		positive(".http.http2MaxRequests", h.Http2MaxRequests)
		positive(".http.maxRequestsPerConnection", h.MaxRequestsPerConnection)
		positive(".http.maxRetries", h.MaxRetries)
		positive(".http.maxConcurrentStreams", h.MaxConcurrentStreams)
		c.atLeast(path+".http.idleTimeout", h.IdleTimeout, 0)
		c.millisecond(path+".http.http2KeepAlive.interval", h.Http2KeepAlive.GetInterval())
		c.millisecond(path+".http.http2KeepAlive.timeout", h.Http2KeepAlive.GetTimeout())
		if h.UseClientProtocol && h.H2UpgradePolicy == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
			c.errorf(path+".http.useClientProtocol", "cannot stand together with h2UpgradePolicy UPGRADE")
		}
	}
}

func (c *checker) outliers(path string, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	if o.ConsecutiveErrors != 0 {
		c.errorf(path+".consecutiveErrors", "does nothing any more; consecutive5xxErrors or consecutiveGatewayErrors is wanted")
	}
	if o.ConsecutiveLocalOriginFailures != nil && !o.SplitExternalLocalOriginErrors {
		c.errorf(path+".consecutiveLocalOriginFailures", "counts only with splitExternalLocalOriginErrors: true")
	}
	c.millisecond(path+".interval", o.Interval)
	c.millisecond(path+".baseEjectionTime", o.BaseEjectionTime)
	c.percent(path+".maxEjectionPercent", float64(o.MaxEjectionPercent))
	c.percent(path+".minHealthPercent", float64(o.MinHealthPercent))
	for i, code := range o.OutlierDetectionHttpErrorCodes {
		if code < 100 || code > 599 {
			c.errorf(at("%s.outlierDetectionHttpErrorCodes[%d]", path, i), "%d is no HTTP status", code)
		}
	}
}

func (c *checker) clientTLS(path string, t *networking.ClientTLSSettings) {
	if t == nil {
		return
	}
	files := t.ClientCertificate != "" || t.PrivateKey != "" || t.CaCertificates != "" || t.CaCrl != ""
	switch t.Mode {
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		if files || t.CredentialName != "" {
			c.errorf(path, "mode ISTIO_MUTUAL uses the mesh's own certificates and takes no others")
		}
	case networking.ClientTLSSettings_MUTUAL:
		if t.CredentialName == "" && (t.ClientCertificate == "" || t.PrivateKey == "") {
			c.errorf(path, "mode MUTUAL needs clientCertificate and privateKey, or credentialName")
		}
	case networking.ClientTLSSettings_SIMPLE:
		if t.ClientCertificate != "" || t.PrivateKey != "" {
			c.errorf(path, "mode SIMPLE sends no certificate; MUTUAL does")
		}
	}
	if t.CredentialName != "" && files {
		c.errorf(path+".credentialName", "cannot stand together with files")
	} else if t.CredentialName != "" {
		c.partf(path+".credentialName", "certificates from secrets are not supported yet: clusters wait for them, so that what was before stays, or requests get 503; name files instead")
	}
	if t.InsecureSkipVerify.GetValue() && (t.CaCertificates != "" || len(t.SubjectAltNames) > 0) {
		c.errorf(path+".insecureSkipVerify", "verifies nothing, yet caCertificates or subjectAltNames are given")
	}
	for i, s := range t.SubjectAltNames {
		if s == "" {
			c.errorf(at("%s.subjectAltNames[%d]", path, i), "is empty")
		}
	}
}
