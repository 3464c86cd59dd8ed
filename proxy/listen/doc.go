// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package listen takes connections in: it opens the sockets a Snapshot asks for
// and brings each connection to the filter chain that concerns it. The life of
// a connection, in file order:
//
//	tie.go          which chain conducts an open connection, from one snapshot to the next
//	manager.go      open, change and drain sockets as snapshots come
//	ports.go        open addresses: who takes one over, what is in the way, what stays after a failure
//	accept.go       accept; count; who is it, where did it want to go
//	proxyproto.go   what a load balancer in front says of the client
//	clienthello.go  what a TLS client says of itself
//	sniff.go        which HTTP the first bytes are
//	chain.go        inspect, choose the chain, terminate TLS, hand to l7 or l4
package listen
