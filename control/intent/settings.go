// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"time"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/mesh"
)

// Settings are those of the mesh as a whole: the part of Istio's MeshConfig that decides
// about traffic. The zero value is not useful; begin with [Defaults].
type Settings struct {
	TrustDomain   mesh.TrustDomain
	TrustAliases  []mesh.TrustDomain
	Domain        string // DNS suffix of services
	RootNamespace mesh.Namespace

	AutoMTLS bool
	// AllowAny: traffic to unknown hosts is let through (outboundTrafficPolicy ALLOW_ANY).
	AllowAny bool
	// InboundLocalhost: inbound traffic goes to 127.0.0.1, not to the workload's address.
	InboundLocalhost bool
	// HTTP10: every proxy takes HTTP/1.0 (Istio's PILOT_HTTP10), not only those whose metadata say so.
	HTTP10 bool

	ConnectTimeout   time.Duration
	DetectionTimeout time.Duration // of sniffing; zero: no limit
	DNSRefresh       time.Duration
	H2Upgrade        bool
	Keepalive        *Keepalive
	LocalityLB       *LocalityLB
	OutboundRetries  Retries
	InboundRetries   Retries

	AccessLogFile   string // empty: no access log
	AccessLogJSON   bool
	AccessLogFormat string // empty: Istio's default

	ServiceExportTo Exports
	RouteExportTo   Exports
	RuleExportTo    Exports
}

// Exports is the visibility of objects that do not say: empty means everywhere.
type Exports []string

// Visibility is what exports mean for an object of namespace ns.
func (e Exports) Visibility(ns mesh.Namespace) registry.Visibility {
	return registry.ParseExportTo(e, ns)
}

// Defaults are Istio's.
func Defaults() Settings {
	return Settings{
		TrustDomain:    mesh.DefaultTrustDomain,
		Domain:         mesh.DefaultDomain,
		RootNamespace:  mesh.RootNamespace,
		AutoMTLS:       true,
		AllowAny:       true,
		ConnectTimeout: 10 * time.Second,
		DNSRefresh:     60 * time.Second,
		LocalityLB:     &LocalityLB{},
		OutboundRetries: Retries{
			Attempts: 2,
			On:       []string{"connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"},
		},
		InboundRetries: Retries{Attempts: 2, On: []string{"reset-before-request"}},
	}
}
