// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// A Kind is how a String compares.
type Kind uint8

// The kinds of String.
const (
	KindAny      Kind = iota // everything, the empty string too
	KindExact                // the whole string
	KindPrefix               // the beginning
	KindSuffix               // the end
	KindContains             // anywhere
	KindRegex                // RE2, the whole string
)

var kindNames = [...]string{"any", "exact", "prefix", "suffix", "contains", "regex"}

func (k Kind) String() string { return kindNames[k] }

// maxRegex bounds the source of one expression, in bytes, and maxInstructions
// the size of its program, so that one object cannot make the proxy slow.
// Istio's own expressions stay below a few hundred of either.
const (
	maxRegex        = 16 << 10
	maxInstructions = 20000
)

// A String matches strings (envoy.type.matcher.v3.StringMatcher). The zero
// value matches everything.
type String struct {
	kind  Kind
	fold  bool   // ASCII case is ignored; value is lower case then
	value string // the literal, or the source of the expression
	re    *regexp.Regexp
}

// Exact matches s alone.
func Exact(s string) String { return String{kind: KindExact, value: s} }

// Prefix matches what begins with s.
func Prefix(s string) String { return String{kind: KindPrefix, value: s} }

// Suffix matches what ends with s.
func Suffix(s string) String { return String{kind: KindSuffix, value: s} }

// Contains matches what has s in it.
func Contains(s string) String { return String{kind: KindContains, value: s} }

// Regex matches what the RE2 expression matches as a whole.
func Regex(expr string) (String, error) {
	// On its own first: "a)|(b" would be valid inside the brackets added below.
	if _, err := CompileRegex(expr); err != nil {
		return String{}, err
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return String{}, err
	}
	return String{kind: KindRegex, value: expr, re: re}, nil
}

// CompileRegex compiles an RE2 expression within our limits, unanchored.
func CompileRegex(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxRegex {
		return nil, fmt.Errorf("regular expression of %d bytes is longer than %d", len(expr), maxRegex)
	}
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	if len(prog.Inst) > maxInstructions {
		return nil, fmt.Errorf("regular expression %.40q… compiles to %d instructions, more than %d", expr, len(prog.Inst), maxInstructions)
	}
	return regexp.Compile(expr)
}

// IgnoreCase returns m without ASCII case. A regular expression stays as it is
// and must say (?i) by itself, as in Envoy.
func (m String) IgnoreCase() String {
	if m.kind != KindRegex && m.kind != KindAny {
		m.fold, m.value = true, lower(m.value)
	}
	return m
}

// Kind returns how m compares.
func (m *String) Kind() Kind { return m.kind }

// Value returns the literal or the source of the expression.
func (m *String) Value() string { return m.value }

// Match says whether s is matched.
func (m *String) Match(s string) bool {
	switch m.kind {
	case KindAny:
		return true
	case KindExact:
		return len(s) == len(m.value) && m.equal(s)
	case KindPrefix:
		return len(s) >= len(m.value) && m.equal(s[:len(m.value)])
	case KindSuffix:
		return len(s) >= len(m.value) && m.equal(s[len(s)-len(m.value):])
	case KindContains:
		if m.fold {
			return containsFold(s, m.value)
		}
		return strings.Contains(s, m.value)
	case KindRegex:
		return m.re.MatchString(s)
	}
	return false
}

func (m *String) equal(s string) bool {
	if m.fold {
		return EqualFold(s, m.value)
	}
	return s == m.value
}

// String describes m for explain: prefix "/api" (ignore case).
func (m *String) String() string {
	if m.kind == KindAny {
		return "anything"
	}
	s := fmt.Sprintf("%s %q", m.kind, m.value)
	if m.fold {
		s += " (ignore case)"
	}
	return s
}

// EqualFold compares bytes, ASCII letters without case.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func containsFold(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if EqualFold(s[i:i+len(sub)], sub) {
			return true
		}
	}
	return false
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// lower is strings.ToLower for ASCII alone; other bytes stay.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if lowerByte(s[i]) != s[i] {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				b[j] = lowerByte(b[j])
			}
			return string(b)
		}
	}
	return s
}
