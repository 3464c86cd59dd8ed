// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/netip"
	"strings"

	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/wire/nds"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/xds"
)

// tableName is the name of the one resource of its type.
const tableName = "names"

func (b *Backend) tableNames(*derive.Context, sight.Client) []string { return []string{tableName} }

// nameTable is what a proxy's DNS server answers from: the names that it sees behind any listener.
func (b *Backend) nameTable(c *derive.Context, n Named) *xds.Resource {
	return b.tables.Get(c, b.Of(c, n.Client.View))
}

func (b *Backend) tableFor(c *derive.Context, s sight.Sight) *xds.Resource {
	t := &nds.NameTable{Table: make(map[string]*nds.NameTable_NameInfo)}
	narrowed := !b.Sidecar(c, s).Object.IsZero()
	for _, name := range b.Facts.Names.Get(c, s.Namespace()) {
		if narrowed && b.Admits(c, s, name.Host).IsZero() {
			continue
		}
		info := &nds.NameTable_NameInfo{Registry: "External", Shortname: name.ShortName, Namespace: string(name.Namespace)}
		if name.Kube {
			info.Registry = "Kubernetes"
		}
		for _, a := range name.Addrs {
			info.Ips = append(info.Ips, a.String())
		}
		t.Table[string(name.Host)] = info
	}
	return b.resource(tableName, t)
}

// address answers what a destination is: "network/ip", "namespace/hostname", or
// "/hostname" for a name as the client's namespace means it. Nothing is known of
// a nil one, or of one that the client's Sidecar keeps from it.
func (b *Backend) address(c *derive.Context, n Named) *xds.Resource {
	first, rest, ok := strings.Cut(n.Name, "/")
	if !ok {
		return nil
	}
	s := b.Of(c, n.Client.View)
	if a, err := netip.ParseAddr(rest); err == nil {
		return b.addressAt(c, n, s, a)
	}
	if first == "" {
		return b.serviceAddress(c, n, b.meant(c, s, rest))
	}
	key := b.Admits(c, s, mesh.NormalHost(rest))
	if key.Namespace != mesh.Namespace(first) {
		return nil
	}
	return b.serviceAddress(c, n, key)
}

// meant is the service that a name means to a client who may shorten it, as DNS would complete it.
func (b *Backend) meant(c *derive.Context, s sight.Sight, name string) registry.ServiceKey {
	host := mesh.NormalHost(name)
	domain := b.Settings(c).Domain
	tries := []mesh.Hostname{host}
	if svc, ns, ok := strings.Cut(strings.TrimSuffix(string(host), ".svc"), "."); !ok {
		tries = []mesh.Hostname{mesh.ServiceHost(svc, s.Namespace(), domain)}
	} else if !strings.Contains(ns, ".") {
		tries = append(tries, mesh.ServiceHost(svc, mesh.Namespace(ns), domain))
	}
	for _, h := range tries {
		if k := b.Admits(c, s, h); !k.IsZero() {
			return k
		}
	}
	return registry.ServiceKey{}
}

func (b *Backend) addressAt(c *derive.Context, n Named, s sight.Sight, a netip.Addr) *xds.Resource {
	if key := b.Facts.ByAddr.Get(c, registry.AddrFrom{Namespace: s.Namespace(), Addr: a}); !key.IsZero() {
		if b.Admits(c, s, key.Host) != key {
			return nil
		}
		return b.serviceAddress(c, n, key)
	}
	for _, k := range b.Facts.WorkloadsAt.Get(c, a) {
		if w := b.Facts.Workload.Get(c, k); w != nil {
			return b.workloadAddress(c, n, k, w)
		}
	}
	return nil
}

func (b *Backend) serviceAddress(c *derive.Context, n Named, key registry.ServiceKey) *xds.Resource {
	s := b.Facts.Service.Get(c, key)
	if s == nil {
		return nil
	}
	out := &workload.Service{Name: s.Name, Namespace: string(s.Namespace), Hostname: string(s.Host), SubjectAltNames: s.SubjectAltNames}
	aliases := []string{string(s.Namespace) + "/" + string(s.Host)}
	for _, a := range s.VIPs() {
		out.Addresses = append(out.Addresses, &workload.NetworkAddress{Network: n.Client.Network, Address: a.AsSlice()})
		aliases = append(aliases, n.Client.Network+"/"+a.String())
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, &workload.Port{
			ServicePort: uint32(p.Number), TargetPort: uint32(p.Target.Number), AppProtocol: appProtocol(p.Protocol),
		})
	}
	r := b.resource(n.Name, &workload.Address{Type: &workload.Address_Service{Service: out}})
	r.Aliases = aliases
	return r
}

func appProtocol(p mesh.Protocol) workload.AppProtocol {
	switch p {
	case mesh.HTTP, mesh.HTTPProxy:
		return workload.AppProtocol_HTTP11
	case mesh.HTTP2:
		return workload.AppProtocol_HTTP2
	case mesh.GRPC, mesh.GRPCWeb:
		return workload.AppProtocol_GRPC
	case mesh.TLS, mesh.HTTPS:
		return workload.AppProtocol_TLS
	case mesh.TCP, mesh.Mongo, mesh.MySQL, mesh.Redis:
		return workload.AppProtocol_TCP
	}
	return workload.AppProtocol_UNKNOWN
}

func (b *Backend) workloadAddress(c *derive.Context, n Named, k source.Key, w *registry.Workload) *xds.Resource {
	out := &workload.Workload{
		Uid: string(w.UID), Name: w.Name, Namespace: string(w.Namespace), Network: w.Network, Node: w.Node, ClusterId: w.Cluster,
		ServiceAccount: string(w.Identity().ServiceAccount), TrustDomain: string(b.Settings(c).TrustDomain),
		CanonicalName: mesh.CanonicalService(w.Labels, w.App), CanonicalRevision: mesh.CanonicalRevision(w.Labels),
		WorkloadName: w.App, WorkloadType: workload.WorkloadType_POD,
		Services: make(map[string]*workload.PortList),
	}
	for _, a := range w.Addrs {
		out.Addresses = append(out.Addresses, a.AsSlice())
	}
	for _, sp := range b.Facts.Served.Get(c, k) {
		name := string(sp.Service.Namespace) + "/" + string(sp.Service.Host)
		list := out.Services[name]
		if list == nil {
			list = &workload.PortList{}
			out.Services[name] = list
		}
		list.Ports = append(list.Ports, &workload.Port{ServicePort: uint32(sp.Port.Number), TargetPort: uint32(sp.Target), AppProtocol: appProtocol(sp.Port.Protocol)})
	}
	r := b.resource(n.Name, &workload.Address{Type: &workload.Address_Workload{Workload: out}})
	r.Aliases = []string{string(w.UID)}
	return r
}
