// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package mesh names the things every part of Meltemi talks about. It imports nothing of ours.
//
//	mesh.go      Namespace, TrustDomain, ServiceAccount, WorkloadUID
//	identity.go  who a workload is: spiffe://td/ns/NS/sa/SA
//	host.go      Hostname: normal form, short names, wildcards
//	cluster.go   ClusterName: outbound|80|v1|host and its SNI form
//	node.go      NodeID: how a proxy introduces itself
//	protocol.go  Protocol: what a port carries, from its name or appProtocol
//	labels.go    Labels, the keys Istio reads, canonical service and revision
//	locality.go  Locality: region/zone/sub-zone
//	ports.go     the port numbers of the mesh
//
// Names are Istio's, so that whoever knows Istio's output can read ours.
// Every Parse function says in its error what is wrong with the text; none of them panics.
package mesh
