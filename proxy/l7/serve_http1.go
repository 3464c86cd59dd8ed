// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/upload"
)

// How long a client may take to read our last words, and to send the rest of a
// request that was answered early, so that its connection can be kept.
const (
	lingerFor  = time.Second
	restOfBody = time.Second
	shortIdle  = 5 * time.Second // idle timeouts below it are deadlines, not the sweeper's
)

// serveHTTP1 serves one request after the other.
func (c *connection) serveHTTP1(held []byte) {
	h := c.http()
	sc := http1.NewServerConn(c.net, http1.ServerConfig{
		Limits:       http1.Limits{MaxHeadBytes: int(h.MaxHeaderBytes), MaxFields: int(h.MaxHeaders)},
		AcceptHTTP10: h.HTTP1.AcceptHTTP10,
	})
	sc.Preload(held)
	for c.awaitRequest(sc) {
		x := take()
		x.down = sc
		again := x.serveOne(c, sc)
		if x.abandoned {
			return // with the buffers: strings of the exchange point into them
		}
		x.release()
		if !again {
			break
		}
	}
	sc.Release() // not deferred, as a defect is no time to give anything back
}

// awaitRequest waits for the first byte of a request.
func (c *connection) awaitRequest(sc *http1.ServerConn) bool {
	idle := c.http().IdleTimeout
	if idle > 0 && idle < shortIdle {
		_ = sc.SetReadDeadline(time.Now().Add(idle))
	}
	if sc.Await() != nil {
		return false
	}
	if idle > 0 && idle < shortIdle {
		_ = sc.SetReadDeadline(time.Time{})
	}
	return true
}

// serveOne reads a request and conducts its exchange. It says whether the
// connection serves another one.
func (x *exchange) serveOne(c *connection, sc *http1.ServerConn) bool {
	if !x.start(c, &x.in) {
		return false
	}
	h := x.site.http
	defer c.recoverPanic(x)
	head := h.HeadersTimeout
	if h.RequestTimeout > 0 && (head == 0 || h.RequestTimeout < head) {
		head = h.RequestTimeout
	}
	if head > 0 {
		_ = sc.SetReadDeadline(x.Start.Add(head))
	}
	x.head.Store(headComing)
	err := sc.ReadRequest(x.Request)
	if !x.head.CompareAndSwap(headComing, headDone) {
		err = os.ErrDeadlineExceeded // the sweeper has ended the reading
	}
	if head > 0 {
		_ = sc.SetReadDeadline(time.Time{})
	}
	if err != nil {
		x.badRequest(err)
		x.end()
		_ = sc.Linger(c.lingerFor())
		return false
	}
	if x.Request.Close || c.draining() || c.usedUp() || c.expiredConn(x.Start) {
		x.closing = true
	}
	x.conduct()
	x.end()
	if x.tunnelled {
		return false
	}
	if x.unread {
		_ = sc.SetReadDeadline(time.Now().Add(restOfBody))
	}
	again, _ := sc.Next()
	if !again {
		if x.unread {
			_ = sc.Linger(c.lingerFor()) // or the answer is lost in a reset
		}
		return false
	}
	if x.unread {
		_ = sc.SetReadDeadline(time.Time{})
	}
	return true
}

// lingerFor is how long a connection that we close may go on being read, so that
// our last words are not lost in a reset (delayed_close_timeout).
func (c *connection) lingerFor() time.Duration {
	if d := c.http().DelayedClose; d > 0 {
		return d
	}
	return lingerFor
}

// badRequest answers what could not be read.
func (x *exchange) badRequest(err error) {
	f := &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 400, Details: "http1.codec_error", Err: err,
		Hint: "the client sent something that is not HTTP/1.1"}
	var bad *http1.Error
	switch {
	case errors.As(err, &bad):
		f.Status, f.Body = bad.Status, http1.ReasonPhrase(bad.Status)
		switch {
		case bad.Kind == http1.TooLarge:
			f.Kind, f.Details, f.Hint = fault.TooLarge, "http1.headers_too_large", "max_request_headers_kb and max_headers_count of the listener bound it"
		case bad.Kind == http1.Truncated:
			f = upload.ClientGone
		case bad.Status == 426:
			f.Details, f.Hint = "low_version", "HTTP/1.0 is accepted only if the listener says so (accept_http_10)"
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		f = &fault.Fault{Side: fault.Client, Kind: fault.MaxDuration, Status: 408, Details: "request_header_timeout", Hint: "the request's head did not arrive in time"}
	case isClosed(err):
		f = upload.ClientGone
	}
	if x.Request.Authority == "" && x.Request.Method == "" {
		x.Request.Version = message.HTTP11
	}
	x.closing = true
	x.fail(f)
	x.finish()
}
