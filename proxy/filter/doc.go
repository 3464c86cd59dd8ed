// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package filter is the contract between the conductor of an HTTP exchange and
// the filters it runs.
//
//	conn.go     Conn: what is known of the client's connection; shared, read-only
//	exchange.go Exchange: one request and its answer; pooled by the conductor
//	flags.go    Flags: Envoy's response flags
//	peer.go     Peer: the workload at the other end, as metadata exchange tells it
//	filter.go   Filter, Chain, Permit
//
// A Chain is built once, from a list whose first entry is outermost, and then
// shared by all exchanges. For each exchange the conductor calls, in one
// goroutine:
//
//	Admit    OnRequest of each filter in order, until one faults or answers; then the Permit
//	Respond  OnResponse of every filter in reverse order, also for an answer of our own
//	Meters   of every MessageCounter, once, for a gRPC call
//	End      OnEnd of every filter in reverse order, always and exactly once
//
// A filter keeps no reference to the Exchange, nor to a string in it, past OnEnd.
// It keeps its state of one exchange in a typed field of Exchange, declared there.
package filter
