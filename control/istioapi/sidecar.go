// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"net/netip"
	"slices"
	"strconv"
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

// sidecar checks a Sidecar.
func (c *checker) sidecar(o sidecarObject) {
	s := o.Spec
	if s.WorkloadSelector != nil {
		c.selector("spec.workloadSelector.labels", s.WorkloadSelector.Labels)
	}
	ports := map[uint32]bool{}
	for i, in := range s.Ingress {
		path := at("spec.ingress[%d]", i)
		if in == nil || in.Port == nil {
			c.errorf(path+".port", "is missing")
			continue
		}
		c.ingress(path, in)
		if ports[in.Port.Number] {
			c.errorf(path+".port.number", "%d is there twice", in.Port.Number)
		}
		ports[in.Port.Number] = true
	}
	c.connectionPool("spec.inboundConnectionPool", s.InboundConnectionPool)
	for i, e := range s.Egress {
		path := at("spec.egress[%d]", i)
		if e == nil {
			c.errorf(path, "the listener is empty")
			continue
		}
		c.egress(path, e, i+1 == len(s.Egress))
	}
	if t := s.OutboundTrafficPolicy; t.GetEgressProxy() != nil {
		c.destination("spec.outboundTrafficPolicy.egressProxy", t.EgressProxy)
		if t.Mode != networking.OutboundTrafficPolicy_ALLOW_ANY {
			c.errorf("spec.outboundTrafficPolicy.egressProxy", "goes with mode ALLOW_ANY")
		}
	}
}

func (c *checker) ingress(path string, in *networking.IstioIngressListener) {
	c.port(path+".port.number", in.Port.Number, false)
	if in.Port.Protocol != "" {
		c.protocol(path+".port.protocol", in.Port.Protocol)
	}
	if in.Port.TargetPort != 0 {
		c.unsupported(path + ".port.targetPort")
	}
	if in.Tls != nil {
		c.unsupported(path + ".tls")
	}
	c.bind(path+".bind", in.Bind)
	c.connectionPool(path+".connectionPool", in.ConnectionPool)
	switch e := in.DefaultEndpoint; {
	case e == "" || strings.HasPrefix(e, "unix:///"):
	default:
		a, err := netip.ParseAddrPort(e)
		if err != nil || a.Port() == 0 || !a.Addr().IsLoopback() && !a.Addr().IsUnspecified() {
			c.errorf(path+".defaultEndpoint", "%q is none of 127.0.0.1:port, [::1]:port, 0.0.0.0:port, [::]:port and unix:///path", e)
		}
	}
}

func (c *checker) egress(path string, e *networking.IstioEgressListener, last bool) {
	if e.Port == nil {
		if !last {
			c.errorf(path+".port", "is missing; only the last listener may go without, and it takes all that the others do not")
		}
		if e.Bind != "" {
			c.errorf(path+".bind", "needs a port")
		}
	} else {
		socket := strings.HasPrefix(e.Bind, "unix:///")
		c.port(path+".port.number", e.Port.Number, socket)
		c.protocol(path+".port.protocol", e.Port.Protocol)
		if e.Port.TargetPort != 0 {
			c.unsupported(path + ".port.targetPort")
		}
	}
	c.bind(path+".bind", e.Bind)
	if len(e.Hosts) == 0 {
		c.errorf(path+".hosts", "at least one host is wanted; ~/* is none")
	}
	for i, h := range e.Hosts {
		field := at("%s.hosts[%d]", path, i)
		if slices.Contains(e.Hosts[:i], h) {
			c.errorf(field, "%q is there twice", h)
		}
		ns, host, ok := strings.Cut(h, "/")
		if not, cut := strings.CutPrefix(ns, "~"); cut && not != "" {
			ns = not
		}
		if !ok || ns != "*" && ns != "." && ns != "~" && !nameForm.MatchString(ns) {
			c.errorf(field, "%s is no namespace/host; the namespace may be *, . or ~", strconv.Quote(h))
			continue
		}
		c.host(field, host, true, false)
	}
}
