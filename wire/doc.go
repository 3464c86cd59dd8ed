// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is the folder of the generated protobufs that no Go module offers:
//
//	workload  istio.workload: what node proxies know of workloads and services
//	security  istio.security: authorization as node proxies enforce it
//	nds       istio.networking.nds.v1: the name table of a proxy's DNS server
//	zds       istio.workload.zds: pods' network namespaces, from agent to node proxy
//
// Field numbers are Istio's: a real ztunnel or agent reads what we write.
// The certificate service (istio.v1.auth) is in istio.io/api/security/v1alpha1.
package wire

//go:generate ./gen.sh
