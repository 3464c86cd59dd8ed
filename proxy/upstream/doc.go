// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package upstream is the proxy's view of where requests can go: clusters with
// their endpoints, balancing, health, outlier detection, limits and connection
// pools.
//
//	spec.go    what config hands over: immutable values
//	set.go     Set: the live clusters; Ref: a name resolved once, for routes
//	cluster.go Cluster: Pick an endpoint, Open a stream or Dial a connection
//	hosts.go   what balance/ is told of hosts, and asks for them
//	balance/   chooses: priorities, places, policies; knows no host
//	outlier.go ejection
//	dns.go     clusters whose endpoints are names
//	lease.go   Lease: a stream on a connection; what its errors mean
//	pool.go    a host's connections: limits, waiting, draining, sweeping
//	pool_http1.go, pool_http2.go, keepalive.go
//	flight.go  a connection that is being opened for a pool; dial.go counts it
//	dial/      opens one connection: TCP, PROXY header, TLS, who we are
//
// The way of one attempt: Ref.Load, Cluster.Admit (circuit breaker),
// Cluster.Pick, Cluster.Open, then the Stream, then Lease.Done with the outcome.
// Raw bytes take Cluster.Dial instead, and Hangup in the end, or ReportTCP if it
// failed. Admit and Pick do not allocate, nor does leasing an idle HTTP/1 connection.
//
// A change of a Spec or of endpoints waits for nobody: who holds a Cluster, a
// Host or a Lease of before goes on with it. Hosts, and with them connections and
// ejections, live on where the change does not concern them; counters always do.
package upstream
