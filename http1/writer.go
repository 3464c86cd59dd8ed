// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"strconv"

	"github.com/meltemi/meltemi/message"
)

// An output is one direction of a connection: a write buffer that knows how
// much body it may take.
type output struct {
	conn  net.Conn
	writv bool    // conn can write several slices with one call
	buf   *buffer // nil while nothing is buffered
	n     int     // bytes in buf
	kind  bodyKind
	mute  bool  // the body is counted, not sent: a response to HEAD
	left  int64 // bytes that Content-Length still promises
	fault error // sticky
	sent  int64 // given to conn, not told by Traffic yet
	vec   net.Buffers
	slots [2][]byte
}

func newOutput(conn net.Conn) output {
	o := output{conn: conn}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		o.writv = true
	}
	return o
}

// room returns the buffer's contents, to be appended to by at most n bytes and
// given back to wrote. What is buffered is sent first if there is no room.
func (o *output) room(n int) ([]byte, error) {
	if o.fault != nil {
		return nil, o.fault
	}
	if o.buf != nil && len(o.buf.b)-o.n < n {
		if err := o.Flush(); err != nil {
			return nil, err
		}
	}
	if o.buf != nil && len(o.buf.b) < n {
		o.release()
	}
	if o.buf == nil {
		o.buf, o.n = getBuffer(max(n, writeBuffer)), 0
	}
	return o.buf.b[:o.n], nil
}

func (o *output) wrote(b []byte) { o.n = len(b) }

// Flush sends what is buffered.
func (o *output) Flush() error {
	if o.fault != nil || o.n == 0 {
		return o.fault
	}
	n, err := o.conn.Write(o.buf.b[:o.n])
	o.sent += int64(n)
	o.n = 0
	o.fault = err
	return err
}

// sendAll flushes and gives the buffer back: nothing more is to come for a while.
func (o *output) sendAll() error {
	if err := o.Flush(); err != nil {
		return err
	}
	o.release()
	return nil
}

// release gives the buffer back; what is in it is lost.
func (o *output) release() {
	if o.buf != nil {
		o.buf.put()
		o.buf, o.n = nil, 0
	}
}

// put appends p to the buffer; what does not fit is sent together with what is
// buffered, without being copied where the connection can do that.
func (o *output) put(p []byte) error {
	b, err := o.room(1)
	if err != nil {
		return err
	}
	if free := len(o.buf.b) - o.n; len(p) <= free {
		o.wrote(append(b, p...))
		return nil
	} else if !o.writv && o.n > 0 {
		o.wrote(append(b, p[:free]...))
		p = p[free:]
		if err = o.Flush(); err != nil || len(p) < len(o.buf.b) {
			o.n = copy(o.buf.b, p)
			return err
		}
	}
	if o.n == 0 {
		n, err := o.conn.Write(p)
		o.sent, o.fault = o.sent+int64(n), err
		return err
	}
	o.slots = [2][]byte{o.buf.b[:o.n], p}
	o.vec = o.slots[:]
	n, err := o.vec.WriteTo(o.conn)
	o.sent, o.fault = o.sent+n, err
	o.slots, o.n = [2][]byte{}, 0
	return o.fault
}

