// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package head

import (
	"errors"
	"unsafe"

	"github.com/meltemi/meltemi/message"
)

// CheckFields refuses what would be malformed on the wire. It runs before
// anything is encoded: a block that was begun must be sent, because the peer's
// table follows ours.
func CheckFields(h *message.Header) error {
	for _, f := range h.Fields() {
		if f.Name == "" || !consists(f.Name, inToken) {
			return errors.New("http2: the name of header field " + quoted(f.Name) + " cannot be sent")
		}
		if !validValue(f.Value) {
			return errors.New("http2: the value of header field " + f.Name + " cannot be sent: it has control bytes, or blanks around it")
		}
	}
	return nil
}

func quoted(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return `"` + s + `"`
}

// CheckRequest is CheckFields for a request's head.
func CheckRequest(req *message.Request) error {
	switch {
	case req.Method == "" || !consists(req.Method, inToken):
		return errors.New("http2: request method " + quoted(req.Method) + " cannot be sent")
	case !consists(req.Authority, inAuthority):
		return errors.New("http2: request authority " + quoted(req.Authority) + " cannot be sent")
	case !consists(req.Path, inPath) || req.Path == "" && !plainConnect(req):
		return errors.New("http2: request path " + quoted(req.Path) + " cannot be sent")
	case !consists(req.Protocol, inToken) || !consists(req.Scheme, inScheme):
		return errors.New("http2: request scheme or protocol cannot be sent")
	}
	return CheckFields(&req.Header)
}

func plainConnect(req *message.Request) bool { return req.Method == "CONNECT" && req.Protocol == "" }

// Request appends the block of a request's head.
func (e *Encoder) Request(b []byte, req *message.Request) []byte {
	b = e.begin(b)
	method := req.Method
	if req.Protocol != "" {
		method = "CONNECT" // RFC 8441, whatever the way in was
	}
	b = e.field(b, ":method", method)
	if !plainConnect(req) {
		scheme := req.Scheme
		if scheme == "" {
			scheme = "http"
		}
		b = e.field(b, ":scheme", scheme)
		b = e.field(b, ":path", req.Path)
	}
	if req.Authority != "" {
		b = e.field(b, ":authority", req.Authority)
	}
	if req.Protocol != "" {
		b = e.field(b, ":protocol", req.Protocol)
	}
	return e.fields(b, &req.Header, req.Protocol != "", true)
}

// Response appends the block of a response's head.
func (e *Encoder) Response(b []byte, status int, h *message.Header, upgrade bool) []byte {
	b = e.begin(b)
	digits := [3]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)}
	b = e.field(b, ":status", unsafe.String(&digits[0], len(digits)))
	return e.fields(b, h, upgrade, false)
}

// Trailer appends the block of a trailer section.
func (e *Encoder) Trailer(b []byte, h *message.Header) []byte {
	return e.fields(e.begin(b), h, false, false)
}

// fields appends h without what belongs to one connection of HTTP/1, and what
// says in other words what a pseudo header field says.
func (e *Encoder) fields(b []byte, h *message.Header, upgrade, request bool) []byte {
	for _, f := range h.Fields() {
		name := e.lowerName(f.Name)
		switch roleOf(name) {
		case fieldHopByHop:
			continue
		case fieldTE:
			if !message.EqualFold(f.Value, "trailers") {
				continue
			}
		case fieldHost:
			if request {
				continue
			}
		case fieldHandshake:
			if upgrade {
				continue
			}
		}
		b = e.field(b, name, f.Value)
	}
	return b
}
