// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package http2 speaks HTTP/2 (RFC 9113), both ends. Heads are message.Request
// and message.Response; HPACK's tables come from golang.org/x/net/http2/hpack.
//
//	config.go            what can be tuned: windows, limits, time
//	errors.go            StreamError, ConnError, Unprocessed
//	internal/frame       frames out of a socket, and built
//	internal/head        header blocks to heads, checked, and back
//	loop.go, control.go  the frame loop: one goroutine per connection reads, and never waits for anyone else
//	flood.go             frames that cost us more than they cost the peer, counted
//	conn.go              what both ends share: settings, streams, GOAWAY, the end
//	write.go             many streams, one socket: the output buffer, turns, who writes
//	inflow.go            received data and the windows we grant
//	stream.go            what both ends' streams share: waiting, reading, writing
//	server.go            Server, ServerStream
//	client.go            ClientConn, ClientStream
//	tunnel.go            raw bytes after CONNECT
//
// Reading and writing of one stream may happen in two goroutines at once, each
// direction in one goroutine at a time. Abort and the deadlines may be used
// from any goroutine.
//
// Memory of one connection is bounded by its Config whatever the peer does:
// received data by ConnWindow, output by a fixed buffer (a stream that cannot
// send keeps its caller waiting, it does not queue), header blocks and control
// frames by Limits.
//
// Why the writer is elected, and other choices: RATIONALE.md.
package http2
