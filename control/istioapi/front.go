// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"fmt"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi/check"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// Admit returns the check that every object must pass before it is in force.
func Admit(s intent.Settings) source.Admit {
	return func(e source.Entry) []source.Problem { return check.Object(e, s.RootNamespace) }
}

// at is a field's path: at("spec.http[%d]", 1).
func at(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func compilerFor(s intent.Settings) compiler {
	return compiler{
		domain: s.Domain, routeExportTo: s.RouteExportTo, ruleExportTo: s.RuleExportTo, entryExportTo: s.ServiceExportTo,
	}
}

// Entries are the services and workloads that Istio's objects describe. It must be called before rows are written.
func Entries(g *derive.Graph, o *source.Objects, s intent.Settings) registry.Entries {
	p := compilerFor(s)
	return registry.Entries{
		Services:  []registry.ServiceRows{registry.Declare(g, o.ServiceEntries, string(source.KindServiceEntry), p.declaration)},
		Workloads: []registry.WorkloadRows{registry.Describe(g, o.WorkloadEntries, source.KindWorkloadEntry, p.workload)},
	}
}

// Front is what Istio's objects wish. It must be called before rows are written.
func Front(g *derive.Graph, o *source.Objects, s intent.Settings) intent.Front {
	p := compilerFor(s)
	return intent.Front{
		Routes:     intent.Routes(g, o.VirtualServices, source.KindVirtualService, p.routeHead, p.routeSet),
		Rules:      intent.TrafficRules(g, o.DestinationRules, source.KindDestinationRule, p.ruleHost, p.rule),
		Gateways:   intent.Gateways(g, o.Gateways, source.KindGateway, p.gatewaySelector, p.gateway),
		Peers:      intent.PerNamespace(g, o.PeerAuthentications, source.KindPeerAuthentication, p.peer),
		Policies:   intent.PerNamespace(g, o.AuthorizationPolicies, source.KindAuthorizationPolicy, p.policy),
		Sidecars:   intent.PerNamespace(g, o.Sidecars, source.KindSidecar, p.sidecar),
		AccessLogs: intent.PerNamespace(g, o.Telemetries, source.KindTelemetry, p.accessLog),
	}
}

// exportTo is the visibility of an object that may leave it to the mesh.
func exportTo(own []string, fallback intent.Exports, ns mesh.Namespace) registry.Visibility {
	if len(own) == 0 {
		return fallback.Visibility(ns)
	}
	return registry.ParseExportTo(own, ns)
}
