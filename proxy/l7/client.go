// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"os"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/upload"
)

// finishHead does what is the connection manager's, to every response: after
// all filters have seen it.
func (x *exchange) finishHead() {
	cfg, h := x.site.http, &x.Response.Header
	switch cfg.ServerHeader {
	case config.ServerOverwrite:
		h.Set("server", cfg.ServerName)
	case config.ServerAppendIfAbsent:
		if !h.Has("server") {
			h.Add("server", cfg.ServerName)
		}
	}
	if !h.Has("date") {
		h.Add("date", *x.site.server.date.Load())
	}
	if cfg.Via != "" {
		h.Add("via", cfg.Via)
	}
	if cfg.RequestIDInResponse {
		if id, ok := x.Request.Header.Lookup(requestID); ok {
			h.Set(requestID, id)
		}
	}
	if x.conn.draining() {
		x.closing = true
	}
	x.Response.Close = x.closing
	x.Response.Reason = "" // the codec knows what to call it
	x.WireSent = uint64(fieldBytes(h) + len("HTTP/1.1 200 OK\r\n\r\n"))
}

// clientFault tells what an error of writing to the client means.
func (x *exchange) clientFault(err error) *fault.Fault {
	if f := x.Cancelled(); f != nil {
		return f
	}
	if isMisuse(err) {
		return &fault.Fault{Side: fault.Upstream, Kind: fault.UpstreamProtocol, Status: 502, Details: "http.response_head_invalid", Err: err,
			Object: "cluster " + x.Target.Cluster, Hint: "the response's head cannot be written as the client's HTTP version has it"}
	}
	return upload.ClientGone
}

// isMisuse says whether err is a codec's refusal to write what it was given, as
// opposed to a connection that does not take it.
func isMisuse(err error) bool {
	var one *http1.Error
	if errors.As(err, &one) {
		return one.Kind == http1.Misuse
	}
	var stream http2.StreamError
	var conn http2.ConnError
	var network net.Error
	return !errors.As(err, &stream) && !errors.As(err, &conn) && !errors.As(err, &network) &&
		!errors.Is(err, os.ErrDeadlineExceeded) && !isClosed(err)
}

// isClosed says whether err is the end of a connection rather than a message.
func isClosed(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &op)
}
