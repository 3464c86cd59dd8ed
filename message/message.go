// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package message holds HTTP's words (RFC 9110), shared by both codecs and by
// everything that decides about a request. It imports nothing of ours.
//
//	Header    an ordered list of fields; names keep the case they came in
//	Request   a request's head
//	Response  a response's head
//
// Ownership: the strings in a head that a codec has read may point into that
// codec's pooled buffer. They are valid until the exchange is finished; who
// keeps one longer (a metric label, a log queue) clones it.
package message

import "strings"

// A Version is an HTTP version: major*10 + minor.
type Version uint8

// The versions that a message can have.
const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// String returns the version as access logs print it, "HTTP/1.1".
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	}
	return "-"
}

// Lengths of a body that are not a number of bytes.
const (
	// LengthUnknown: chunked in HTTP/1.1, no content-length in HTTP/2, or until close.
	LengthUnknown int64 = -1
)

// A Request is a request's head. The pseudo header fields of HTTP/2 and the
// request line and Host of HTTP/1 are in fields of their own, never in Header.
type Request struct {
	Version   Version
	Method    string
	Scheme    string // "http" or "https"; for HTTP/1 set by the listener
	Authority string // :authority, or Host, or the authority of an absolute-form target
	// Path is the request target in origin form with its query, as it came
	// ("/a?b=c"); "*" for OPTIONS *; "" for CONNECT.
	Path string
	// Protocol is what an upgrade asks for: the value of Upgrade (HTTP/1.1) or
	// :protocol (RFC 8441), lower case, for example "websocket". Codecs
	// translate it; Connection and Upgrade are never in Header.
	Protocol string
	Header   Header
	// ContentLength of the body in bytes; 0 for none; LengthUnknown.
	ContentLength int64
	// Expect100 is true if the client sent "Expect: 100-continue" (kept in Header too).
	Expect100 bool
	// Close is true if the connection ends with this exchange (HTTP/1).
	Close bool
}

// Reset empties r for reuse; the header keeps its storage.
func (r *Request) Reset() {
	h := r.Header
	h.Reset()
	*r = Request{Header: h}
}

// A Response is a response's head. Status 100 to 199 is informational; 101 (or
// 200 to a CONNECT or to an extended CONNECT) turns the stream into a tunnel.
type Response struct {
	Version       Version
	Status        int
	Reason        string // HTTP/1 only; "" lets the codec choose
	Header        Header
	ContentLength int64  // as in Request; 0 with no body for HEAD, 204, 304 whatever Content-Length says
	Protocol      string // of an accepted upgrade, as in Request
	Close         bool
}

// Reset empties r for reuse; the header keeps its storage.
func (r *Response) Reset() {
	h := r.Header
	h.Reset()
	*r = Response{Header: h}
}

// A Field is one header field line.
type Field struct {
	Name  string // in the case it came in; compared without case
	Value string // without surrounding white space
}

// A Header is a list of fields in the order they came. The zero value is empty.
// Connection-specific fields (Connection, Keep-Alive, Proxy-Connection,
// Transfer-Encoding, Upgrade, and TE but "trailers") never appear in a Header:
// codecs consume them on the way in and write their own on the way out.
// Content-Length does appear.
type Header struct {
	fields []Field
}

// Reset empties h and keeps its storage.
func (h *Header) Reset() {
	clear(h.fields)
	h.fields = h.fields[:0]
}

// Len returns the number of field lines.
func (h *Header) Len() int { return len(h.fields) }

// At returns field i, 0 ≤ i < Len.
func (h *Header) At(i int) Field { return h.fields[i] }

// Fields returns the fields; the caller neither keeps nor changes them.
func (h *Header) Fields() []Field { return h.fields }

// Add appends a field line.
func (h *Header) Add(name, value string) {
	h.fields = append(h.fields, Field{name, value})
}

// Get returns the first value of name, or "".
func (h *Header) Get(name string) string {
	v, _ := h.Lookup(name)
	return v
}

// Lookup returns the first value of name and whether there is one.
func (h *Header) Lookup(name string) (string, bool) {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			return h.fields[i].Value, true
		}
	}
	return "", false
}

// Has says whether there is a field called name.
func (h *Header) Has(name string) bool {
	_, ok := h.Lookup(name)
	return ok
}

// Count returns how many lines are called name.
func (h *Header) Count(name string) int {
	n := 0
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			n++
		}
	}
	return n
}

// Joined returns all values of name joined by ",", as matchers see a field that
// came in several lines (RFC 9110 section 5.2). It allocates only for several.
func (h *Header) Joined(name string) (string, bool) {
	first := -1
	for i := range h.fields {
		if !EqualFold(h.fields[i].Name, name) {
			continue
		}
		if first >= 0 {
			return h.joinFrom(first, name), true
		}
		first = i
	}
	if first < 0 {
		return "", false
	}
	return h.fields[first].Value, true
}

func (h *Header) joinFrom(first int, name string) string {
	var b strings.Builder
	b.WriteString(h.fields[first].Value)
	for i := first + 1; i < len(h.fields); i++ {
		if EqualFold(h.fields[i].Name, name) {
			b.WriteByte(',')
			b.WriteString(h.fields[i].Value)
		}
	}
	return b.String()
}

// Set replaces the first line called name, keeping the case of its name and its
// place, and removes the others; it appends a line if there was none.
func (h *Header) Set(name, value string) {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			h.fields[i].Value = value
			h.deleteFrom(i+1, name)
			return
		}
	}
	h.Add(name, value)
}

// Delete removes all lines called name and says whether there were any.
func (h *Header) Delete(name string) bool { return h.deleteFrom(0, name) }

func (h *Header) deleteFrom(from int, name string) bool {
	kept := from
	for i := from; i < len(h.fields); i++ {
		if EqualFold(h.fields[i].Name, name) {
			continue
		}
		if kept != i {
			h.fields[kept] = h.fields[i]
		}
		kept++
	}
	if kept == len(h.fields) {
		return false
	}
	clear(h.fields[kept:])
	h.fields = h.fields[:kept]
	return true
}

// DeleteFunc removes the fields for which drop returns true.
func (h *Header) DeleteFunc(drop func(Field) bool) {
	kept := 0
	for i := range h.fields {
		if drop(h.fields[i]) {
			continue
		}
		h.fields[kept] = h.fields[i]
		kept++
	}
	clear(h.fields[kept:])
	h.fields = h.fields[:kept]
}

// CopyFrom makes h a copy of o that shares o's strings.
func (h *Header) CopyFrom(o *Header) {
	h.fields = append(h.fields[:0], o.fields...)
}

// Clone returns a copy whose strings are its own, to be kept past the exchange.
func (h *Header) Clone() Header {
	c := Header{fields: make([]Field, len(h.fields))}
	for i, f := range h.fields {
		c.fields[i] = Field{strings.Clone(f.Name), strings.Clone(f.Value)}
	}
	return c
}

// EqualFold compares field names: ASCII letters without case.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	if a == b {
		return true
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
