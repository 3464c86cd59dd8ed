// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"strconv"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A ServerConn reads requests from a connection and writes their responses, one
// exchange after the other:
//
//	ReadRequest → Read … EOF, WriteHead → Write … Finish → Next → ReadRequest …
type ServerConn struct {
	conn net.Conn
	cfg  ServerConfig
	in   input
	out  output
	f    framing

	// The exchange, since ReadRequest returned.
	busy      bool
	version   message.Version
	asked     asked
	expects   bool // the client waits for 100 before it sends its body
	continued bool // it was told
	close     bool // the connection ends with this exchange
	headed    bool // the final head was written
	finished  bool
}

// NewServerConn returns the server's end of conn. It takes no buffer until
// something is read.
func NewServerConn(conn net.Conn, cfg ServerConfig) *ServerConn {
	cfg.Limits = cfg.withDefaults()
	if cfg.DrainBytes == 0 {
		cfg.DrainBytes = DefaultDrainBytes
	}
	c := &ServerConn{conn: conn, cfg: cfg, out: newOutput(conn)}
	c.in.reader, c.in.lim = newReader(conn), cfg.Limits
	return c
}

// Preload hands over bytes that were read from the connection already, to be
// read first; b is copied.
func (c *ServerConn) Preload(b []byte) { c.in.preload(b) }

// Await waits for the first byte of the next request, before anything is taken
// to serve it. Strings of the last exchange end their life. It returns io.EOF if
// the peer closed the connection.
func (c *ServerConn) Await() error {
	if c.in.Buffered() > 0 {
		return nil
	}
	c.in.unpin()
	return c.in.fill(0)
}

// ReadRequest reads the next request's head into req. It returns io.EOF if the
// peer closed the connection between requests, and *Error for a request that is
// refused. After an error a response may still be written (Error.Status; 408
// after a deadline), then the connection ends.
func (c *ServerConn) ReadRequest(req *message.Request) error {
	if c.busy {
		return misuse("ReadRequest before the last exchange was ended by Next")
	}
	req.Reset()
	c.in.unpin()
	err := c.readHead(req)
	c.busy = true
	c.version = req.Version
	c.asked = asked{
		head:    req.Method == "HEAD",
		connect: req.Method == "CONNECT",
		upgrade: req.Protocol != "",
	}
	c.expects, c.continued = req.Expect100 && req.ContentLength != 0, false
	c.headed, c.finished = false, false
	if err != nil {
		c.close, c.in.fault = true, err
		return err
	}
	c.close = req.Close
	switch {
	case req.ContentLength == message.LengthUnknown:
		c.in.begin(bodyChunked, 0)
	default:
		c.in.begin(bodyLength, req.ContentLength)
	}
	return nil
}

func (c *ServerConn) readHead(req *message.Request) error {
	if err := c.in.skipEmptyLines(c.cfg.AllowBareLF); err != nil {
		return err
	}
	if err := c.in.awaitHead(&c.cfg.Limits, c.cfg.MaxFields+1); err != nil {
		return err
	}
	c.f.reset()
	rest, bad := parseRequest(c.in.unread(), &c.cfg, req, &c.f)
	if bad != nil {
		return bad
	}
	c.in.r = c.in.w - len(rest)
	c.in.pin()
	return nil
}

