// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package head turns header blocks (RFC 7541) into heads of messages and back,
// and knows what RFC 9113 section 8 allows in them. It does no I/O.
//
//	decode.go   Decoder: a block to a message's head or trailers, checked
//	fields.go   what names, values and pseudo header fields may be
//	write.go    heads that may be sent, as blocks
//	encode.go   Encoder: HPACK
package head

import (
	"strings"
	"sync"

	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/message"
)

// headers are lists that a stream borrows until it has ended.
var headers = sync.Pool{New: func() any { return new(message.Header) }}

// Release gives a list back that TakeList has handed out.
func Release(h *message.Header) {
	if h != nil {
		h.Reset()
		headers.Put(h)
	}
}

// Limits bound what a Decoder keeps.
type Limits struct {
	Bytes, Fields int // of a list; 32 bytes for each field on top
	String        int // bytes of one name or value; more is a decoding error
}

// A Decoder decodes the header blocks of a connection, field by field: nothing
// beyond the limits is kept, but all of it is parsed, because HPACK's table must
// follow.
type Decoder struct {
	dec    *hpack.Decoder
	limits Limits

	size, count int // decoded so far, what is not kept included

	list    *message.Header
	pseudo  pseudo
	seen    uint8 // bits of pseudo
	regular bool  // a field that is not pseudo was seen
	expect  bool
	host    string
	hasHost bool
	length  int64 // content-length, message.LengthUnknown if there is none
	cookies int
	cookie  []byte
	bad     string // the first rule that was broken
	large   bool   // beyond the limits
}

type pseudo struct {
	method, scheme, authority, path, protocol, status string
}

const (
	sawMethod = 1 << iota
	sawScheme
	sawAuthority
	sawPath
	sawProtocol
	sawStatus
)

// NewDecoder returns a decoder with the default table.
func NewDecoder(limits Limits) *Decoder {
	b := &Decoder{limits: limits}
	b.dec = hpack.NewDecoder(DefaultTable, b.field)
	b.dec.SetMaxStringLength(limits.String)
	return b
}

// Begin prepares for the next header block.
func (b *Decoder) Begin() {
	*b = Decoder{dec: b.dec, limits: b.limits, cookie: b.cookie[:0], list: b.list, length: message.LengthUnknown}
	if b.list == nil {
		b.list = headers.Get().(*message.Header)
	}
	b.list.Reset()
	b.dec.SetEmitEnabled(true)
}

// Write decodes a part of a block.
func (b *Decoder) Write(p []byte) (int, error) { return b.dec.Write(p) }

// End ends a block.
func (b *Decoder) End() error { return b.dec.Close() }

// TooLarge says whether the list is beyond the limits; it is not complete then.
func (b *Decoder) TooLarge() bool { return b.large }

// Malformed says whether a rule was broken.
func (b *Decoder) Malformed() bool { return b.bad != "" }

// Reject makes the block malformed for a reason of the caller's.
func (b *Decoder) Reject(reason string) { b.bad = reason }

// Length returns the content-length, or message.LengthUnknown.
func (b *Decoder) Length() int64 { return b.length }

// TakeList hands the list over to the caller.
func (b *Decoder) TakeList() *message.Header {
	l := b.list
	b.list = nil
	return l
}

// field is called by the decoder for each field.
func (b *Decoder) field(f hpack.HeaderField) {
	b.size += len(f.Name) + len(f.Value) + 32
	b.count++
	if b.size > b.limits.Bytes || b.count > b.limits.Fields {
		b.large = true
		b.dec.SetEmitEnabled(false)
		return
	}
	if b.bad != "" {
		return
	}
	if f.Name == "" {
		b.bad = "a field has no name"
		return
	}
	if f.Name[0] == ':' {
		b.pseudoField(f.Name, f.Value)
		return
	}
	b.regular = true
	switch {
	case !consists(f.Name, inName):
		b.bad = "a field name has capitals or bytes that are not allowed"
	case !validValue(f.Value):
		b.bad = "the value of " + f.Name + " has bytes that are not allowed, or blanks around it"
	default:
		b.plainField(f.Name, f.Value)
	}
}

func (b *Decoder) pseudoField(name, value string) {
	var bit uint8
	var to *string
	switch name {
	case ":method":
		bit, to = sawMethod, &b.pseudo.method
	case ":scheme":
		bit, to = sawScheme, &b.pseudo.scheme
	case ":authority":
		bit, to = sawAuthority, &b.pseudo.authority
	case ":path":
		bit, to = sawPath, &b.pseudo.path
	case ":protocol":
		bit, to = sawProtocol, &b.pseudo.protocol
	case ":status":
		bit, to = sawStatus, &b.pseudo.status
	default:
		b.bad = "an unknown pseudo header field"
		return
	}
	switch {
	case b.regular:
		b.bad = name + " comes after regular fields"
	case b.seen&bit != 0:
		b.bad = name + " comes twice"
	}
	b.seen |= bit
	*to = value
}

