// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/istioapi/check"
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
		prefix, err := check.ParsePrefix(a)
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
