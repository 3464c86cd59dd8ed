// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"net/netip"
	"strconv"

	"github.com/meltemi/meltemi/control/source"
)

// readService reads a Kubernetes Service. Fields that only a cluster can act upon are known and
// passed over; every other field that is not known is a problem.
func readService(d *decoder, head source.Object[struct{}], spec *node, line int) source.Entry {
	o := &source.Object[source.Service]{
		Key: head.Key, Labels: head.Labels, Annotations: head.Annotations,
	}
	if spec == nil || spec.kind != mapping {
		d.fail(line, "spec", "the service has no spec")
		return o
	}
	s := &o.Spec
	var kind string
	for _, f := range spec.fields {
		at := "spec." + f.name
		d.at(at, f.line)
		switch f.name {
		case "ports":
			d.list(f.value, at, func(n *node, at string) { s.Ports = append(s.Ports, d.servicePort(n, at)) })
		case "selector":
			s.Selector = d.strings(f.value, at)
		case "clusterIP":
			d.clusterIP(f.value, at, s)
		case "clusterIPs":
			d.list(f.value, at, func(n *node, at string) { d.clusterIP(n, at, s) })
		case "type":
			kind = d.oneOf(f.value, at, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
		case "externalName":
			s.ExternalName = d.text(f.value, at)
		case "publishNotReadyAddresses":
			s.PublishNotReady = d.flag(f.value, at)
		case "trafficDistribution":
			s.Distribution = d.oneOf(f.value, at, "PreferClose", "PreferSameZone", "PreferSameNode")
		case "sessionAffinity", "sessionAffinityConfig", "externalTrafficPolicy", "internalTrafficPolicy",
			"ipFamilies", "ipFamilyPolicy", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
			"allocateLoadBalancerNodePorts", "healthCheckNodePort", "externalIPs":
		default:
			d.fail(f.line, at, "there is no such field")
		}
	}
	d.checkService(s, kind, spec.line)
	return o
}

func (d *decoder) checkService(s *source.Service, kind string, line int) {
	switch {
	case kind == "ExternalName" && s.ExternalName == "":
		d.fail(line, "spec.externalName", "a service of type ExternalName needs one")
	case kind != "ExternalName" && s.ExternalName != "":
		d.fail(line, "spec.externalName", "only a service of type ExternalName may have one")
	case kind != "ExternalName" && len(s.Ports) == 0 && !s.Headless:
		d.fail(line, "spec.ports", "the service has no ports")
	}
	numbers := map[[2]int]bool{}
	names := map[string]bool{}
	for _, p := range s.Ports {
		udp := 0
		if p.UDP {
			udp = 1
		}
		if numbers[[2]int{p.Port, udp}] {
			d.fail(line, "spec.ports", "port %d is there twice", p.Port)
		}
		if len(s.Ports) > 1 && p.Name == "" {
			d.fail(line, "spec.ports", "port %d has no name, which it needs because there are several", p.Port)
		}
		if p.Name != "" && names[p.Name] {
			d.fail(line, "spec.ports", "the name %q is there twice", p.Name)
		}
		numbers[[2]int{p.Port, udp}], names[p.Name] = true, true
	}
}

// clusterIP adds an address; clusterIP and clusterIPs[0] repeat each other.
func (d *decoder) clusterIP(n *node, path string, s *source.Service) {
	switch text := d.text(n, path); text {
	case "":
	case "None":
		s.Headless = true
	default:
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			d.fail(n.line, path, "%q is no IP address", clip(text))
			return
		}
		for _, have := range s.ClusterIPs {
			if have == a {
				return
			}
		}
		s.ClusterIPs = append(s.ClusterIPs, a)
	}
}

func (d *decoder) servicePort(n *node, path string) source.ServicePort {
	var p source.ServicePort
	if n.kind != mapping {
		d.fail(n.line, path, "%s stands where a mapping is wanted", n.kind)
		return p
	}
	for _, f := range n.fields {
		at := path + "." + f.name
		d.at(at, f.line)
		switch f.name {
		case "name":
			p.Name = d.text(f.value, at)
		case "port":
			p.Port = d.port(f.value, at)
		case "targetPort":
			if f.value.kind == str {
				p.Target.Name = f.value.text
			} else if f.value.kind != null {
				p.Target.Number = d.port(f.value, at)
			}
		case "protocol":
			p.UDP = d.oneOf(f.value, at, "TCP", "UDP") == "UDP"
		case "appProtocol":
			p.AppProtocol = d.text(f.value, at)
		case "nodePort":
			p.NodePort = d.port(f.value, at)
		default:
			d.fail(f.line, at, "there is no such field")
		}
	}
	if n.get("port") == nil {
		d.fail(n.line, path+".port", "the port has no number")
	}
	return p
}

func (d *decoder) list(n *node, path string, each func(n *node, path string)) {
	if n.kind == null {
		return
	}
	if n.kind != list {
		d.fail(n.line, path, "%s stands where a list is wanted", n.kind)
		return
	}
	for i, item := range n.items {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.at(at, item.line)
		each(item, at)
	}
}

func (d *decoder) text(n *node, path string) string {
	if n.kind != str && n.kind != null {
		d.fail(n.line, path, "%s stands where a string is wanted (put it in quotes)", n.kind)
		return ""
	}
	return n.text
}

func (d *decoder) flag(n *node, path string) bool {
	if n.kind != boolean && n.kind != null {
		d.fail(n.line, path, "%s stands where true or false is wanted", n.kind)
	}
	return n.kind == boolean && n.text == "true"
}

func (d *decoder) port(n *node, path string) int {
	if v, err := strconv.Atoi(n.text); n.kind == integer && err == nil && v >= 1 && v <= 65535 {
		return v
	}
	d.fail(n.line, path, "a port is a number from 1 to 65535")
	return 0
}

func (d *decoder) oneOf(n *node, path string, values ...string) string {
	text := d.text(n, path)
	if text == "" {
		return ""
	}
	for _, v := range values {
		if v == text {
			return v
		}
	}
	d.fail(n.line, path, "%q is none of %v", clip(text), values)
	return ""
}