// Read reads the request's body. It returns io.EOF at its end, together with
// the last bytes where they are known to be the last.
func (c *ServerConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Trailer returns the request's trailers; it is valid once Read returned io.EOF.
func (c *ServerConn) Trailer() *message.Header { return &c.in.trailer }

// WriteHead writes a response's head: any number of informational ones (end is
// false; they are sent at once, and not to HTTP/1.0), then one final. end: no
// body follows, and the head is sent at once. A head that is refused with Misuse
// leaves nothing written, so that another one may be.
//
// A response that accepts the upgrade that the request asked for has a Protocol;
// it is written as 101 whether its status is 101 or 2xx.
func (c *ServerConn) WriteHead(resp *message.Response, end bool) error {
	if !c.busy || c.headed {
		return misuse("response head out of turn")
	}
	if resp.Status >= 100 && resp.Status < 200 && resp.Status != 101 {
		return c.writeInformational(resp)
	}
	status, p, err := c.plan(resp, end)
	if err != nil {
		return err
	}
	if err := c.writeHead(status, resp, &p); err != nil {
		return err
	}
	c.headed, c.close = true, p.close
	c.out.kind, c.out.left, c.out.mute = p.kind, p.length, c.asked.head
	if end || p.kind == bodyTunnel {
		c.finished = end
		return c.out.sendAll()
	}
	return nil
}

func (c *ServerConn) writeInformational(resp *message.Response) error {
	if c.version == message.HTTP10 {
		return nil
	}
	if err := c.writeHead(resp.Status, resp, &fieldPlan{}); err != nil {
		return err
	}
	c.continued = c.continued || resp.Status == 100
	return c.out.Flush()
}

// plan decides how the final response is framed.
func (c *ServerConn) plan(resp *message.Response, end bool) (status int, p fieldPlan, err error) {
	status = resp.Status
	ok := status >= 200 && status < 300
	switch {
	case status < 101 || status > 999:
		return 0, p, misuse("status %d", status)
	case c.asked.upgrade && resp.Protocol != "" && (status == 101 || ok):
		if !isProtocol(resp.Protocol) {
			return 0, p, misuse("protocol %q of an upgrade is not a token", resp.Protocol)
		}
		return 101, fieldPlan{kind: bodyTunnel, protocol: resp.Protocol}, nil
	case status == 101:
		return 0, p, misuse("101 to a request that asked for no upgrade, or without a protocol")
	case c.asked.connect && ok:
		return status, fieldPlan{kind: bodyTunnel}, nil
	}
	p.close = c.close || resp.Close || c.asked.connect || c.expects && !c.continued
	p.keep = !p.close && c.version == message.HTTP10
	switch {
	case status == 204:
	case c.asked.head || status == 304:
		p.asGiven = true
	case end && resp.ContentLength > 0:
		return 0, p, misuse("no body for a Content-Length of %d", resp.ContentLength)
	case end:
		p.declare = true
	case resp.ContentLength >= 0:
		p.kind, p.declare, p.length = bodyLength, true, resp.ContentLength
	case c.version == message.HTTP10:
		p.kind, p.close, p.keep = bodyUntilClose, true, false
	default:
		p.kind = bodyChunked
	}
	return status, p, nil
}

func (c *ServerConn) writeHead(status int, resp *message.Response, p *fieldPlan) error {
	size, err := fieldsSize(&resp.Header)
	if err != nil {
		return err
	}
	reason := resp.Reason
	if reason == "" || status != resp.Status {
		reason = ReasonPhrase(status)
	}
	if !validValue(reason) {
		return misuse("control character in a reason phrase")
	}
	b, err := c.out.room(size + framingSize + len(p.protocol) + len("HTTP/1.1 200 \r\n") + len(reason))
	if err != nil {
		return err
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	b = append(b, crlf...)
	c.out.wrote(appendFields(b, &resp.Header, p))
	return nil
}

// Write writes response body. What a HEAD request would have got is counted out.
func (c *ServerConn) Write(p []byte) (int, error) {
	if !c.headed || c.finished {
		return 0, misuse("response body out of turn")
	}
	return c.out.Write(p)
}

// Flush sends what is buffered.
func (c *ServerConn) Flush() error { return c.out.Flush() }

// Finish ends the response and flushes it. Trailers, which may be nil, are sent
// only if the body is chunked.
func (c *ServerConn) Finish(trailer *message.Header) error {
	if !c.headed {
		return misuse("end of a response that has no head")
	}
	c.finished = true
	return c.out.finish(trailer)
}

// Next ends the exchange. It reads away a small rest of the body and says
// whether another request may be read from this connection; if not, the
// connection is to be closed (see Linger).
func (c *ServerConn) Next() (reusable bool, err error) {
	if !c.busy || !c.finished || c.close || c.out.fault != nil || c.out.kind == bodyTunnel {
		return false, c.out.fault
	}
	// A client that waits for 100 may yet send its body, or not: where the next
	// request begins is unknown.
	if c.expects && !c.continued && c.in.kind != bodyNone {
		return false, nil
	}
	reusable, err = c.in.drain(c.cfg.DrainBytes)
	// What a client sent behind a request to switch protocols, before it had an
	// answer, may be of the protocol that it hoped for. It is never a request.
	if c.asked.upgrade && c.in.Buffered() > 0 {
		reusable = false
	}
	c.busy = !reusable
	return reusable, err
}

// Buffered returns how many bytes were read from the connection and not yet consumed.
func (c *ServerConn) Buffered() int { return c.in.Buffered() }

// SetReadDeadline sets the connection's read deadline.
func (c *ServerConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets the connection's write deadline.
func (c *ServerConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Abort gives the exchange up and closes the connection; HTTP/1 has no code to send.
func (c *ServerConn) Abort(code uint32) { _ = c.conn.Close() }

// Tunnel returns the raw connection, after a final head of 101, or of 2xx to
// CONNECT, was written. It is nil otherwise.
func (c *ServerConn) Tunnel() Tunnel {
	if !c.headed || c.out.kind != bodyTunnel {
		return nil
	}
	return &tunnel{&c.in.reader, &c.out}
}

// Linger closes a connection whose peer may still be sending, in a way that lets
// the last response arrive: it ends its own side, then reads up to DrainBytes
// away until the peer ends, too, or d has passed (RFC 9112 section 9.6).
func (c *ServerConn) Linger(d time.Duration) error {
	if closeWrite(c.conn) == nil && c.conn.SetReadDeadline(time.Now().Add(d)) == nil {
		scratch := getBuffer(minReadBuffer)
		for n, err := 0, error(nil); err == nil && n < c.cfg.DrainBytes; {
			var m int
			m, err = c.conn.Read(scratch.b)
			n += m
		}
		scratch.put()
	}
	return c.conn.Close()
}

// Close closes the connection.
func (c *ServerConn) Close() error { return c.conn.Close() }

// Release gives the buffers back. Nothing may be called after it but Close, and
// no goroutine may be inside another method.
func (c *ServerConn) Release() {
	c.in.release()
	c.out.release()
}
