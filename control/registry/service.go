// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A ServiceKey names a service. One host may be declared in several namespaces,
// each with its own clients; within a namespace there is one service per host.
type ServiceKey struct {
	Namespace mesh.Namespace
	Host      mesh.Hostname
}

// Compare orders by host, then namespace.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(cmp.Compare(k.Host, o.Host), cmp.Compare(k.Namespace, o.Namespace))
}

// IsZero reports whether k names nothing.
func (k ServiceKey) IsZero() bool { return k == ServiceKey{} }

// String is namespace/host.
func (k ServiceKey) String() string { return string(k.Namespace) + "/" + string(k.Host) }

// Resolution is how a client finds the endpoints of a service.
type Resolution uint8

const (
	Static        Resolution = iota // endpoints come from the registry
	OriginalDst                     // wherever the client dialled: headless services, and entries with resolution NONE
	DNS                             // the proxy resolves the endpoints' names, or else the host; every answer is an endpoint
	DNSRoundRobin                   // the same, using one answer at a time
	DynamicDNS                      // the proxy resolves what each request names (wildcard hosts)
	Alias                           // another name for Service.Alias
)

// String is the resolution in one word.
func (r Resolution) String() string {
	return [...]string{"Static", "OriginalDst", "DNS", "DNSRoundRobin", "DynamicDNS", "Alias"}[min(int(r), 5)]
}

// A Service is everything known about a service but its endpoints. It is immutable.
type Service struct {
	ServiceKey
	// Object is the object that decides about the service, Merged those that add
	// endpoints or names to it (further ServiceEntries of the same host).
	Object source.Key
	Merged []source.Key
	// Name is the service's short name: of the Kubernetes Service, or else of the object.
	Name string
	// Kube says that the host is NAME.NAMESPACE.svc.DOMAIN, so that short forms of it resolve, too.
	Kube        bool
	Labels      mesh.Labels
	Annotations mesh.Labels
	Ports       []Port
	Resolution  Resolution
	// External: MESH_EXTERNAL; no mesh certificates, source-side telemetry only.
	External bool
	// Headless services have no address of their own: DNS answers with those of the workloads.
	Headless bool
	Alias    mesh.Hostname // for Alias
	// Addrs are the service's own addresses, Prefixes those written as CIDR, AutoVIP the one given to it
	// because it has neither; the zero Addr if it needs none.
	Addrs    []netip.Addr
	Prefixes []netip.Prefix
	AutoVIP  netip.Addr
	ExportTo Visibility
	// SubjectAltNames are identities its endpoints may show besides their own.
	SubjectAltNames []string
	// Distribution is the wish for near endpoints, as in [source.Service].
	Distribution string
}

// VIPs are all addresses that clients may dial to reach the service.
func (s *Service) VIPs() []netip.Addr {
	if s.AutoVIP.IsValid() {
		return append(slices.Clone(s.Addrs), s.AutoVIP)
	}
	return s.Addrs
}

// Port returns the port with that number.
func (s *Service) Port(number int) (Port, bool) {
	for _, p := range s.Ports {
		if p.Number == number {
			return p, true
		}
	}
	return Port{}, false
}

// A Port is one port of a service.
type Port struct {
	Name     string
	Number   int
	Protocol mesh.Protocol // Unset: sniffed
	Target   source.TargetPort
}

// A PortKey names one port of a service; endpoints are found under it.
type PortKey struct {
	Service ServiceKey
	Port    int
}

// An Endpoint is one workload as an endpoint of one service port.
type Endpoint struct {
	// Workload is the object it comes from; for endpoints written inside a ServiceEntry, that object.
	Workload source.Key
	UID      mesh.WorkloadUID
	// Addr is where to dial. If it is not valid, Host (a DNS name) with Port, or Unix, says where.
	Addr netip.AddrPort
	Host string
	Port int
	Unix string

	Labels   mesh.Labels
	Identity mesh.Identity // trust domain left empty: it is the mesh's
	Locality mesh.Locality
	Network  string
	Cluster  string
	Node     string
	Weight   uint32 // never zero
	Health   source.Health
	// MTLS: the workload's proxy accepts the mesh's mutual TLS (label security.istio.io/tlsMode=istio).
	MTLS bool
	App  string // the workload's name in telemetry
}

// Endpoints are those of one service port, ordered by workload and address.
type Endpoints struct {
	PortKey
	List []Endpoint
}

// A Workload is something that runs, with what follows from its labels.
type Workload struct {
	source.Workload
	Object    source.Key
	Namespace mesh.Namespace
	Name      string
	Labels    mesh.Labels
}

// Identity is who the workload is; its trust domain is left empty.
func (w *Workload) Identity() mesh.Identity {
	sa := w.ServiceAccount
	if sa == "" {
		sa = mesh.DefaultServiceAccount
	}
	return mesh.Identity{Namespace: w.Namespace, ServiceAccount: sa}
}

// A ServicePort is a port that a workload serves because a service selects it.
type ServicePort struct {
	Service *Service
	Port    Port
	Target  int // where the workload listens
}

// A Name is a row of the table from which proxies answer DNS questions (NDS).
type Name struct {
	Host      mesh.Hostname
	Addrs     []netip.Addr
	Kube      bool // registry "Kubernetes"; else "External"
	ShortName string
	Namespace mesh.Namespace
}
