// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import "bytes"

// What the HTTP inspector can find, as filter chains name it.
const (
	protoHTTP10 = "http/1.0"
	protoHTTP11 = "http/1.1"
	protoH2C    = "h2c"
)

const (
	http2Preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	maxMethod     = 32
	maxHTTPLine   = 8 << 10
	minHTTPLine   = len("A / HTTP/1.1")
	versionLength = len("HTTP/1.1")
)

// sniffHTTP says which HTTP the first bytes of a connection are: "" for none,
// and false while more bytes are needed. As in Envoy's http_inspector the
// HTTP/2 preface or a whole request line decides.
func sniffHTTP(b []byte) (proto string, done bool) {
	if len(b) == 0 {
		return "", false
	}
	if n := min(len(b), len(http2Preface)); string(b[:n]) == http2Preface[:n] {
		if n == len(http2Preface) {
			return protoH2C, true
		}
		if n > len("PRI") { // no other method begins like this
			return "", false
		}
	}
	whole := len(b)
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	method := 0
	for method < len(b) && isToken(b[method]) {
		method++
	}
	if method == len(b) {
		return "", method > maxMethod || whole > maxHTTPLine // still within the method, or too long for one
	}
	if method == 0 || method > maxMethod || b[method] != ' ' {
		return "", true
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return "", len(b) > maxHTTPLine
	}
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	if len(line) < minHTTPLine {
		return "", true
	}
	switch v := line[len(line)-versionLength:]; {
	case string(v) == "HTTP/1.1":
		return protoHTTP11, true
	case string(v) == "HTTP/1.0":
		return protoHTTP10, true
	}
	return "", true
}

// beginsHTTP reports whether b, of which sniffHTTP cannot tell yet, is the beginning of HTTP rather than of a protocol that
// has words, too (JDWP-Handshake), and whose client may wait for an answer already: a method is there, and the space after it.
func beginsHTTP(b []byte) bool {
	method, _, found := bytes.Cut(bytes.TrimLeft(b, "\r\n"), []byte{' '})
	return found && !bytes.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' })
}

// isToken says whether c may be in a method (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	switch {
	case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
