// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/hex"
	"strings"

	"github.com/meltemi/meltemi/message"
)

// Names of the headers.
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
	b3          = "b3"
	b3TraceID   = "x-b3-traceid"
	b3SpanID    = "x-b3-spanid"
	b3Parent    = "x-b3-parentspanid"
	b3Sampled   = "x-b3-sampled"
	b3Flags     = "x-b3-flags"
)

// maxState bounds a tracestate that is passed on (W3C asks for 512 at least).
const maxState = 4 << 10

// Extract reads the caller's context, from traceparent if there is a good one,
// else from B3. The second result is false if there is none. Malformed headers
// count as absent. State points into h.
func Extract(h *message.Header) (Context, bool) {
	if v, ok := h.Lookup(traceparent); ok {
		if c, ok := parseW3C(v); ok {
			if s, ok := h.Joined(tracestate); ok && len(s) <= maxState {
				c.State = s
			}
			return c, true
		}
	}
	if v, ok := h.Lookup(b3); ok {
		if c, ok := parseB3(v); ok {
			return c, true
		}
	}
	if v, ok := h.Lookup(b3TraceID); ok {
		return parseB3Multi(h, v)
	}
	return Context{}, false
}

// parseW3C reads version-traceid-spanid-flags. Later versions may have more.
func parseW3C(v string) (Context, bool) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || v[:2] == "ff" {
		return Context{}, false
	}
	if v[:2] == "00" && len(v) != 55 || len(v) > 55 && v[55] != '-' {
		return Context{}, false
	}
	c := Context{Format: W3C}
	var version, flags [1]byte
	if !unhex(version[:], v[:2]) || !unhex(c.Trace[:], v[3:35]) || !unhex(c.Span[:], v[36:52]) || !unhex(flags[:], v[53:55]) {
		return Context{}, false
	}
	c.Sampled = flags[0]&1 != 0
	return c, c.Valid()
}

// parseB3 reads traceid-spanid[-sampled[-parent]].
func parseB3(v string) (Context, bool) {
	c := Context{Format: B3Single}
	id, rest, ok := strings.Cut(v, "-")
	if !ok || !unhexTrace(&c.Trace, id) {
		return Context{}, false
	}
	span, rest, _ := strings.Cut(rest, "-")
	sampled, parent, _ := strings.Cut(rest, "-")
	if !unhex(c.Span[:], span) || parent != "" && !unhex(c.Parent[:], parent) {
		return Context{}, false
	}
	switch sampled {
	case "1":
		c.Sampled = true
	case "d":
		c.Sampled, c.Debug = true, true
	case "", "0":
	default:
		return Context{}, false
	}
	return c, c.Valid()
}

func parseB3Multi(h *message.Header, id string) (Context, bool) {
	c := Context{Format: B3}
	if !unhexTrace(&c.Trace, id) || !unhex(c.Span[:], h.Get(b3SpanID)) {
		return Context{}, false
	}
	if p := h.Get(b3Parent); p != "" && !unhex(c.Parent[:], p) {
		return Context{}, false
	}
	s := h.Get(b3Sampled)
	c.Debug = h.Get(b3Flags) == "1"
	c.Sampled = c.Debug || s == "1" || s == "true"
	return c, c.Valid()
}

// Inject writes c for the next hop: as W3C, and as B3 in the forms in which the
// caller sent it.
func Inject(h *message.Header, c *Context) {
	h.Set(traceparent, string(appendW3C(make([]byte, 0, 55), c)))
	if c.Format&B3Single != 0 {
		b := append(appendHex(appendHex(make([]byte, 0, 68), c.Trace[:], '-'), c.Span[:], '-'), sampledB3(c))
		if c.Parent != (SpanID{}) {
			b = append(b, '-')
			b = hex.AppendEncode(b, c.Parent[:])
		}
		h.Set(b3, string(b))
	}
	if c.Format&B3 != 0 {
		h.Set(b3TraceID, hex.EncodeToString(c.Trace[:]))
		h.Set(b3SpanID, hex.EncodeToString(c.Span[:]))
		if c.Parent != (SpanID{}) {
			h.Set(b3Parent, hex.EncodeToString(c.Parent[:]))
		}
		if !c.Debug {
			h.Set(b3Sampled, map[bool]string{true: "1", false: "0"}[c.Sampled])
		}
	}
}

func sampledB3(c *Context) byte {
	switch {
	case c.Debug:
		return 'd'
	case c.Sampled:
		return '1'
	}
	return '0'
}

func appendW3C(b []byte, c *Context) []byte {
	b = append(b, "00-"...)
	b = appendHex(b, c.Trace[:], '-')
	b = appendHex(b, c.Span[:], '-')
	if c.Sampled {
		return append(b, "01"...)
	}
	return append(b, "00"...)
}

func appendHex(b, raw []byte, sep byte) []byte { return append(hex.AppendEncode(b, raw), sep) }

// unhexTrace reads an id of 16 or 32 digits.
func unhexTrace(id *TraceID, s string) bool {
	if len(s) == 16 {
		return unhex(id[8:], s)
	}
	return unhex(id[:], s)
}

// unhex fills to from exactly as many digits, without allocating.
func unhex(to []byte, s string) bool {
	if len(s) != 2*len(to) {
		return false
	}
	for i := range to {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		to[i] = hi<<4 | lo
	}
	return true
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