func (b *Decoder) plainField(name, value string) {
	switch roleOf(name) {
	case fieldHopByHop:
		b.bad = name + " is not allowed in HTTP/2"
		return
	case fieldTE:
		if !message.EqualFold(value, "trailers") {
			b.bad = "te may only be trailers in HTTP/2"
			return
		}
	case fieldHost:
		if b.hasHost && value != b.host {
			b.bad = "host comes twice"
		}
		b.host, b.hasHost = value, true
		return
	case fieldLength:
		n, ok := parseLength(value)
		if !ok || b.length >= 0 && n != b.length {
			b.bad = "content-length is not one number"
			return
		}
		if b.length >= 0 {
			return // the same again
		}
		b.length = n
	case fieldCookie:
		b.cookies++
		if b.cookies > 1 {
			b.cookie = append(append(b.cookie, "; "...), value...)
			return
		}
		b.cookie = append(b.cookie, value...)
	case fieldExpect:
		b.expect = message.EqualFold(value, "100-continue")
	}
	b.list.Add(name, value)
}

// joinCookies makes one field of the crumbs (RFC 9113 section 8.2.3).
func (b *Decoder) joinCookies() {
	if b.cookies > 1 {
		b.list.Set("cookie", string(b.cookie))
	}
}

// Request fills in req from the block of a request and returns the rule it
// breaks, or "". req takes over the list; who ends the stream releases it.
func (b *Decoder) Request(req *message.Request, end, extended bool) string {
	if b.bad == "" {
		b.bad = b.checkRequest(extended)
	}
	if b.bad == "" && end && b.length > 0 {
		b.bad = "content-length promises a body and there is none"
	}
	if b.bad != "" {
		return b.bad
	}
	b.joinCookies()
	p := &b.pseudo
	*req = message.Request{
		Version: message.HTTP2, Method: p.method, Scheme: strings.ToLower(p.scheme),
		Authority: p.authority, Path: p.path, Protocol: strings.ToLower(p.protocol),
		Header: *b.list, ContentLength: OpenLength(b.length), Expect100: b.expect && !end,
	}
	if end {
		req.ContentLength = 0
	}
	return ""
}

func (b *Decoder) checkRequest(extended bool) string {
	p := &b.pseudo
	connect := p.method == "CONNECT"
	switch {
	case b.seen&sawStatus != 0:
		return ":status in a request"
	case p.method == "" || !consists(p.method, inToken):
		return ":method is missing or no token"
	case b.seen&sawProtocol != 0 && (!connect || !extended || !consists(p.protocol, inToken) || p.protocol == ""):
		return ":protocol is not allowed here"
	case connect && b.seen&sawProtocol == 0:
		if b.seen&(sawScheme|sawPath) != 0 {
			return ":scheme or :path in CONNECT"
		}
		if p.authority == "" {
			return "CONNECT without :authority"
		}
	case p.scheme == "" || !isLetter(p.scheme[0]) || !consists(p.scheme, inScheme):
		return ":scheme is missing or malformed"
	case !validPath(p.method, p.path):
		return ":path is missing or malformed"
	}
	return b.checkAuthority()
}

func validPath(method, path string) bool {
	if path == "" {
		return false
	}
	if path[0] != '/' && !(path == "*" && method == "OPTIONS") {
		return false
	}
	return consists(path, inPath)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// checkAuthority makes one of :authority and host.
func (b *Decoder) checkAuthority() string {
	p := &b.pseudo
	if b.hasHost {
		if b.seen&sawAuthority == 0 {
			p.authority = b.host
		} else if !message.EqualFold(b.host, p.authority) {
			return "host differs from :authority"
		}
	}
	if !consists(p.authority, inAuthority) {
		return ":authority has bytes that are not allowed"
	}
	return ""
}

// Response is what Request is, for a response's head. resp shares the list.
func (b *Decoder) Response(resp *message.Response) string {
	if b.bad == "" && b.seen != sawStatus {
		b.bad = ":status is missing, or pseudo header fields of requests came with it"
	}
	status, ok := parseStatus(b.pseudo.status)
	if b.bad == "" && (!ok || status == 101) {
		b.bad = ":status is malformed, or 101"
	}
	if b.bad != "" {
		return b.bad
	}
	b.joinCookies()
	if b.hasHost {
		b.list.Add("host", b.host)
	}
	*resp = message.Response{Version: message.HTTP2, Status: status, Header: *b.list, ContentLength: b.length}
	return ""
}

// Trailer checks the block of a trailer section.
func (b *Decoder) Trailer() string {
	if b.bad == "" && b.seen != 0 {
		b.bad = "pseudo header fields in a trailer"
	}
	return b.bad
}

// OpenLength is the ContentLength of a message whose head does not end the
// stream: 0 is for those where nothing follows, not even trailers.
func OpenLength(n int64) int64 {
	if n == 0 {
		return message.LengthUnknown
	}
	return n
}
