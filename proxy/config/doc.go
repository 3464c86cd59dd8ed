// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package config turns xDS into what the proxy works by: an immutable Snapshot
// of listeners, route tables, and specifications for upstream.Set. No other room
// of the data plane sees xDS.
//
// What others work with:
//
//	snapshot.go  Snapshot, Listener, FilterChain, TLS, AccessLog
//	chain.go     Listener.Choose: the filter chain for a connection
//	succeed.go   FilterChain.Succeeds: whether open connections may go on under it
//	http.go      HTTP: the settings of a connection manager
//	tcp.go       TCP: the settings of a TCP proxy; NetworkFilter
//	routes.go    RouteTable, RouteRef
//
// The way of an update:
//
//	store.go     Store.Apply: each resource for itself; the table of types
//	entries.go   what is in force and what is to come, by type and name
//	addresses.go who may bind what, after the whole update
//	settle.go    what has warmed takes over; the next Snapshot; Wanted
//	demand.go    Want, Drop, Lacks: what is asked for while traffic waits
//	builder.go   values of resources: read_listener.go, read_chain.go,
//	             read_network.go, read_http.go, read_filters.go, read_accesslog.go
//	hosts.go     virtual hosts that are as they were are not read again
//	static.go    LoadStatic: a bootstrap's static_resources
//	dump.go      ConfigDump; redact.go keeps private keys out of it
//
// Below it: strict refuses what would be ignored, decode reads what needs none of
// the types here, secrets keeps certificates.
//
// A resource is refused with a reason, or all of it is honoured. Route tables,
// certificates and clusters change under those who hold them, through RouteRef,
// TLS configurations that read live, and upstream.Ref; only listeners make a new
// Snapshot, which shares every listener and chain that did not change.
package config