// Write writes body, framed as the head said.
func (o *output) Write(p []byte) (int, error) {
	switch {
	case o.fault != nil:
		return 0, o.fault
	case len(p) == 0:
		return 0, nil
	case o.mute:
		return len(p), nil
	}
	switch o.kind {
	case bodyLength:
		if int64(len(p)) > o.left {
			return 0, misuse("body is longer than its Content-Length by %d bytes", int64(len(p))-o.left)
		}
		o.left -= int64(len(p))
	case bodyChunked:
		return o.writeChunk(p)
	case bodyUntilClose:
	default:
		return 0, misuse("body in a message that has none")
	}
	if err := o.put(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (o *output) writeChunk(p []byte) (int, error) {
	b, err := o.room(len("7fffffffffffffff\r\n"))
	if err != nil {
		return 0, err
	}
	b = strconv.AppendUint(b, uint64(len(p)), 16)
	o.wrote(append(b, crlf...))
	if err = o.put(p); err == nil {
		err = o.put(crlf)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish ends the body, flushes, and gives the buffer back.
func (o *output) finish(trailer *message.Header) error {
	switch {
	case o.fault != nil:
		return o.fault
	case o.mute:
	case o.kind == bodyLength && o.left > 0:
		o.fault = misuse("body is shorter than its Content-Length by %d bytes", o.left)
		return o.fault
	case o.kind == bodyChunked:
		if err := o.endChunks(trailer); err != nil {
			return err
		}
	}
	o.kind = bodyNone
	return o.sendAll()
}

func (o *output) endChunks(trailer *message.Header) error {
	size := len("0\r\n\r\n")
	if trailer != nil {
		n, err := fieldsSize(trailer)
		if err != nil {
			o.fault = err
			return err
		}
		size += n
	}
	b, err := o.room(size)
	if err != nil {
		return err
	}
	b = append(b, "0\r\n"...)
	if trailer != nil {
		for _, f := range trailer.Fields() {
			if !notInTrailer(f) {
				b = appendField(b, f.Name, f.Value)
			}
		}
	}
	o.wrote(append(b, crlf...))
	return nil
}

// fieldsSize returns how many bytes h takes, or an error if it cannot be
// written: an intermediary that passes a line end on writes a second message.
func fieldsSize(h *message.Header) (size int, err error) {
	for _, f := range h.Fields() {
		if !isToken(f.Name) {
			return 0, misuse("field name %q is not a token", f.Name)
		}
		if !validValue(f.Value) {
			return 0, misuse("control character in the value of field %q", f.Name)
		}
		size += len(f.Name) + len(f.Value) + len(": \r\n")
	}
	return size, nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, crlf...)
}

// A fieldPlan says what becomes of the fields that frame a message.
type fieldPlan struct {
	kind     bodyKind
	length   int64  // written as Content-Length if declare
	declare  bool   // Content-Length is written
	asGiven  bool   // Content-Length lines are written as they are in the header
	close    bool   // Connection: close
	keep     bool   // Connection: keep-alive, to HTTP/1.0
	te       bool   // Connection: TE
	protocol string // Connection: Upgrade
}

// framingSize bounds what appendFields adds to the header's own size.
const framingSize = len("Content-Length: -9223372036854775808\r\nTransfer-Encoding: chunked\r\n" +
	"Connection: Upgrade\r\nUpgrade: \r\nConnection: keep-alive\r\nConnection: TE\r\n\r\n")

// appendFields writes h with the framing of p in the place of its own, and the
// empty line. Content-Length keeps its place and its name's case.
func appendFields(b []byte, h *message.Header, p *fieldPlan) []byte {
	declare := p.declare
	for _, f := range h.Fields() {
		if consumed(f.Name) {
			if len(f.Name) != len("Content-Length") {
				continue
			}
			if !p.asGiven {
				if declare {
					b = appendLength(b, f.Name, p.length)
					declare = false
				}
				continue
			}
		}
		b = appendField(b, f.Name, f.Value)
	}
	if declare {
		b = appendLength(b, "Content-Length", p.length)
	}
	if p.kind == bodyChunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if p.protocol != "" {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, p.protocol...)
		b = append(b, crlf...)
	}
	if p.close {
		b = append(b, "Connection: close\r\n"...)
	} else if p.keep {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	if p.te {
		b = append(b, "Connection: TE\r\n"...)
	}
	return append(b, crlf...)
}

func appendLength(b []byte, name string, n int64) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, crlf...)
}

// consumed names the fields that the codec writes itself, Content-Length among
// them. By contract the others are not in a header; if they are, they are not
// let through.
func consumed(name string) bool {
	switch len(name) {
	case len("Host"):
		return message.EqualFold(name, "Host")
	case len("Upgrade"):
		return message.EqualFold(name, "Upgrade")
	case len("Connection"):
		return message.EqualFold(name, "Connection") || message.EqualFold(name, "Keep-Alive")
	case len("Content-Length"):
		return message.EqualFold(name, "Content-Length")
	case len("Proxy-Connection"):
		return message.EqualFold(name, "Proxy-Connection")
	case len("Transfer-Encoding"):
		return message.EqualFold(name, "Transfer-Encoding")
	}
	return false
}
