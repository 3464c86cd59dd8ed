// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package l7 conducts HTTP exchanges. The life of one, in file order:
//
//	server.go      Server: what connections share; ServeConn finds out the version
//	serve_*.go     serve    read requests from a connection: HTTP/1 one at a time, HTTP/2 many
//	seat.go                 the settings of the moment, which may change under an open connection
//	conduct.go     conduct  the steps below, in one goroutine
//	  exchange.go           what is known of an exchange; clocks, cancelling
//	prepare.go     prepare  make the request true: sanitize/; ids, tracing
//	decide.go      match    request to route; admit: run the filter chain, get its permit
//	forward.go     forward  attempts: pick an endpoint, send, await the response's head
//	  attempt.go            where one goes, what its errors mean, how it ends
//	  clock/                how long all of it may take
//	  upload/               the request's body: sent as it comes, kept for another attempt
//	  retry.go              whether to try again, and when
//	  mirror.go, mirror/    copies of requests, sent elsewhere
//	relay.go       relay    the response back: head, body, trailers
//	  tunnel.go             raw bytes both ways, after an upgrade or CONNECT
//	report.go               messages of gRPC calls, counted as they pass
//	client.go               what every response's head is told, and what errors of writing it mean
//	answer.go      answer   the only place where a fault becomes a response
//	finish.go      finish   log, count, trace: observe/; always, whatever happened
//	watch.go, hangup/       who is gone, idle or draining; looked at from outside, twice a second
//
// An exchange that has no body, or a small one, needs no goroutine but the one
// it is served in. Nothing on its path takes a lock that all cores share, sets a
// timer or a deadline unless a timeout is configured, or allocates once pools
// are warm. An exchange keeps the settings, the route table and the clusters it
// began with; the next one on its connection has those of the moment.
//
// What two goroutines may touch at once is guarded by exchange.mu (cancelling)
// and the Body's own lock; connection.mu guards the list of exchanges of a
// connection. They are taken in the order connection, exchange; the Body's alone.
package l7
