// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/message"
)

// A HeaderTest is what a Header asks of a field.
type HeaderTest uint8

// The tests of envoy.config.route.v3.HeaderMatcher.
const (
	HeaderPresent HeaderTest = iota // present_match: true
	HeaderAbsent                    // present_match: false
	HeaderString                    // string_match and its older spellings
	HeaderRange                     // range_match: an integer in [Lo, Hi)
)

// A Header is one condition on a request's header
// (envoy.config.route.v3.HeaderMatcher). The pseudo header fields :method,
// :authority (also called host), :path, :scheme and :protocol can be asked for.
//
// Of several lines of one name each is compared by itself: one that matches is
// enough, and with Invert none may. A missing field fails a String or Range test
// even if Invert is set, unless MissingIsEmpty; presence tests are inverted by
// Invert alone. (Envoy 1.40 does the same; older ones joined the lines first.)
type Header struct {
	Name           string
	Test           HeaderTest
	Value          String
	Lo, Hi         int64
	Invert         bool
	MissingIsEmpty bool // treat_missing_header_as_empty
}

// Match says whether r fulfils the condition.
func (h *Header) Match(r *message.Request) bool {
	if pseudo, value, ok := PseudoField(r, h.Name); pseudo {
		return h.MatchValue(value, ok)
	}
	return h.MatchFields(&r.Header)
}

// MatchFields is Match for a header without pseudo fields, such as a response's.
func (h *Header) MatchFields(header *message.Header) bool {
	present := false
	for _, f := range header.Fields() {
		if !message.EqualFold(f.Name, h.Name) {
			continue
		}
		present = true
		if h.Test == HeaderPresent || h.Test == HeaderAbsent {
			break
		}
		if h.matchText(f.Value) {
			return !h.Invert
		}
	}
	if present && h.Test != HeaderPresent && h.Test != HeaderAbsent {
		return h.Invert
	}
	return h.MatchValue("", present)
}

// MatchValue says whether a field of that value, present or not, fulfils the condition.
func (h *Header) MatchValue(value string, present bool) bool {
	switch h.Test {
	case HeaderPresent, HeaderAbsent:
		if !present && h.MissingIsEmpty {
			present = true
		}
		return (present == (h.Test == HeaderPresent)) != h.Invert
	}
	if !present {
		if !h.MissingIsEmpty {
			return false
		}
		value = ""
	}
	return h.matchText(value) != h.Invert
}

func (h *Header) matchText(value string) bool {
	if h.Test == HeaderString {
		return h.Value.Match(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && h.Lo <= n && n < h.Hi
}

// String describes h for explain.
func (h *Header) String() string {
	var what string
	switch h.Test {
	case HeaderPresent:
		what = "present"
	case HeaderAbsent:
		what = "absent"
	case HeaderString:
		what = h.Value.String()
	case HeaderRange:
		what = fmt.Sprintf("in [%d, %d)", h.Lo, h.Hi)
	}
	if h.Invert {
		what = "not " + what
	}
	return "header " + h.Name + ": " + what
}

// RequestField returns the value of a field or pseudo field, several lines joined
// by ",", and whether it is there. It allocates only to join.
func RequestField(r *message.Request, name string) (string, bool) {
	if pseudo, value, ok := PseudoField(r, name); pseudo {
		return value, ok
	}
	return r.Header.Joined(name)
}

// PseudoField returns the value of a field that message.Request keeps outside
// its header; pseudo is false for every other name.
func PseudoField(r *message.Request, name string) (pseudo bool, value string, ok bool) {
	if name == "" {
		return false, "", false
	}
	switch name[0] {
	case ':':
	case 'h', 'H':
		if EqualFold(name, "host") {
			return true, r.Authority, r.Authority != ""
		}
		return false, "", false
	default:
		return false, "", false
	}
	switch name {
	case ":authority":
		value = r.Authority
	case ":method":
		value = Method(r)
	case ":path":
		value = r.Path
	case ":scheme":
		value = r.Scheme
	case ":protocol":
		value = r.Protocol
	}
	return true, value, value != ""
}

// Method returns the method as policies see it: an upgrade is a GET in HTTP/1.1
// and an extended CONNECT in HTTP/2 (RFC 8441), and must not pass by a policy
// because of that.
func Method(r *message.Request) string {
	if r.Method == "CONNECT" && r.Protocol != "" && r.Protocol != "connect-udp" {
		return "GET"
	}
	return r.Method
}

// PathOf returns the path of a request target without query and fragment, and
// the query without its "?".
func PathOf(target string) (path, query string) {
	for i := 0; i < len(target); i++ {
		switch target[i] {
		case '?':
			query, _, _ = strings.Cut(target[i+1:], "#")
			return target[:i], query
		case '#':
			return target[:i], ""
		}
	}
	return target, ""
}
