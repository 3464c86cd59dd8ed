// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"github.com/meltemi/meltemi/message"
)

// What a message's fields say about its connection and its framing: the fields
// that are consumed, and Content-Length.
type framing struct {
	length      int64  // of Content-Length; LengthUnknown if there is none
	digits      string // of Content-Length as it came
	coding      string // of Transfer-Encoding
	codings     int    // lines of Transfer-Encoding
	host        string
	hosts       int
	expect      string
	close       bool     // Connection: close
	keepAlive   bool     // Connection: keep-alive
	upgrade     bool     // Connection: upgrade
	protocol    string   // of Upgrade, lower case, without h2c
	keep        string   // of Keep-Alive
	options     []string // other fields that Connection names
	countOption int
}

func (f *framing) reset() {
	*f = framing{length: message.LengthUnknown, options: f.options[:0]}
}

// A line of a head or of a trailer section, cut from the front of b, without
// its end. The end must be in b.
func cutLine(b []byte, bareLF bool) (line, rest []byte, bad *Error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, b, errTruncated
	}
	line, rest = b[:i], b[i+1:]
	if i > 0 && b[i-1] == '\r' {
		return line[:i-1], rest, nil
	}
	if !bareLF {
		return nil, b, malformed("line ends with LF alone")
	}
	return line, rest, nil
}

// parseFields reads field lines up to and with the empty line, adds those that
// travel on to h and notes the others in f. It returns what follows in b.
func parseFields(b []byte, lim *Limits, h *message.Header, f *framing) (rest []byte, bad *Error) {
	for n := 0; ; n++ {
		line, after, bad := cutLine(b, lim.AllowBareLF)
		if bad != nil {
			return b, bad
		}
		b = after
		if len(line) == 0 {
			break
		}
		if n == lim.MaxFields {
			return b, errFieldCount
		}
		name, value, bad := parseField(line)
		if bad != nil {
			return b, bad
		}
		keep, bad := f.note(name, &value)
		if bad != nil {
			return b, bad
		}
		if keep {
			h.Add(name, value)
		}
	}
	if len(f.options) > 0 {
		h.DeleteFunc(f.named)
	}
	return b, nil
}

// parseField reads field-name ":" OWS field-value OWS (RFC 9112 section 5).
func parseField(line []byte) (name, value string, bad *Error) {
	s := view(line)
	i := 0
	for i < len(s) && chars[s[i]]&charToken != 0 {
		i++
	}
	if i == 0 || i == len(s) || s[i] != ':' {
		return "", "", badName(s, i)
	}
	name, value = s[:i], trimOWS(s[i+1:])
	if !validValue(value) {
		return "", "", malformed("control character in the value of a field")
	}
	return name, value, nil
}

func badName(line string, i int) *Error {
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return malformed("folded field line")
	case i < len(line) && (line[i] == ' ' || line[i] == '\t'):
		return malformed("white space in or after a field name")
	case i == len(line):
		return malformed("field line without a colon")
	}
	return malformed("invalid field name")
}

// note looks at one field and says whether it travels on, perhaps with another value.
func (f *framing) note(name string, v *string) (keep bool, bad *Error) {
	value := *v
	switch len(name) {
	case len("TE"):
		if message.EqualFold(name, "TE") {
			*v = "trailers"
			return hasElement(value, "trailers"), nil
		}
	case len("Host"):
		if message.EqualFold(name, "Host") {
			f.host = value
			f.hosts++
			return false, nil
		}
	case len("Expect"):
		if message.EqualFold(name, "Expect") {
			// One that is not known is not hidden by one that is.
			if value != "" && (f.expect == "" || message.EqualFold(f.expect, "100-continue")) {
				f.expect = value
			}
		}
	case len("Upgrade"):
		if message.EqualFold(name, "Upgrade") {
			return false, f.noteUpgrade(value)
		}
	case len("Connection"): // and Keep-Alive
		if message.EqualFold(name, "Connection") {
			return false, f.noteConnection(value)
		}
		if message.EqualFold(name, "Keep-Alive") {
			f.keep = value
			return false, nil
		}
	case len("Content-Length"): // and HTTP2-Settings
		if message.EqualFold(name, "Content-Length") {
			return f.noteLength(value)
		}
		if message.EqualFold(name, "HTTP2-Settings") {
			return false, nil // of an upgrade to h2c, which is not offered
		}
	case len("Proxy-Connection"):
		if message.EqualFold(name, "Proxy-Connection") {
			return false, nil
		}
	case len("Transfer-Encoding"):
		if message.EqualFold(name, "Transfer-Encoding") {
			f.coding = value
			f.codings++
			return false, nil
		}
	}
	return true, nil
}

func (f *framing) noteLength(value string) (keep bool, bad *Error) {
	n, ok := parseLength(value)
	switch {
	case !ok:
		return false, malformed("invalid Content-Length")
	case f.length == message.LengthUnknown:
		f.length, f.digits = n, value
		return true, nil
	case f.digits != value:
		return false, malformed("several Content-Length that differ")
	}
	return false, nil
}

// noteUpgrade takes the first protocol that may be served: a switch to h2c is
// never made, whoever asks.
func (f *framing) noteUpgrade(value string) *Error {
	for value != "" && f.protocol == "" {
		var p string
		p, value = nextElement(value)
		if p == "" || message.EqualFold(p, "h2c") || message.EqualFold(p, "h2") {
			continue
		}
		if !isProtocol(p) {
			return malformed("invalid Upgrade")
		}
		f.protocol = lower(p)
	}
	return nil
}

func (f *framing) noteConnection(value string) *Error {
	for value != "" {
		var o string
		o, value = nextElement(value)
		if o == "" {
			continue
		}
		if f.countOption++; f.countOption > maxConnectionOptions {
			return &Error{431, TooLarge, "more connection options than allowed"}
		}
		switch {
		case message.EqualFold(o, "close"):
			f.close = true
		case message.EqualFold(o, "keep-alive"):
			f.keepAlive = true
		case message.EqualFold(o, "upgrade"):
			f.upgrade = true
		case message.EqualFold(o, "te"), message.EqualFold(o, "http2-settings"):
		case endToEnd(o):
			// Nobody may take these out of a message by naming them.
		default:
			f.options = append(f.options, o)
		}
	}
	return nil
}

// endToEnd says whether a field is meant for all recipients by its definition,
// so that a Connection option with its name means nothing (RFC 9110 section 7.6.1).
func endToEnd(name string) bool {
	for _, n := range [...]string{
		"host", "content-length", "transfer-encoding", "content-type", "cache-control", "authorization", "cookie",
	} {
		if message.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func (f *framing) named(field message.Field) bool {
	for _, o := range f.options {
		if message.EqualFold(o, field.Name) {
			return true
		}
	}
	return false
}
