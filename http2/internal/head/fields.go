// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package head

import (
	"strconv"
	"strings"
)

// What a byte may be part of.
const (
	inName      = 1 << iota // a field name on the wire: a token without capitals
	inToken                 // a method
	inValue                 // a field value
	inPath                  // :path
	inAuthority             // :authority
	inScheme                // :scheme, after its first letter
)

// bytesOf says for each byte what it may be part of.
var bytesOf = byteTable()

func byteTable() (t [256]uint8) {
	const marks = "!#$%&'*+-.^_`|~"
	for i := range t {
		c := byte(i)
		lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
		if lower || digit || strings.IndexByte(marks, c) >= 0 {
			t[i] |= inName | inToken
		}
		if upper {
			t[i] |= inToken
		}
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[i] |= inValue
		}
		if c > 0x20 && c != 0x7f {
			t[i] |= inPath
			if strings.IndexByte(`/?#@\`, c) < 0 {
				t[i] |= inAuthority
			}
		}
		if lower || upper || digit || c == '+' || c == '-' || c == '.' {
			t[i] |= inScheme
		}
	}
	return t
}

// consists says whether s has only bytes that may be part of what.
func consists(s string, what uint8) bool {
	for i := 0; i < len(s); i++ {
		if bytesOf[s[i]]&what == 0 {
			return false
		}
	}
	return true
}

// validValue says whether v may be a field's value (RFC 9113 section 8.2.1).
func validValue(v string) bool {
	if v == "" {
		return true
	}
	if isBlank(v[0]) || isBlank(v[len(v)-1]) {
		return false
	}
	return consists(v, inValue)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// A fieldRole is what a field means to the codec itself.
type fieldRole uint8

const (
	fieldPlain fieldRole = iota
	fieldHopByHop
	fieldTE
	fieldHost
	fieldLength
	fieldCookie
	fieldExpect
	fieldHandshake // of HTTP/1's way into WebSocket, which RFC 8441 does without
)

// roleOf classifies a name in lower case.
func roleOf(name string) fieldRole {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return fieldHopByHop
	case "te":
		return fieldTE
	case "host":
		return fieldHost
	case "content-length":
		return fieldLength
	case "cookie":
		return fieldCookie
	case "expect":
		return fieldExpect
	case "sec-websocket-key", "sec-websocket-accept":
		return fieldHandshake
	}
	return fieldPlain
}

// parseLength reads a content-length: digits only.
func parseLength(v string) (int64, bool) {
	if v == "" || len(v) > 18 {
		return 0, false
	}
	for i := 0; i < len(v); i++ {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

// parseStatus reads a :status: three digits, 100 to 999.
func parseStatus(v string) (int, bool) {
	if len(v) != 3 {
		return 0, false
	}
	n := 0
	for i := 0; i < 3; i++ {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		n = n*10 + int(v[i]-'0')
	}
	return n, n >= 100
}
