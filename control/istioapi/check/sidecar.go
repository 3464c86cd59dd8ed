// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	networking "istio.io/api/networking/v1alpha3"
)

// sidecar checks a Sidecar.
func (c *checker) sidecar(o *source.Object[*source.Sidecar]) {
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
