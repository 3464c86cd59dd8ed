// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"fmt"
	"strings"
)

// Metadata is what filters have left for others to decide by: a tree of
// map[string]any, []any, string, float64, bool and nil, by filter name, as JSON
// decodes to (Envoy's dynamic metadata).
type Metadata interface {
	// Metadata returns what the filter of that name left, or nil.
	Metadata(filter string) map[string]any
}

// A ValueTest is what a Value asks.
type ValueTest uint8

// The tests of envoy.type.matcher.v3.ValueMatcher.
const (
	ValuePresent ValueTest = iota // present_match: true
	ValueAbsent                   // present_match: false
	ValueNull
	ValueString
	ValueBool
	ValueNumber // an exact number, or Lo ≤ n < Hi
	ValueList   // list_match.one_of
	ValueAny    // or_match: any of Of
)

// A Value is a condition on one value of metadata.
type Value struct {
	Test   ValueTest
	Text   String
	Bool   bool
	Lo, Hi float64 // equal for an exact number
	Of     []Value // ValueList: one element; ValueAny: the alternatives
}

// Match says whether v, present or not, fulfils the condition.
func (m *Value) Match(v any, present bool) bool {
	if !present {
		return m.Test == ValueAbsent
	}
	switch m.Test {
	case ValuePresent:
		return true
	case ValueNull:
		return v == nil
	case ValueString:
		s, ok := v.(string)
		return ok && m.Text.Match(s)
	case ValueBool:
		b, ok := v.(bool)
		return ok && b == m.Bool
	case ValueNumber:
		n, ok := v.(float64)
		return ok && (n == m.Lo && m.Lo == m.Hi || m.Lo <= n && n < m.Hi)
	case ValueList:
		return m.matchList(v)
	case ValueAny:
		for i := range m.Of {
			if m.Of[i].Match(v, true) {
				return true
			}
		}
	}
	return false
}

func (m *Value) matchList(v any) bool {
	list, ok := v.([]any)
	if !ok || len(m.Of) == 0 {
		return false
	}
	for _, element := range list {
		if m.Of[0].Match(element, true) {
			return true
		}
	}
	return false
}

// String describes m for explain.
func (m *Value) String() string {
	switch m.Test {
	case ValuePresent:
		return "present"
	case ValueAbsent:
		return "absent"
	case ValueNull:
		return "null"
	case ValueString:
		return m.Text.String()
	case ValueBool:
		return fmt.Sprint(m.Bool)
	case ValueNumber:
		if m.Lo == m.Hi {
			return fmt.Sprint(m.Lo)
		}
		return fmt.Sprintf("in [%v, %v)", m.Lo, m.Hi)
	}
	of := make([]string, len(m.Of))
	for i := range m.Of {
		of[i] = m.Of[i].String()
	}
	if m.Test == ValueList {
		return "a list with " + strings.Join(of, " or ")
	}
	return strings.Join(of, " or ")
}

// A MetadataValue is one condition on metadata
// (envoy.type.matcher.v3.MetadataMatcher).
type MetadataValue struct {
	Filter string   // for example envoy.filters.http.jwt_authn
	Path   []string // keys from the filter's metadata down
	Value  Value
	Invert bool
}

// Match says whether md, which may be nil, fulfils the condition.
func (m *MetadataValue) Match(md Metadata) bool {
	v, ok := m.find(md)
	return m.Value.Match(v, ok) != m.Invert
}

func (m *MetadataValue) find(md Metadata) (any, bool) {
	if md == nil {
		return nil, false
	}
	var at any
	if tree := md.Metadata(m.Filter); tree != nil {
		at = tree
	}
	for _, key := range m.Path {
		object, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = object[key]; !ok {
			return nil, false
		}
	}
	return at, at != nil || len(m.Path) > 0
}

// String describes m for explain.
func (m *MetadataValue) String() string {
	what := m.Value.String()
	if m.Invert {
		what = "not " + what
	}
	return fmt.Sprintf("metadata %s[%s]: %s", m.Filter, strings.Join(m.Path, "."), what)
}
