// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package xds speaks the aggregated discovery service, both ends, as delta and
// as state-of-the-world. It knows no resource: a body is bytes with a type.
//
// The serving end, in the order of a stream's life:
//
//	xds.go      the contract: Hub, Feed, Update, Resource, Client
//	server.go   Server: admits a stream, opens a Feed, carries both directions
//	admit.go    who may: rate, identity against node metadata
//	delta.go    what a delta request means, what a delta response holds
//	sotw.go     the same for state-of-the-world
//	watch.go    what one stream has subscribed to, of one type
//	bucket.go   rate limits
//	limiter.go  the same per peer address
//
// The asking end:
//
//	handler.go     the contract: Handler, Rejection
//	subscriber.go  Subscriber: subscriptions and streams, one after the other
//	topic.go       what is wanted of one type, and what was accepted, so that nothing is applied twice
//	session.go     one stream: receive, apply, answer, send what changed
//	askdelta.go    the delta dialect
//	asksotw.go     the state-of-the-world dialect, for servers without delta
//
// Sources: the xDS protocol description of Envoy ("xDS REST and gRPC protocol"),
// and where that leaves room, what Istio's control plane does, because proxies are tuned to it.
package xds
