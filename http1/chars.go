// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"github.com/meltemi/meltemi/message"
)

// What a byte may be part of.
const (
	charToken  = 1 << iota // RFC 9110 section 5.6.2
	charTarget             // a request target: visible, not "#"; bytes from 0x80 as they are
	charHost               // RFC 3986 section 3.2.2: reg-name
	charIPv6               // between the brackets
	charHex
)

var chars = charTable()

func charTable() (t [256]uint8) {
	for c := 0x21; c < 256; c++ {
		if c != 0x7f && c != '#' {
			t[c] |= charTarget
		}
	}
	alnum := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, set := range []struct {
		chars string
		bit   uint8
	}{
		{alnum + "!#$%&'*+-.^_`|~", charToken},
		{alnum + "-._~!$&'()*+,;=%", charHost},
		{"0123456789abcdefABCDEF:.", charIPv6},
		{"0123456789abcdefABCDEF", charHex},
	} {
		for _, c := range []byte(set.chars) {
			t[c] |= set.bit
		}
	}
	return t
}

// only says whether all bytes of s are of the class; it is true for "".
func only(s string, class uint8) bool {
	for i := 0; i < len(s); i++ {
		if chars[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && only(s, charToken) }

// validValue says whether s may be a field value: no control characters but tab
// (RFC 9110 section 5.5). Eight bytes at a time: most values have none.
func validValue(s string) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		del := x ^ (0x7f * ones)
		below := (x - 0x20*ones) & ^x & highs // some byte < 0x20
		isDel := (del - ones) & ^del & highs  // some byte == 0x7f
		if below|isDel != 0 && !plainValue(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return plainValue(b)
}

func plainValue(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// view returns b as a string that shares its bytes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// lower changes the ASCII letters of s to lower case where they are: s must be
// a view of a read buffer.
func lower(s string) string {
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return s
}

// isProtocol says whether s is protocol-name ["/" protocol-version].
func isProtocol(s string) bool {
	name, version, found := strings.Cut(s, "/")
	return isToken(name) && (!found || isToken(version))
}

func trimOWS(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// nextElement cuts the first element off a comma-separated list; empty elements
// are elements too.
func nextElement(list string) (element, rest string) {
	element, rest, _ = strings.Cut(list, ",")
	return trimOWS(element), rest
}

func hasElement(list, element string) bool {
	for list != "" {
		var e string
		if e, list = nextElement(list); message.EqualFold(e, element) {
			return true
		}
	}
	return false
}

// parseLength reads 1*DIGIT.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 19 {
		return 0, false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	return int64(n), n <= 1<<63-1
}

// validAuthority says whether s is host [":" port] with no user information; a
// host in brackets is an IPv6 address with no zone. It may be empty.
func validAuthority(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i:], ']') < 0 {
		host, port = s[:i], s[i+1:]
	}
	for i := 0; i < len(port); i++ {
		if !isDigit(port[i]) {
			return false
		}
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		return only(host[1:n-1], charIPv6)
	}
	return only(host, charHost)
}

// hasPort says whether a valid authority ends with a port.
func hasPort(s string) bool {
	return s != "" && s[len(s)-1] >= '0' && s[len(s)-1] <= '9' &&
		strings.IndexByte(s[strings.LastIndexByte(s, ']')+1:], ':') >= 0
}
