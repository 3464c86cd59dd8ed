// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	networking "istio.io/api/networking/v1alpha3"
)

// serviceEntry checks a ServiceEntry.
func (c *checker) serviceEntry(o *source.Object[*source.ServiceEntry]) {
	s := o.Spec
	c.entryHosts(s)
	c.entryAddresses(s)
	c.entryPorts(s)
	c.exportTo(s.ExportTo)
	if s.WorkloadSelector != nil {
		c.selector("spec.workloadSelector.labels", s.WorkloadSelector.Labels)
		if len(s.WorkloadSelector.Labels) == 0 {
			c.errorf("spec.workloadSelector.labels", "at least one label is wanted")
		}
		if len(s.Endpoints) > 0 {
			c.errorf("spec.endpoints", "cannot stand together with workloadSelector")
		}
	}
	switch s.Resolution {
	case networking.ServiceEntry_NONE:
		if len(s.Endpoints) > 0 {
			c.errorf("spec.endpoints", "resolution NONE sends connections where the client dialled; endpoints are for STATIC and DNS")
		}
	case networking.ServiceEntry_STATIC:
		if len(s.Endpoints) == 0 && s.WorkloadSelector == nil {
			c.errorf("spec.endpoints", "resolution STATIC needs endpoints or a workloadSelector")
		}
	case networking.ServiceEntry_DYNAMIC_DNS:
		c.errorf("spec.resolution", "DYNAMIC_DNS is not supported yet")
	default:
		if s.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN && len(s.Endpoints) > 1 {
			c.errorf("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint")
		}
	}
	for i, e := range s.Endpoints {
		c.entryEndpoint(at("spec.endpoints[%d]", i), e, s)
	}
	for i, n := range s.SubjectAltNames {
		if n == "" {
			c.errorf(at("spec.subjectAltNames[%d]", i), "is empty")
		}
	}
}

func (c *checker) entryHosts(s *networking.ServiceEntry) {
	if len(s.Hosts) == 0 {
		c.errorf("spec.hosts", "at least one host is wanted")
	}
	for i, h := range s.Hosts {
		field := at("spec.hosts[%d]", i)
		switch {
		case h == "*":
			c.errorf(field, "* would take every host there is; name a suffix, as in *.example.com")
		case !c.host(field, h, true, false):
		case strings.HasPrefix(h, "*") && len(s.Endpoints) == 0 &&
			(s.Resolution == networking.ServiceEntry_DNS || s.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN):
			c.errorf(field, "a wildcard cannot be resolved; resolution %s needs endpoints then", s.Resolution)
		case slices.Contains(s.Hosts[:i], h):
			c.errorf(field, "%q is there twice", h)
		}
	}
}

func (c *checker) entryAddresses(s *networking.ServiceEntry) {
	for i, a := range s.Addresses {
		field := at("spec.addresses[%d]", i)
		c.cidr(field, a)
		if p, err := ParsePrefix(a); err == nil && !p.IsSingleIP() &&
			s.Resolution != networking.ServiceEntry_NONE && s.Resolution != networking.ServiceEntry_STATIC {
			c.errorf(field, "a range of addresses works with resolution NONE and STATIC only")
		}
	}
}

func (c *checker) entryPorts(s *networking.ServiceEntry) {
	numbers, names := map[uint32]bool{}, map[string]bool{}
	for i, p := range s.Ports {
		path := at("spec.ports[%d]", i)
		if p == nil {
			c.errorf(path, "the port is empty")
			continue
		}
		c.port(path+".number", p.Number, false)
		c.port(path+".targetPort", p.TargetPort, true)
		if p.Protocol != "" {
			c.protocol(path+".protocol", p.Protocol)
		}
		if p.Name == "" {
			c.errorf(path+".name", "is missing")
		} else if names[p.Name] {
			c.errorf(path+".name", "%q is there twice", p.Name)
		}
		if numbers[p.Number] {
			c.errorf(path+".number", "%d is there twice", p.Number)
		}
		if p.TargetPort != 0 && s.Resolution == networking.ServiceEntry_NONE {
			c.errorf(path+".targetPort", "resolution NONE keeps the port that the client dialled")
		}
		numbers[p.Number], names[p.Name] = true, true
	}
}

func (c *checker) entryEndpoint(path string, e *networking.WorkloadEntry, s *networking.ServiceEntry) {
	if e == nil {
		c.errorf(path, "the endpoint is empty")
		return
	}
	c.workloadEntrySpec(path, e)
	_, err := netip.ParseAddr(e.Address)
	socket := strings.HasPrefix(e.Address, "unix://")
	switch {
	case s.Resolution == networking.ServiceEntry_STATIC && err != nil && !socket:
		c.errorf(path+".address", "resolution STATIC needs an address; names are for DNS")
	case s.Resolution != networking.ServiceEntry_STATIC && socket:
		c.errorf(path+".address", "a socket works with resolution STATIC only")
	}
	for _, name := range sortedKeys(e.Ports) {
		if !slices.ContainsFunc(s.Ports, func(p *networking.ServicePort) bool { return p.GetName() == name }) {
			c.errorf(at("%s.ports[%s]", path, name), "is none of the names in spec.ports")
		}
	}
}

// workloadEntrySpec checks what a WorkloadEntry and an endpoint of a ServiceEntry have in common.
func (c *checker) workloadEntrySpec(path string, e *networking.WorkloadEntry) {
	switch {
	case e.Address == "":
		c.errorf(path+".address", "is missing")
	case strings.HasPrefix(e.Address, "unix://"):
		if !strings.HasPrefix(e.Address, "unix:///") {
			c.errorf(path+".address", "the path of a socket is absolute: unix:///path")
		}
		if len(e.Ports) > 0 {
			c.errorf(path+".ports", "a socket has no ports")
		}
	default:
		c.host(path+".address", e.Address, false, true)
	}
	for _, name := range sortedKeys(e.Ports) {
		c.port(at("%s.ports[%s]", path, name), e.Ports[name], false)
	}
	c.labels(path+".labels", e.Labels)
	if e.ServiceAccount != "" && !nameForm.MatchString(e.ServiceAccount) {
		c.errorf(path+".serviceAccount", "%q is no name", e.ServiceAccount)
	}
}

func (c *checker) workloadEntry(o *source.Object[*source.WorkloadEntry]) {
	c.workloadEntrySpec("spec", o.Spec)
}
