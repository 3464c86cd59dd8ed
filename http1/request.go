// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"

	"github.com/meltemi/meltemi/message"
)

// skipEmptyLines reads over empty lines before a request line and waits for its
// first byte (RFC 9112 section 2.2).
func (in *reader) skipEmptyLines(bareLF bool) error {
	for n := 0; n <= maxEmptyLines; n++ {
		for len(in.unread()) == 0 || len(in.unread()) == 1 && in.unread()[0] == '\r' {
			if err := in.fill(0); err != nil {
				return err
			}
		}
		switch b := in.unread(); {
		case b[0] == '\r' && b[1] == '\n':
			in.r += 2
		case b[0] == '\n' && bareLF:
			in.r++
		default:
			return nil
		}
	}
	return errEmptyLines
}

// parseRequest reads a whole head from the front of b into req and f.
func parseRequest(b []byte, cfg *ServerConfig, req *message.Request, f *framing) (rest []byte, bad *Error) {
	line, rest, bad := cutLine(b, cfg.AllowBareLF)
	if bad != nil {
		return b, bad
	}
	target, bad := parseRequestLine(view(line), cfg, req)
	if bad != nil {
		return b, bad
	}
	if rest, bad = parseFields(rest, &cfg.Limits, &req.Header, f); bad != nil {
		return b, bad
	}
	if bad = checkHost(req, f); bad == nil {
		bad = setTarget(req, target, f.host)
	}
	if bad == nil {
		bad = checkFraming(req, f)
	}
	return rest, bad
}

// parseRequestLine reads method SP request-target SP HTTP-version.
func parseRequestLine(line string, cfg *ServerConfig, req *message.Request) (target string, bad *Error) {
	method, rest, _ := strings.Cut(line, " ")
	if !isToken(method) {
		return "", malformed("invalid method")
	}
	target, version, found := strings.Cut(rest, " ")
	if target == "" || !found {
		return "", malformed("request line has not three parts")
	}
	if len(target) > cfg.MaxTargetBytes {
		return "", errTargetSize
	}
	if !only(target, charTarget) {
		return "", malformed("invalid character in the request target")
	}
	switch version {
	case "HTTP/1.1":
		req.Version = message.HTTP11
	case "HTTP/1.0":
		if !cfg.AcceptHTTP10 {
			return "", &Error{426, Unsupported, "HTTP/1.0 is not accepted"}
		}
		req.Version = message.HTTP10
	default:
		if !isVersion(version) {
			return "", malformed("invalid HTTP version")
		}
		return "", &Error{505, Unsupported, "HTTP version is not supported"}
	}
	req.Method = method
	return target, nil
}

// isVersion says whether s is HTTP-version.
func isVersion(s string) bool {
	return len(s) == 8 && s[:5] == "HTTP/" && s[6] == '.' && isDigit(s[5]) && isDigit(s[7])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func checkHost(req *message.Request, f *framing) *Error {
	switch {
	case f.hosts > 1:
		return malformed("several Host fields")
	case f.hosts == 0 && req.Version == message.HTTP11:
		return malformed("no Host field")
	case !validAuthority(f.host):
		return malformed("invalid Host")
	}
	return nil
}

// setTarget splits the request target (RFC 9112 section 3.2) into what req has.
func setTarget(req *message.Request, target, host string) *Error {
	req.Authority = host
	switch {
	case req.Method == "CONNECT":
		if !validAuthority(target) || !hasPort(target) {
			return malformed("target of CONNECT is not host:port")
		}
		req.Authority = target
		return nil
	case target[0] == '/':
		req.Path = target
		return nil
	case target == "*":
		if req.Method != "OPTIONS" {
			return malformed("target * with a method other than OPTIONS")
		}
		req.Path = target
		return nil
	}
	return setAbsolute(req, target)
}

// setAbsolute takes an absolute-form target; its authority overrides Host
// (RFC 9112 section 3.2.2).
func setAbsolute(req *message.Request, target string) *Error {
	scheme, rest, found := strings.Cut(target, "://")
	switch {
	case found && message.EqualFold(scheme, "http"):
		req.Scheme = "http"
	case found && message.EqualFold(scheme, "https"):
		req.Scheme = "https"
	default:
		return malformed("request target is neither a path nor an http URI")
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	req.Authority = rest[:end]
	if req.Authority == "" || req.Authority[0] == ':' || !validAuthority(req.Authority) {
		return malformed("invalid authority in the request target")
	}
	switch req.Path = rest[end:]; {
	case req.Path == "" && req.Method == "OPTIONS":
		req.Path = "*"
	case req.Path == "":
		req.Path = "/"
	case req.Path[0] == '?':
		req.Path = "/" + req.Path
	}
	return nil
}

// checkFraming decides about the body (RFC 9112 section 6.3), the connection and
// the expectation.
func checkFraming(req *message.Request, f *framing) *Error {
	if bad := checkCoding(f, req.Version); bad != nil {
		return bad
	}
	req.ContentLength = max(f.length, 0)
	if f.codings > 0 {
		req.ContentLength = message.LengthUnknown
	}
	if req.Method == "CONNECT" && req.ContentLength != 0 {
		return malformed("CONNECT with a body")
	}
	if req.Version == message.HTTP10 {
		req.Close = f.close || !f.keepAlive
		return nil
	}
	req.Close = f.close
	// An upgrade may be ignored; one of a request with a body is.
	if f.upgrade && req.ContentLength == 0 && req.Method != "CONNECT" {
		req.Protocol = f.protocol
	}
	if f.expect != "" {
		if !message.EqualFold(f.expect, "100-continue") {
			return &Error{417, Unsupported, "expectation is not supported"}
		}
		req.Expect100 = true
	}
	return nil
}

// checkCoding refuses every Transfer-Encoding but exactly "chunked", once, in
// HTTP/1.1, without Content-Length.
func checkCoding(f *framing, v message.Version) *Error {
	switch {
	case f.codings == 0:
		return nil
	case f.length != message.LengthUnknown:
		return malformed("both Content-Length and Transfer-Encoding")
	case v != message.HTTP11:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case f.codings > 1:
		return malformed("several Transfer-Encoding fields")
	case message.EqualFold(f.coding, "chunked"):
		return nil
	}
	// A coding we do not know, then chunked: the body's end is clear, its meaning is not.
	last := f.coding
	if i := strings.LastIndexByte(last, ','); i >= 0 {
		last = last[i+1:]
	}
	if message.EqualFold(trimOWS(last), "chunked") {
		return &Error{501, Unsupported, "Transfer-Encoding other than chunked"}
	}
	return malformed("Transfer-Encoding that does not end with chunked")
}
