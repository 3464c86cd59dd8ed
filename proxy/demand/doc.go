// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package demand is how the proxy takes its configuration on demand: it finds out
// what a destination is when the workload first calls it, and sees that the data
// path has what it needs (route table, clusters, endpoints) before it answers.
// The first connection is held for that; later ones cost one map lookup.
//
//	directory.go  Directory: Config, Lookup, LookupHost, Resolve; holding the first connection
//	shards.go     the table that every connection reads: copied on write, never locked
//	destination.go Destination: what the data path is handed, and who still uses it
//	decide.go     from what is known of an address to a plan; pure
//	facts.go      Service, and what the control plane said of addresses and names
//	questions.go  asking: each question once, whoever needs the answer
//	entry.go      one destination on its way: decide, want, wait, publish, change
//	handler.go    what arrives: addresses to us, the rest to the store
//	outage.go     the control plane away, slow or flooded: what still goes, and what fails
//	sweep.go      Run: what was not used for a while goes
//	status.go     for admin pages and metrics
//	keep/         what was used, kept on disk for a start without control plane
//
// How a destination is found, in three round trips:
//
//	istio.workload.Address "network/ip"   what is it? A service, with ports and protocols
//	RouteConfiguration "host:port", or
//	Listener "ip_port", and with either
//	Cluster "outbound|port||host"         asked for together, by Store.Want
//	ClusterLoadAssignment                 asked for by the store, as for every cluster
//
// Everything stays subscribed while it is used, so it follows every change. It is
// ordinary delta xDS; nothing here is private to us but the moment of asking.
package demand
