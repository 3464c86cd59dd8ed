// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package config turns xDS into what the proxy works by: an immutable Snapshot
// of listeners, route tables, and specifications for upstream.Set. No other room
// of the data plane sees xDS.
//
//	snapshot.go  Snapshot, Listener, FilterChain, TLS
//	http.go      HTTP: the settings of a connection manager
//	tcp.go       TCP: the settings of a TCP proxy; NetworkFilter
//	routes.go    RouteTable, RouteRef
package config
