// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"net/netip"
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

type sidecarObject = *source.Object[*source.Sidecar]

// sidecar compiles a Sidecar.
func (p compiler) sidecar(k source.Key, o sidecarObject) *intent.Sidecar {
	origin := source.Origin{Object: k, Field: "spec"}
	s := o.Spec
	out := &intent.Sidecar{Object: k, Selector: s.GetWorkloadSelector().GetLabels(), Inbound: connectionPool(s.InboundConnectionPool)}
	for i, e := range s.Egress {
		out.Egress = append(out.Egress, p.egress(origin.At("egress", i), k.Namespace, e))
	}
	if len(out.Egress) == 0 {
		out.Egress = []intent.Egress{{Origin: origin, Hosts: []intent.EgressHost{{Host: "*"}}}}
	}
	for i, in := range s.Ingress {
		out.Ingress = append(out.Ingress, ingress(origin.At("ingress", i), in))
	}
	if t := s.OutboundTrafficPolicy; t != nil {
		out.Outbound = &intent.Outbound{AllowAny: t.Mode == networking.OutboundTrafficPolicy_ALLOW_ANY}
		if d := t.EgressProxy; d != nil {
			dest := router{compiler: p, ns: k.Namespace}.destination(origin.At("outboundTrafficPolicy", "egressProxy"), d, 1, 1)
			out.Outbound.Proxy = &dest
		}
	}
	return out
}

func (p compiler) egress(origin source.Origin, own mesh.Namespace, e *networking.IstioEgressListener) intent.Egress {
	proto, _ := mesh.ParseProtocol(e.GetPort().GetProtocol())
	out := intent.Egress{
		Origin: origin, Port: int(e.GetPort().GetNumber()), PortName: e.GetPort().GetName(), Protocol: proto,
		Bind: e.Bind, Capture: intent.Capture(e.CaptureMode),
	}
	for _, h := range e.Hosts {
		not := false
		if rest, ok := strings.CutPrefix(h, "~"); ok && !strings.HasPrefix(rest, "/") {
			h, not = rest, true
		}
		ns, host, _ := strings.Cut(h, "/")
		switch ns {
		case "~":
			continue // nothing
		case "*":
			ns = ""
		case ".":
			ns = string(own)
		}
		out.Hosts = append(out.Hosts, intent.EgressHost{
			Namespace: mesh.Namespace(ns), Host: mesh.ExpandHost(host, mesh.Namespace(ns), p.domain), Not: not,
		})
	}
	return out
}

func ingress(origin source.Origin, in *networking.IstioIngressListener) intent.Ingress {
	port := in.GetPort()
	out := intent.Ingress{
		Origin: origin, Port: int(port.GetNumber()), PortName: port.GetName(), Bind: in.Bind,
		Protocol: mesh.PortProtocol(int(port.GetNumber()), port.GetName(), port.GetProtocol(), false),
		Capture:  intent.Capture(in.CaptureMode), Pool: connectionPool(in.ConnectionPool),
	}
	if path, ok := strings.CutPrefix(in.DefaultEndpoint, "unix://"); ok {
		out.Unix = path
	} else if in.DefaultEndpoint != "" {
		out.Endpoint, _ = netip.ParseAddrPort(in.DefaultEndpoint)
	}
	return out
}
