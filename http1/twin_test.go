// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"regexp"
	"strconv"
	"strings"
)

// The slow twin reads a request as RFC 9112 writes it down, with regular
// expressions over whole strings, for limits at their defaults and HTTP/1.0
// accepted. It says whether a request is accepted and what is in it, not why
// one is refused.

const (
	tokenRE = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	valueRE = `[\t\x20-\x7e\x80-\xff]*`
	hostRE  = `(\[[0-9A-Fa-f:.]+\]|[-0-9A-Za-z._~!$&'()*+,;=%]*)(:[0-9]*)?`
)

var (
	requestLineRE = regexp.MustCompile(`^(` + tokenRE + `) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/1\.([01])$`)
	fieldLineRE   = regexp.MustCompile(`^(` + tokenRE + `):[ \t]*(` + valueRE + `)$`)
	authorityRE   = regexp.MustCompile(`^` + hostRE + `$`)
	absoluteRE    = regexp.MustCompile(`^([Hh][Tt][Tt][Pp][Ss]?)://(` + hostRE + `)([/?].*)?$`)
	connectRE     = regexp.MustCompile(`^` + hostRE + `$`)
	protocolRE    = regexp.MustCompile(`^` + tokenRE + `(/` + tokenRE + `)?$`)
	chunkLineRE   = regexp.MustCompile(`^([0-9A-Fa-f]+)[ \t]*(;` + valueRE + `)?$`)
)

type twinRequest struct {
	method, scheme, authority, path, protocol string
	fields                                    string
	minor                                     string
	length                                    int64
	close, expect                             bool
	body, trailer                             string
	bodyOK                                    bool
}

