// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A ClientConn writes requests to a connection and reads their responses, one
// exchange after the other:
//
//	WriteHead → Write … Finish, ReadHead … → Read … EOF → Reusable → WriteHead …
type ClientConn struct {
	conn net.Conn
	cfg  ClientConfig
	in   input
	out  output
	f    framing
	idle idleCheck

	keepAlive   time.Duration
	keepAliveRq int

	readBound, writeBound bool // a deadline is set

	// The exchange, since WriteHead was called. The reading and the writing side
	// each have their own part of it.
	asked         asked
	finished      bool // writing: the request is complete
	closing       bool // writing: the request said close
	final         bool // reading: the final head was read
	close         bool // reading: the response said close
	informational int  // reading: how many 1xx came
}

// NewClientConn returns the client's end of conn. It takes no buffer until
// something is written.
func NewClientConn(conn net.Conn, cfg ClientConfig) *ClientConn {
	cfg.Limits = cfg.withDefaults()
	c := &ClientConn{conn: conn, cfg: cfg, out: newOutput(conn)}
	c.in.reader, c.in.lim = newReader(conn), cfg.Limits
	return c
}

// WriteHead begins an exchange with the request's head. end: no body follows,
// and the head is sent at once. A head that is refused with Misuse leaves
// nothing written.
//
// A request with a Protocol asks for an upgrade; if it came as extended CONNECT
// (RFC 8441), it is written as GET.
func (c *ClientConn) WriteHead(req *message.Request, end bool) error {
	method, target, err := requestTarget(req)
	if err != nil {
		return err
	}
	p, err := planRequest(req, method, end)
	if err != nil {
		return err
	}
	size, err := fieldsSize(&req.Header)
	if err != nil {
		return err
	}
	c.in.unpin()
	c.in.begin(bodyNone, 0)
	c.asked = asked{head: method == "HEAD", connect: method == "CONNECT", upgrade: p.protocol != ""}
	c.finished, c.closing = end, req.Close
	c.final, c.close, c.informational = false, false, 0

	size += framingSize + len(p.protocol) + len(method) + len(target) + len(req.Authority)
	b, err := c.out.room(size + len("  HTTP/1.1\r\nHost: \r\n"))
	if err != nil {
		return err
	}
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", req.Authority)
	c.out.wrote(appendFields(b, &req.Header, &p))
	c.out.kind, c.out.left = p.kind, p.length
	if end || c.asked.connect || c.asked.upgrade {
		return c.out.sendAll()
	}
	return nil
}

// requestTarget returns the method to write and the target in its form: origin,
// authority or asterisk (RFC 9112 section 3.2).
func requestTarget(req *message.Request) (method, target string, err error) {
	method, target = req.Method, req.Path
	if method == "CONNECT" && req.Protocol != "" {
		method = "GET"
	}
	switch {
	case !isToken(method):
		return "", "", misuse("method %q is not a token", method)
	case !validAuthority(req.Authority):
		return "", "", misuse("authority %q is not host[:port]", req.Authority)
	case method == "CONNECT":
		if req.Authority == "" {
			return "", "", misuse("CONNECT without authority")
		}
		return method, req.Authority, nil
	case target == "*" && method == "OPTIONS":
		return method, target, nil
	case target == "" || target[0] != '/' || !only(target, charTarget):
		return "", "", misuse("path %q does not begin with a slash, or has an invalid character", target)
	}
	return method, target, nil
}

// planRequest decides how the request is framed.
func planRequest(req *message.Request, method string, end bool) (p fieldPlan, err error) {
	p.close = req.Close
	p.te = req.Header.Has("TE")
	if req.Protocol != "" {
		if !isProtocol(req.Protocol) {
			return p, misuse("protocol %q of an upgrade is not a token", req.Protocol)
		}
		p.protocol = req.Protocol
	}
	switch {
	case end && req.ContentLength > 0:
		return p, misuse("no body for a Content-Length of %d", req.ContentLength)
	case method == "CONNECT" || req.Method == "CONNECT":
		// The body of an extended CONNECT is the tunnel's bytes.
		p.kind = bodyNone
	case end || req.ContentLength == 0:
		// An empty body is declared where a body is usual (RFC 9110 section 8.6).
		p.declare = method == "POST" || method == "PUT" || method == "PATCH" || req.Header.Has("Content-Length")
	case req.ContentLength > 0:
		p.kind, p.declare, p.length = bodyLength, true, req.ContentLength
	default:
		p.kind = bodyChunked
	}
	return p, nil
}

// Write writes request body.
func (c *ClientConn) Write(p []byte) (int, error) {
	if c.finished {
		return 0, misuse("request body out of turn")
	}
	return c.out.Write(p)
}

// Flush sends what is buffered.
func (c *ClientConn) Flush() error { return c.out.Flush() }

// Finish ends the request and flushes it. Trailers, which may be nil, are sent
// only if the body is chunked.
func (c *ClientConn) Finish(trailer *message.Header) error {
	if err := c.out.finish(trailer); err != nil {
		return err
	}
	c.finished = true
	return nil
}

