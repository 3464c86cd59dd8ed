// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"time"

	"github.com/meltemi/meltemi/message"
)

// An asked is what a response's meaning depends on of its request.
type asked struct {
	head, connect bool
	upgrade       bool
}

// parseResponse reads a whole head from the front of b into resp and f.
func parseResponse(b []byte, lim *Limits, resp *message.Response, f *framing) (rest []byte, bad *Error) {
	line, rest, bad := cutLine(b, lim.AllowBareLF)
	if bad != nil {
		return b, bad
	}
	if bad = parseStatusLine(view(line), resp); bad != nil {
		return b, bad
	}
	return parseFields(rest, lim, &resp.Header, f)
}

// parseStatusLine reads HTTP-version SP status-code [SP reason-phrase]. The
// second space is often forgotten where there is no reason.
func parseStatusLine(line string, resp *message.Response) *Error {
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' {
		return malformed("invalid status line")
	}
	switch version := line[:8]; {
	case version == "HTTP/1.1":
		resp.Version = message.HTTP11
	case version == "HTTP/1.0":
		resp.Version = message.HTTP10
	case isVersion(version):
		return malformed("HTTP version is not supported")
	default:
		return malformed("invalid HTTP version")
	}
	if line[9] < '1' || line[9] > '9' || !isDigit(line[10]) || !isDigit(line[11]) {
		return malformed("invalid status code")
	}
	resp.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if reason := line[12:]; reason != "" {
		if reason[0] != ' ' || !validValue(reason) {
			return malformed("invalid reason phrase")
		}
		resp.Reason = reason[1:]
	}
	return nil
}

// decide says how resp's body is framed (RFC 9112 section 6.3) and what becomes
// of the connection; it completes resp.
func decide(resp *message.Response, f *framing, q asked) (kind bodyKind, bad *Error) {
	if bad := checkCoding(f, resp.Version); bad != nil {
		return bodyNone, bad
	}
	resp.Close = f.close || resp.Version == message.HTTP10 && !f.keepAlive
	s := resp.Status
	switch {
	case s == 101:
		if !q.upgrade || !f.upgrade || f.protocol == "" {
			return bodyNone, malformed("101 to a request that asked for no upgrade, or without its protocol")
		}
		resp.Protocol = f.protocol
		return bodyTunnel, mustNotHaveBody(f)
	case s < 200, s == 204:
		return bodyNone, mustNotHaveBody(f)
	case q.connect && s < 300:
		// Framing fields in such a response mean nothing (RFC 9110 section 9.3.6).
		resp.Header.Delete("Content-Length")
		return bodyTunnel, nil
	case q.head || s == 304:
		return bodyNone, nil
	case f.codings > 0:
		resp.ContentLength = message.LengthUnknown
		return bodyChunked, nil
	case f.length != message.LengthUnknown:
		resp.ContentLength = f.length
		return bodyLength, nil
	}
	resp.ContentLength, resp.Close = message.LengthUnknown, true
	return bodyUntilClose, nil
}

// mustNotHaveBody refuses framing in 1xx and 204 (RFC 9112 section 6.1, RFC 9110
// section 8.6): who sends it may send the body, too. Content-Length 0 is harmless.
func mustNotHaveBody(f *framing) *Error {
	if f.codings > 0 || f.length > 0 {
		return malformed("status that has no body comes with the length of one")
	}
	return nil
}

// parseKeepAlive reads "timeout=5, max=100" (seconds; requests). What it does
// not understand is 0.
func parseKeepAlive(value string) (timeout time.Duration, requests int) {
	for value != "" {
		var e string
		e, value = nextElement(value)
		if n, ok := keepAliveParam(e, "timeout="); ok {
			timeout = time.Duration(n) * time.Second
		}
		if n, ok := keepAliveParam(e, "max="); ok {
			requests = int(n)
		}
	}
	return timeout, requests
}

func keepAliveParam(s, name string) (int64, bool) {
	if len(s) <= len(name) || !message.EqualFold(s[:len(name)], name) {
		return 0, false
	}
	n, ok := parseLength(s[len(name):])
	return n, ok && n <= 1<<30
}
