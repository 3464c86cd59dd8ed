// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// Facts answer questions about services and workloads. Results are shared; nobody writes to them.
type Facts struct {
	// Service is the service of that key; nil if there is none.
	Service *derive.Query[ServiceKey, *Service]
	// Hosts are the keys of all services with that very host, by namespace.
	Hosts *derive.Query[mesh.Hostname, []ServiceKey]
	// Visible lists the services that clients of a namespace see, one per host, by host.
	Visible *derive.Query[mesh.Namespace, []ServiceKey]
	// Resolve is what a complete host name means to clients of a namespace: the service with that very
	// host, or else with the longest wildcard that covers it. Zero if there is none or they may not see it.
	Resolve *derive.Query[HostFrom, ServiceKey]
	// ByAddr is the service that an address belongs to, as clients of a namespace see it: by its own address,
	// one given to it, or its CIDR. Zero if there is none.
	ByAddr *derive.Query[AddrFrom, ServiceKey]

	// Members are the workloads of a service, by key.
	Members *derive.Query[ServiceKey, []source.Key]
	// Endpoints are those of one service port; an empty list if there is no such port. For DNS
	// and DNSRoundRobin these are the names to resolve.
	Endpoints *derive.Query[PortKey, *Endpoints]

	// Workload is a workload by the key of its object (Workload or WorkloadEntry); nil if there is none.
	Workload *derive.Query[source.Key, *Workload]
	// WorkloadsAt are the workloads that have the address.
	WorkloadsAt *derive.Query[netip.Addr, []source.Key]
	// WorkloadKeys are all workloads, by key.
	WorkloadKeys *derive.Query[struct{}, []source.Key]
	// Served are the service ports that a workload serves, by target port, then service.
	Served *derive.Query[source.Key, []ServicePort]

	// Names is the DNS name table of clients of a namespace, by host.
	Names *derive.Query[mesh.Namespace, []Name]
	// Name is one row of it, nil if the host is not known there. Headless services carry the addresses of
	// their workloads.
	Name *derive.Query[HostFrom, *Name]
}

// HostFrom is a host as seen from a namespace.
type HostFrom struct {
	Namespace mesh.Namespace // of the client
	Host      mesh.Hostname  // complete
}

// AddrFrom is an address as seen from a namespace.
type AddrFrom struct {
	Namespace mesh.Namespace // of the client
	Addr      netip.Addr
}
