// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry joins what all sources report into facts about services: which there are, under
// which names and addresses, who may see them, and which workloads stand behind each port.
//
//	service.go     the values: Service, Port, Endpoint, Workload, Name
//	visibility.go  Visibility: who may see something; entries to find it by
//	declare.go     Declaration: a service as one object states it; Rows: a table that states services
//	facts.go       Facts: the queries
//	build.go       Build makes them
//	merge.go       declarations of one host in one namespace to a Service
//	vip.go         addresses for services that have none
//	visible.go     which services a namespace sees, and which one a host means there
//	members.go     the workloads of a service
//	endpoints.go   endpoints per service port
//	served.go      the ports a workload serves
//	names.go       rows of the DNS name table
//
// A host may be declared in several namespaces. A client means the one in its own namespace;
// failing that, the one of a Kubernetes Service; failing that, the one in the first namespace by name.
// Age never decides.
package registry
