// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/netip"

	"github.com/meltemi/meltemi/mesh"
)

// A Service is a name under which workloads are reached, in the shape that
// Kubernetes gives it. Its host is NAME.NAMESPACE.svc.DOMAIN.
type Service struct {
	ClusterIPs   []netip.Addr // none for headless services
	Headless     bool         // clients see the addresses of its workloads
	ExternalName string       // an alias of this DNS name; nothing else counts then
	Selector     mesh.Labels  // empty: the workloads that name it join it
	Ports        []ServicePort
	// PublishNotReady counts workloads as endpoints before they are ready.
	PublishNotReady bool
	// Distribution is the wish for near endpoints: empty, PreferClose, PreferSameZone or PreferSameNode.
	Distribution string
}

// A ServicePort is one port of a service.
type ServicePort struct {
	Name        string
	Port        int
	Target      TargetPort
	AppProtocol string
	UDP         bool
	NodePort    int // zero if there is none
}

// A TargetPort is where a workload listens: a number, or the name of one of its
// ports. The zero value means the same number as the service's port.
type TargetPort struct {
	Number int
	Name   string
}

// A Workload is something that runs and can be reached: a pod, a process, a machine.
type Workload struct {
	UID   mesh.WorkloadUID
	Addrs []netip.Addr // the first is the one that is dialled
	// Host is a DNS name in place of addresses, Unix a socket's path; at most one of the three is set.
	Host string
	Unix string
	// Ports are the ports it has named.
	Ports          map[string]int
	ServiceAccount mesh.ServiceAccount
	Locality       mesh.Locality
	Network        string
	Cluster        string
	Node           string
	// App is the name of what owns the workload, a Deployment for instance; empty means its own name.
	App    string
	Weight uint32 // share of the traffic among its equals; zero means one
	Health Health
	// Joins names services of its own namespace that it belongs to whatever their
	// selector says: a workload that has no labels registers itself so.
	Joins []string
}

// Health says whether a workload wants traffic.
type Health uint8

const (
	Ready    Health = iota
	NotReady        // known, but not to be used unless nothing else is there
	Draining        // finishes what it has and wants nothing new
)

// String is the state in one word.
func (h Health) String() string {
	switch h {
	case Ready:
		return "ready"
	case NotReady:
		return "not ready"
	case Draining:
		return "draining"
	}
	return "unknown"
}
