// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import (
	"strings"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/route"
)

// authority applies the rules for ports and trailing dots. own is the port of
// the listener the client connected to.
func authority(host string, cfg *config.HTTP, own uint16) string {
	if cfg.StripPort != config.StripNone || cfg.StripTrailingDot {
		bare := route.WithoutPort(host)
		port := host[len(bare):]
		if cfg.StripTrailingDot {
			bare = strings.TrimSuffix(bare, ".")
		}
		if cfg.StripPort == config.StripAny || cfg.StripPort == config.StripMatching && isOwn(port, own) {
			port = ""
		}
		if len(bare)+len(port) != len(host) {
			return bare + port
		}
	}
	return host
}

func isOwn(port string, own uint16) bool {
	n := 0
	for _, c := range strings.TrimPrefix(port, ":") {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return port != "" && n == int(own)
}

// A verdict on a path.
type verdict uint8

const (
	keep     verdict = iota
	redirect         // to the path returned
	reject           // 400
)

// path applies the rules for escapes, dots and slashes to a request target. The
// query is left alone. A fragment is for clients alone (RFC 9110 section 4.1): a request
// with one is refused, as by Envoy since CVE-2021-32779.
func path(target string, cfg *config.HTTP) (string, verdict) {
	if strings.IndexByte(target, '#') >= 0 {
		return "", reject
	}
	p, query := target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		p, query = target[:i], target[i:]
	}
	if !suspicious(p) {
		return target, keep
	}
	p, v := rules(p, cfg)
	if v != reject && strings.IndexByte(p, '%') >= 0 {
		// An escape that appears by decoding another one ("%%32e") would mean
		// something else to the next who decodes.
		if again, _ := rules(p, cfg); again != p {
			return "", reject
		}
	}
	return p + query, v
}

func rules(p string, cfg *config.HTTP) (string, verdict) {
	after := keep
	if cfg.EscapedSlashes != config.SlashesKeep {
		if plain, found := unescapeSlashes(p); found {
			switch cfg.EscapedSlashes {
			case config.SlashesReject:
				return "", reject
			case config.SlashesRedirect:
				after = redirect
			}
			p = plain
		}
	}
	if cfg.NormalizePath {
		var ok bool
		if p, ok = normalize(p); !ok {
			return "", reject
		}
	}
	if cfg.MergeSlashes {
		p = mergeSlashes(p)
	}
	return p, after
}

// suspicious says whether any rule can apply to p.
func suspicious(p string) bool {
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '%' || c == '\\':
			return true
		case c == '/' && i+1 < len(p) && (p[i+1] == '/' || p[i+1] == '.'):
			return true
		}
	}
	return false
}

// unescapeSlashes decodes %2F and %5C.
func unescapeSlashes(p string) (string, bool) {
	var b strings.Builder
	last := 0
	for i := 0; i+2 < len(p); i++ {
		if p[i] != '%' {
			continue
		}
		c, ok := unhex(p[i+1], p[i+2])
		if !ok || c != '/' && c != '\\' {
			continue
		}
		b.WriteString(p[last:i])
		b.WriteByte(c)
		i += 2
		last = i + 1
	}
	if last == 0 {
		return p, false
	}
	b.WriteString(p[last:])
	return b.String(), true
}

// normalize decodes escapes of characters that need none (RFC 3986 section
// 2.3), turns backslashes into slashes and removes dot segments (section 5.2.4).
// An escaped zero byte makes it fail. Other escapes stay as they were.
func normalize(p string) (string, bool) {
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '\\':
			c = '/'
		case c == '%' && i+2 < len(p):
			d, ok := unhex(p[i+1], p[i+2])
			if ok && d == 0 {
				return "", false
			}
			if ok && unreserved(d) {
				c = d
				i += 2
			}
		}
		b = append(b, c)
	}
	return string(removeDots(b)), true
}

// removeDots removes "." and ".." segments, in place. A path never climbs above
// its root.
func removeDots(b []byte) []byte {
	if len(b) == 0 || b[0] != '/' {
		return b
	}
	out := b[:0]
	for i := 0; i < len(b); {
		end := i + 1 // b[i] is a slash
		for end < len(b) && b[end] != '/' {
			end++
		}
		last := end == len(b)
		switch segment := string(b[i+1 : end]); segment {
		case ".":
			if last {
				out = append(out, '/')
			}
		case "..":
			for n := len(out) - 1; n >= 0; n-- {
				if out[n] == '/' {
					out = out[:n]
					break
				}
			}
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, b[i:end]...)
		}
		i = end
	}
	return out
}

func mergeSlashes(p string) string {
	if !strings.Contains(p, "//") {
		return p
	}
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] == '/' && i > 0 && p[i-1] == '/' {
			continue
		}
		b = append(b, p[i])
	}
	return string(b)
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(hi, lo byte) (byte, bool) {
	h, l := digit(hi), digit(lo)
	return h<<4 | l, h < 16 && l < 16
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
