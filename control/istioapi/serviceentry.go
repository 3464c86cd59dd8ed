// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

type (
	serviceEntryObject  = *source.Object[*source.ServiceEntry]
	workloadEntryObject = *source.Object[*source.WorkloadEntry]
)

// labelAutoVIP on a ServiceEntry says whether it is given an address.
const labelAutoVIP = "networking.istio.io/enable-autoallocate-ip"

// declaration says which services a ServiceEntry stands for.
func (p compiler) declaration(k source.Key, o serviceEntryObject) *registry.Declaration {
	s := o.Spec
	d := &registry.Declaration{
		Hosts: p.hosts(k.Namespace, s.Hosts), Name: k.Name, Labels: o.Labels, Annotations: o.Annotations,
		External: s.Location == networking.ServiceEntry_MESH_EXTERNAL, ExportTo: exportTo(s.ExportTo, p.entryExportTo, k.Namespace),
		SubjectAltNames: s.SubjectAltNames, Distribution: o.Annotations[mesh.AnnotationTrafficDist],
		Resolution: map[networking.ServiceEntry_Resolution]registry.Resolution{
			networking.ServiceEntry_NONE:            registry.OriginalDst,
			networking.ServiceEntry_STATIC:          registry.Static,
			networking.ServiceEntry_DNS:             registry.DNS,
			networking.ServiceEntry_DNS_ROUND_ROBIN: registry.DNSRoundRobin,
		}[s.Resolution],
	}
	if s.WorkloadSelector != nil {
		d.Selector = s.WorkloadSelector.Labels
	}
	for _, a := range s.Addresses {
		prefix, err := parsePrefix(a)
		switch {
		case err != nil:
		case prefix.IsSingleIP():
			d.Addrs = append(d.Addrs, prefix.Addr())
		default:
			d.Prefixes = append(d.Prefixes, prefix)
		}
	}
	wildcard := slices.ContainsFunc(d.Hosts, mesh.Hostname.IsWildcard)
	d.WantsVIP = s.Resolution != networking.ServiceEntry_NONE && !wildcard && o.Labels[labelAutoVIP] != "false"
	for _, port := range s.Ports {
		d.Ports = append(d.Ports, registry.Port{
			Name: port.Name, Number: int(port.Number), Target: source.TargetPort{Number: int(port.TargetPort)},
			Protocol: mesh.PortProtocol(int(port.Number), port.Name, port.Protocol, false),
		})
	}
	for _, e := range s.Endpoints {
		w := workloadSpec(e)
		w.UID = mesh.InlineUID(mesh.DefaultCluster, k.Namespace, k.Name, e.Address)
		d.Inline = append(d.Inline, registry.Inline{Workload: w, Labels: e.Labels})
	}
	return d
}

// workload describes the machine that a WorkloadEntry stands for. Labels of the object and of its spec count.
func (p compiler) workload(k source.Key, o workloadEntryObject) *registry.Workload {
	w := &registry.Workload{Workload: workloadSpec(o.Spec), Object: k, Namespace: k.Namespace, Name: k.Name}
	w.UID = mesh.EntryUID(mesh.DefaultCluster, k.Namespace, k.Name)
	w.Labels = mesh.Labels{}
	for _, from := range []map[string]string{o.Labels, o.Spec.Labels} {
		for key, v := range from {
			w.Labels[key] = v
		}
	}
	return w
}

func workloadSpec(e *networking.WorkloadEntry) source.Workload {
	w := source.Workload{
		Network: e.Network, Locality: mesh.ParseLocality(e.Locality), Weight: e.Weight,
		ServiceAccount: mesh.ServiceAccount(e.ServiceAccount), Cluster: mesh.DefaultCluster,
	}
	if e.Locality == "" {
		w.Locality = mesh.ParseLocality(e.Labels[mesh.LabelIstioLocality])
	}
	if path, ok := strings.CutPrefix(e.Address, "unix://"); ok {
		w.Unix = path
	} else if a, err := netip.ParseAddr(e.Address); err == nil {
		w.Addrs = []netip.Addr{a}
	} else {
		w.Host = e.Address
	}
	if len(e.Ports) > 0 {
		w.Ports = map[string]int{}
		for name, port := range e.Ports {
			w.Ports[name] = int(port)
		}
	}
	return w
}

// serviceEntry checks a ServiceEntry.
func (c *checker) serviceEntry(o serviceEntryObject) {
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
		if p, err := parsePrefix(a); err == nil && !p.IsSingleIP() &&
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

func (c *checker) workloadEntry(o workloadEntryObject) { c.workloadEntrySpec("spec", o.Spec) }
