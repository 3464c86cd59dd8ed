// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// A Declaration is what one object says about a service, or about several alike: one per host.
type Declaration struct {
	Hosts       []mesh.Hostname // complete
	Name        string
	Kube        bool
	Labels      mesh.Labels
	Annotations mesh.Labels
	Ports       []Port
	Resolution  Resolution
	External    bool
	Headless    bool
	Alias       mesh.Hostname
	Addrs       []netip.Addr
	Prefixes    []netip.Prefix
	// WantsVIP: where there is no address, one is given to each host.
	WantsVIP        bool
	ExportTo        Visibility
	SubjectAltNames []string
	Distribution    string
	// Selector names the workloads of the object's namespace that are endpoints; nil for none.
	Selector        mesh.Labels
	PublishNotReady bool
	// Inline are endpoints that the object itself lists.
	Inline []Inline
}

// An Inline is an endpoint written inside the object that declares the service.
type Inline struct {
	source.Workload
	Labels mesh.Labels
}

// ServiceRows are the rows of a table that declare services, and what they can be found by.
type ServiceRows struct {
	declare func(c *derive.Context, k source.Key) *Declaration
	byHost  *derive.Index[mesh.Hostname, source.Key]
	byAddr  *derive.Index[netip.Addr, source.Key]
	// byPrefix and byBits find CIDR addresses: which prefixes there are, and which lengths.
	byPrefix *derive.Index[netip.Prefix, source.Key]
	byBits   *derive.Index[bits, source.Key]
	byGroup  *derive.Index[vipGroup, source.Key]
	byLabel  *derive.Index[Label, source.Key]
	byClient *derive.Index[Clients, source.Key]
}

// WorkloadRows are the rows of a table that describe workloads, and what they can be found by.
type WorkloadRows struct {
	describe func(c *derive.Context, k source.Key) *Workload
	keys     func(c *derive.Context) []source.Key
	kind     source.Kind
	byAddr   *derive.Index[netip.Addr, source.Key]
	byLabel  *derive.Index[Label, source.Key]
	byJoin   *derive.Index[join, source.Key]
}

type (
	// bits is the length of a prefix of one address family.
	bits struct{ total, ones int }
	// join is a service that workloads name as theirs.
	join struct {
		ns      mesh.Namespace
		service string
	}
)

// Declare makes ServiceRows of a table. declare must be pure; nil means that the row declares nothing.
func Declare[T any](g *derive.Graph, t *derive.Table[source.Key, T], name string, declare func(k source.Key, row T) *Declaration) ServiceRows {
	q := derive.NewQuery(g, name+".declaration", deepEqual[*Declaration], func(c *derive.Context, k source.Key) *Declaration {
		row, ok := t.Get(c, k)
		if !ok {
			return nil
		}
		return declare(k, row)
	})
	return ServiceRows{
		declare: q.Get,
		byHost: indexOf(t, name+".host", declare, func(_ source.Key, d *Declaration) []mesh.Hostname {
			return d.Hosts
		}),
		byAddr: indexOf(t, name+".addr", declare, func(_ source.Key, d *Declaration) []netip.Addr {
			return d.Addrs
		}),
		byPrefix: indexOf(t, name+".prefix", declare, func(_ source.Key, d *Declaration) []netip.Prefix {
			return d.Prefixes
		}),
		byBits: indexOf(t, name+".bits", declare, func(_ source.Key, d *Declaration) []bits {
			var all []bits
			for _, p := range d.Prefixes {
				all = append(all, bits{p.Addr().BitLen(), p.Bits()})
			}
			return all
		}),
		byGroup: indexOf(t, name+".vip", declare, func(k source.Key, d *Declaration) []vipGroup {
			var all []vipGroup
			for _, s := range wantVIP(k, d) {
				all = append(all, vipSlot(s).group())
			}
			return all
		}),
		byLabel: indexOf(t, name+".selector", declare, func(k source.Key, d *Declaration) []Label {
			if len(d.Selector) == 0 {
				return nil
			}
			return []Label{Telling(k.Namespace, d.Selector)}
		}),
		byClient: indexOf(t, name+".client", declare, func(_ source.Key, d *Declaration) []Clients {
			return d.ExportTo.Clients()
		}),
	}
}