// ReadHead reads the next response head: informational ones included, then the
// final one. It returns io.EOF if the server closed the connection before the
// first byte of a response, and *Error of kind Protocol or Truncated for a
// response that cannot be trusted. Strings in resp are valid until the next
// ReadHead or WriteHead.
func (c *ClientConn) ReadHead(resp *message.Response) error {
	if c.final {
		return misuse("response head out of turn")
	}
	if c.in.fault != nil {
		return c.in.fault
	}
	err := c.readHead(resp)
	if bad, ok := err.(*Error); ok {
		err = bad.blame()
	}
	if err != nil && !isTimeout(err) {
		c.in.fault = err
	}
	return err
}

func (c *ClientConn) readHead(resp *message.Response) error {
	resp.Reset()
	c.in.unpin()
	if err := c.in.awaitHead(&c.cfg.Limits, c.cfg.MaxFields+1); err != nil {
		return err
	}
	c.f.reset()
	rest, bad := parseResponse(c.in.unread(), &c.cfg.Limits, resp, &c.f)
	if bad != nil {
		return bad
	}
	kind, bad := decide(resp, &c.f, c.asked)
	if bad != nil {
		return bad
	}
	c.in.r = c.in.w - len(rest)
	c.in.pin()
	if resp.Status < 200 && kind != bodyTunnel {
		if c.informational++; c.informational > maxInformational {
			return malformed("too many informational responses")
		}
		return nil
	}
	c.final, c.close = true, resp.Close
	c.keepAlive, c.keepAliveRq = parseKeepAlive(c.f.keep)
	c.in.begin(kind, max(resp.ContentLength, 0))
	return nil
}

// Read reads the response's body. It returns io.EOF at its end, together with
// the last bytes where they are known to be the last.
func (c *ClientConn) Read(p []byte) (int, error) {
	if !c.final {
		return 0, misuse("response body before its head")
	}
	n, err := c.in.Read(p)
	if bad, ok := err.(*Error); ok && bad.Status != 502 {
		err = bad.blame()
		c.in.fault = err
	}
	return n, err
}

// Trailer returns the response's trailers; it is valid once Read returned io.EOF.
func (c *ClientConn) Trailer() *message.Header { return &c.in.trailer }

// Traffic returns how many bytes were read and written since it was last called.
// Nobody may be reading or writing meanwhile. What is spliced past a Tunnel is
// not in it.
func (c *ClientConn) Traffic() (in, out int64) {
	in, out = c.in.got, c.out.sent
	c.in.got, c.out.sent = 0, 0
	return in, out
}

// Reusable says, after an exchange, whether another one may begin: both
// messages are complete, neither asked to close, and nothing unasked was
// received.
func (c *ClientConn) Reusable() bool {
	if c.in.fault != nil || c.out.fault != nil || c.in.Buffered() > 0 {
		return false
	}
	return c.finished && c.final && !c.close && !c.closing && c.in.kind == bodyNone
}

// Alive is a cheap check that the server has not closed the idle connection,
// nor sent anything unasked: what can be read now from a connection that waits
// for no response is its end, an alert of TLS, or a response to no request. A
// connection whose descriptor cannot be reached is taken to be alive.
func (c *ClientConn) Alive() bool { return c.in.Buffered() == 0 && c.idle.quiet(c.conn) }

// KeepAlive returns what the server's last Keep-Alive field promised: how long
// it keeps an idle connection, and for how many more requests; 0 where it said nothing.
func (c *ClientConn) KeepAlive() (timeout time.Duration, requests int) {
	return c.keepAlive, c.keepAliveRq
}

// Buffered returns how many bytes were read from the connection and not yet consumed.
func (c *ClientConn) Buffered() int { return c.in.Buffered() }

// SetReadDeadline sets the connection's read deadline, until Idle.
func (c *ClientConn) SetReadDeadline(t time.Time) error {
	c.readBound = !t.IsZero()
	return c.conn.SetReadDeadline(t)
}

// SetWriteDeadline sets the connection's write deadline, until Idle.
func (c *ClientConn) SetWriteDeadline(t time.Time) error {
	c.writeBound = !t.IsZero()
	return c.conn.SetWriteDeadline(t)
}

// Abort gives the exchange up and cuts the connection off; HTTP/1 has no code to
// send. It waits for nobody: TLS does not take its leave, for which the peer would
// have to read.
func (c *ClientConn) Abort(code uint32) { _ = beneath(c.conn).Close() }

// Tunnel returns the raw connection, after a final head of 101, or of 2xx to
// CONNECT, was read. It is nil otherwise.
func (c *ClientConn) Tunnel() Tunnel {
	if !c.final || c.in.kind != bodyTunnel {
		return nil
	}
	return &tunnel{&c.in.reader, &c.out}
}

// Idle gives the buffers back and lifts deadlines while the connection waits in
// a pool. Strings of the last exchange end their life.
func (c *ClientConn) Idle() {
	c.in.unpin()
	c.out.release()
	if c.readBound {
		_ = c.SetReadDeadline(time.Time{}) // fails only on a dead connection, which Alive tells
	}
	if c.writeBound {
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// beneath returns what TLS, or whatever else wraps a connection, goes through.
func beneath(conn net.Conn) net.Conn {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = outer.NetConn()
	}
}

// Close closes the connection, as TLS has it: the peer is told.
func (c *ClientConn) Close() error { return c.conn.Close() }

// Release gives the buffers back. Nothing may be called after it but Close, and
// no goroutine may be inside another method.
func (c *ClientConn) Release() {
	c.in.release()
	c.out.release()
}
