// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package upstream is the proxy's view of where requests can go: clusters with
// their endpoints, balancing, health, outlier detection, limits and connection
// pools.
//
//	spec.go    what config hands over: immutable values
//	set.go     Set: the live clusters; Ref: a name resolved once, for routes
//	cluster.go Cluster: Pick an endpoint, Open a stream or Dial a connection
//	balance.go the policies, pure over a host set; hash.go, schedule.go, avoid.go
//	outlier.go ejection
//	dns.go     clusters whose endpoints are names
//	lease.go   Lease: a stream on a connection; what its errors mean
//	pool.go    a host's connections: limits, waiting, draining, sweeping
//	pool_http1.go, pool_http2.go, keepalive.go
//	flight.go  a connection that is being opened for a pool; dial.go counts it
//	dial/      opens one connection: TCP, PROXY header, TLS
//
// The way of one attempt: Ref.Load, Cluster.Admit (circuit breaker),
// Cluster.Pick, Cluster.Open, then the Stream, then Lease.Done with the outcome.
//
//	func NewSet(cfg Config) *Set
//	func (s *Set) Ref(name string) *Ref          // stable for the life of the Set; creates it if unknown
//	func (s *Set) Put(spec *Spec)                // add or change; equal Hash is a no-op; pools survive what does not concern them
//	func (s *Set) Remove(name string)            // drains: streams finish, idle connections close
//	func (s *Set) Assign(serviceName string, a *Assignment) // endpoints; kept although no cluster asks yet
//	func (s *Set) Snapshot() []Status            // for /clusters and explain
//	func (s *Set) Close()
//	func (r *Ref) Name() string; (r *Ref) Load() *Cluster  // nil: NC
//	func (c *Cluster) Spec() *Spec
//	func (c *Cluster) Admit() *fault.Fault; (c *Cluster) Leave()          // max_requests; 0 allocations
//	func (c *Cluster) AdmitRetry() bool; (c *Cluster) LeaveRetry()
//	func (c *Cluster) Pick(r *Request) (*Host, *fault.Fault)              // pure but for counters; 0 allocations
//	func (c *Cluster) Explain(r *Request) Choice                          // what Pick considers: priorities, loads, healthy, ejected, panic
//	func (c *Cluster) Open(h *Host, r *Request) (*Lease, *fault.Fault)    // a pooled or new connection, a Stream on it
//	func (c *Cluster) Dial(h *Host, r *Request) (net.Conn, *fault.Fault)  // TCP (and TLS) for l4
//	func (c *Cluster) ReportTCP(h *Host, f *fault.Fault)                  // outlier for l4
//	type Lease struct { Stream; … }
//	func (l *Lease) Host() *Host; TLS() *tls.ConnectionState; LocalAddr() netip.AddrPort; Reused() bool; Version() message.Version
//	func (l *Lease) Done(o Outcome)   // Outcome{Status int; Fault *fault.Fault; Reusable bool}: connection back to the pool or closed; outlier, statistics
//	func (h *Host) Endpoint() *Endpoint; Addr() netip.AddrPort; Transport() *Transport
package upstream