// Describe makes WorkloadRows of a table whose rows are of one kind. describe must be pure.
func Describe[T any](g *derive.Graph, t *derive.Table[source.Key, T], kind source.Kind, describe func(k source.Key, row T) *Workload) WorkloadRows {
	name := string(kind)
	q := derive.NewQuery(g, name+".workload", deepEqual[*Workload], func(c *derive.Context, k source.Key) *Workload {
		row, ok := t.Get(c, k)
		if !ok {
			return nil
		}
		return describe(k, row)
	})
	return WorkloadRows{
		describe: q.Get,
		keys:     t.Keys,
		kind:     kind,
		byAddr: indexOf(t, name+".addr", describe, func(_ source.Key, w *Workload) []netip.Addr {
			return w.Addrs
		}),
		byLabel: indexOf(t, name+".label", describe, func(_ source.Key, w *Workload) []Label {
			var all []Label
			for k, v := range w.Labels {
				all = append(all, Label{w.Namespace, k, v})
			}
			return all
		}),
		byJoin: indexOf(t, name+".join", describe, func(_ source.Key, w *Workload) []join {
			var all []join
			for _, s := range w.Joins {
				all = append(all, join{w.Namespace, s})
			}
			return all
		}),
	}
}

// indexOf indexes what a pure function makes of each row; entries are made distinct.
func indexOf[T any, W any, I comparable](t *derive.Table[source.Key, T], name string, convert func(source.Key, T) *W, of func(source.Key, *W) []I) *derive.Index[I, source.Key] {
	return derive.NewIndex(t, name, func(k source.Key, row T) []I {
		w := convert(k, row)
		if w == nil {
			return nil
		}
		seen := map[I]bool{}
		return slices.DeleteFunc(slices.Clone(of(k, w)), func(i I) bool {
			dup := seen[i]
			seen[i] = true
			return dup
		})
	})
}

// kubeServices declares Kubernetes services: hosts are NAME.NAMESPACE.svc.domain.
func kubeServices(g *derive.Graph, o *source.Objects, domain string, exportTo []string) ServiceRows {
	return Declare(g, o.Services, "Service", func(k source.Key, row *source.Object[source.Service]) *Declaration {
		s := &row.Spec
		d := &Declaration{
			Hosts: []mesh.Hostname{mesh.ServiceHost(k.Name, k.Namespace, domain)},
			Name:  k.Name, Kube: true, Labels: row.Labels, Annotations: row.Annotations,
			Addrs: s.ClusterIPs, Headless: s.Headless, Selector: s.Selector,
			PublishNotReady: s.PublishNotReady, Distribution: s.Distribution,
			ExportTo: kubeExportTo(row.Annotations, exportTo, k.Namespace),
		}
		switch {
		case s.ExternalName != "":
			d.Resolution, d.Alias, d.Selector = Alias, mesh.NormalHost(s.ExternalName), nil
		case s.Headless:
			d.Resolution = OriginalDst
		default:
			d.WantsVIP = len(s.ClusterIPs) == 0
		}
		for _, p := range s.Ports {
			d.Ports = append(d.Ports, Port{
				Name: p.Name, Number: p.Port, Target: p.Target,
				Protocol: mesh.PortProtocol(p.Port, p.Name, p.AppProtocol, p.UDP),
			})
		}
		return d
	})
}

// podWorkloads describes the workloads that sources report as such.
func podWorkloads(g *derive.Graph, o *source.Objects) WorkloadRows {
	return Describe(g, o.Workloads, source.KindWorkload, func(k source.Key, row *source.Object[source.Workload]) *Workload {
		return &Workload{Workload: row.Spec, Object: k, Namespace: k.Namespace, Name: k.Name, Labels: row.Labels}
	})
}