// Regular expressions work on UTF-8; latin makes every byte a character of its own.
func latin(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

func unlatin(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// twinRead returns the first request in s and what follows it, or false.
func twinRead(s string) (r twinRequest, rest string, ok bool) {
	for range 4 {
		s = strings.TrimPrefix(s, "\r\n")
	}
	head, rest, found := strings.Cut(s, "\r\n\r\n")
	if !found || len(head)+4 > DefaultMaxHeadBytes {
		return r, "", false
	}
	lines := strings.Split(head, "\r\n")
	m := requestLineRE.FindStringSubmatch(latin(lines[0]))
	if m == nil || len(lines)-1 > DefaultMaxFields {
		return r, "", false
	}
	r.method, r.minor = m[1], m[3]
	var fields [][2]string
	for _, l := range lines[1:] {
		f := fieldLineRE.FindStringSubmatch(latin(l))
		if f == nil {
			return r, "", false
		}
		fields = append(fields, [2]string{f[1], unlatin(strings.Trim(f[2], " \t"))})
	}
	if !r.takeFields(fields) || !r.takeTarget(unlatin(m[2])) {
		return r, "", false
	}
	r.body, r.trailer, rest, r.bodyOK = twinBody(r.length, rest)
	return r, rest, true
}

func values(fields [][2]string, name string) (v []string) {
	for _, f := range fields {
		if strings.EqualFold(f[0], name) {
			v = append(v, f[1])
		}
	}
	return v
}

func elements(values []string) (e []string) {
	for _, v := range values {
		for _, p := range strings.Split(v, ",") {
			if p = strings.ToLower(strings.Trim(p, " \t")); p != "" {
				e = append(e, p)
			}
		}
	}
	return e
}

func has(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func (r *twinRequest) takeFields(fields [][2]string) bool {
	hosts := values(fields, "host")
	if len(hosts) > 1 || len(hosts) == 0 && r.minor == "1" {
		return false
	}
	if len(hosts) == 1 {
		if r.authority = hosts[0]; !authorityRE.MatchString(r.authority) {
			return false
		}
	}
	lengths, codings := values(fields, "content-length"), values(fields, "transfer-encoding")
	for _, l := range lengths {
		n, err := strconv.ParseUint(l, 10, 63)
		if err != nil || len(l) > 19 || l != lengths[0] {
			return false
		}
		r.length = int64(n)
	}
	if len(codings) > 0 {
		if len(codings) > 1 || len(lengths) > 0 || r.minor == "0" || !strings.EqualFold(codings[0], "chunked") {
			return false
		}
		r.length = -1
	}
	options := elements(values(fields, "connection"))
	if len(options) > maxConnectionOptions {
		return false
	}
	r.close = has(options, "close") || r.minor == "0" && !has(options, "keep-alive")
	if e := values(fields, "expect"); len(e) > 0 && r.minor == "1" {
		// Those that are not empty must all be the one we know.
		for _, v := range e {
			if v == "" {
				continue
			}
			if r.expect = true; !strings.EqualFold(v, "100-continue") {
				return false
			}
		}
	}
	for _, p := range elements(values(fields, "upgrade")) {
		if p == "h2c" || p == "h2" {
			continue
		}
		if !protocolRE.MatchString(p) {
			return false
		}
		r.protocol = p
		break
	}
	if !has(options, "upgrade") || r.minor == "0" || r.length != 0 || r.method == "CONNECT" {
		r.protocol = ""
	}
	r.keepFields(fields, options)
	return r.method != "CONNECT" || r.length == 0
}

func (r *twinRequest) keepFields(fields [][2]string, options []string) {
	hop := []string{"host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"}
	kept := []string{"te", "http2-settings", "close", "keep-alive", "upgrade", "host", "content-length",
		"transfer-encoding", "content-type", "cache-control", "authorization", "cookie"}
	length := false
	for _, f := range fields {
		name := strings.ToLower(f[0])
		switch {
		case has(hop, name), has(options, name) && !has(kept, name):
			continue
		case name == "te":
			if !has(elements([]string{f[1]}), "trailers") {
				continue
			}
			f[1] = "trailers"
		case name == "content-length":
			if length {
				continue
			}
			length = true
		}
		r.fields += f[0] + ": " + f[1] + "\n"
	}
}

func (r *twinRequest) takeTarget(target string) bool {
	switch {
	case r.method == "CONNECT":
		m := connectRE.FindStringSubmatch(target)
		r.authority = target
		return m != nil && len(m[2]) > 1
	case strings.HasPrefix(target, "/"), target == "*" && r.method == "OPTIONS":
		r.path = target
		return true
	}
	m := absoluteRE.FindStringSubmatch(latin(target))
	if m == nil || m[3] == "" {
		return false
	}
	r.scheme, r.authority, r.path = strings.ToLower(m[1]), m[2], unlatin(m[5])
	switch {
	case r.path == "" && r.method == "OPTIONS":
		r.path = "*"
	case !strings.HasPrefix(r.path, "/"):
		r.path = "/" + r.path
	}
	return true
}

// twinBody returns the body, its trailers and what follows.
func twinBody(length int64, s string) (body, trailer, rest string, ok bool) {
	if length >= 0 {
		if int64(len(s)) < length {
			return "", "", "", false
		}
		return s[:length], "", s[length:], true
	}
	ext := 0
	for {
		line, after, found := strings.Cut(s, "\r\n")
		m := chunkLineRE.FindStringSubmatch(latin(line))
		if !found || m == nil || len(line)+2 > maxChunkLine || len(m[1]) > 16 {
			return "", "", "", false
		}
		size, err := strconv.ParseInt(m[1], 16, 64)
		if ext += len(line) - len(m[1]); err != nil || ext > maxChunkExtensions {
			return "", "", "", false
		}
		if size == 0 {
			if trailer, rest, ok = twinTrailer(after); !ok {
				return "", "", "", false
			}
			return body, trailer, rest, true
		}
		if int64(len(after)) < size || !strings.HasPrefix(after[size:], "\r\n") {
			return "", "", "", false
		}
		body, s = body+after[:size], after[size+2:]
	}
}

func twinTrailer(s string) (trailer, rest string, ok bool) {
	if strings.HasPrefix(s, "\r\n") {
		return "", s[2:], true
	}
	section, rest, found := strings.Cut(s, "\r\n\r\n")
	lines := strings.Split(section, "\r\n")
	if !found || len(section)+4 > DefaultMaxHeadBytes || len(lines) > DefaultMaxFields {
		return "", "", false
	}
	for _, l := range lines {
		m := fieldLineRE.FindStringSubmatch(latin(l))
		if m == nil {
			return "", "", false
		}
		name := strings.ToLower(m[1])
		if !regexp.MustCompile(`^(content-(length|type|encoding|range)|transfer-encoding|connection|host|te|trailer|` +
			`upgrade|keep-alive|proxy-connection|http2-settings|expect|max-forwards|range|cache-control|` +
			`(proxy-)?authorization|(proxy|www)-authenticate|cookie|set-cookie|location|date|vary|age|expires)$`).MatchString(name) {
			trailer += m[1] + ": " + unlatin(strings.Trim(m[2], " \t")) + "\n"
		}
	}
	return trailer, rest, true
}
