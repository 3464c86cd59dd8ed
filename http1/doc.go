// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package http1 is the HTTP/1.x codec, both ends (RFC 9110 and RFC 9112).
//
//	config    limits, and what is tolerated
//	reader    a connection's pooled read buffer; what a head points to stays put
//	field     field lines, and what a message's fields say about its connection
//	request   request line, Host, target
//	response  status line
//	body      how a body is framed, and reading it; chunked
//	writer    a connection's pooled write buffer, heads, body framing
//	server    ServerConn: reads requests, writes responses
//	client    ClientConn: writes requests, reads responses
//	tunnel    what a connection is after 101, or after 2xx to CONNECT
//	idle      waiting without a buffer; whether an idle connection was closed by its peer
//	pool      buffers
//
// It blocks; it starts no goroutine and sets no deadline of its own. Of one
// exchange, one goroutine may read while another one writes. Abort and Close may
// be called from any goroutine.
//
// Ownership: strings in a head and in a trailer point into the connection's
// pooled read buffer. They are valid until the next ReadRequest (server), until
// the next WriteHead (client), or until Release. There is no allocation per
// exchange once buffers and headers have grown to their sizes.
//
// It is strict, because two ends that read one message differently are how
// requests are smuggled: whatever RFC 9112 lets a recipient repair is refused
// here. What it writes is canonical: one Content-Length or chunked, never both.
package http1
