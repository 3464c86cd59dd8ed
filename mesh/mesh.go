// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// Distinct string types, so that a namespace is never passed as a host name.
type (
	Namespace      string
	ServiceAccount string
	TrustDomain    string
	WorkloadUID    string // cluster//kind/namespace/name, as in istio.workload.Workload.uid
)

const (
	// DefaultTrustDomain is the trust domain of a mesh that names none.
	DefaultTrustDomain TrustDomain = "cluster.local"
	// DefaultDomain is the DNS suffix of Kubernetes services.
	DefaultDomain = "cluster.local"
	// DefaultServiceAccount is what Kubernetes gives a pod that names none.
	DefaultServiceAccount ServiceAccount = "default"
	// RootNamespace is where mesh-wide policy lives by default.
	RootNamespace Namespace = "istio-system"
	// DefaultCluster is the cluster ID of a single-cluster mesh.
	DefaultCluster = "Kubernetes"
)

// PodUID is the UID of a pod's workload.
func PodUID(cluster string, ns Namespace, name string) WorkloadUID {
	return WorkloadUID(cluster + "//Pod/" + string(ns) + "/" + name)
}

// EntryUID is the UID of a workload described by a WorkloadEntry.
func EntryUID(cluster string, ns Namespace, name string) WorkloadUID {
	return WorkloadUID(cluster + "/networking.istio.io/WorkloadEntry/" + string(ns) + "/" + name)
}

// InlineUID is the UID of a workload written inside a ServiceEntry.
func InlineUID(cluster string, ns Namespace, entry, address string) WorkloadUID {
	return WorkloadUID(cluster + "/networking.istio.io/ServiceEntry/" + string(ns) + "/" + entry + "/" + address)
}

// NormalTrustDomain is td as it appears in SPIFFE IDs: an '@', as in the account
// names of some clouds, becomes a dot; empty means DefaultTrustDomain.
func NormalTrustDomain(td string) TrustDomain {
	if td == "" {
		return DefaultTrustDomain
	}
	return TrustDomain(strings.ReplaceAll(td, "@", "."))
}
