// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"strings"
	"time"
)

// A Span is one operation of a sampled trace.
type Span struct {
	Context
	Name       string
	Server     bool // kind: server, else client
	Start, End time.Time
	Error      bool
	Tags       []Tag
}

// A Tag is an attribute of a span.
type Tag struct{ Key, Value string }

// maxTags bounds a span's attributes.
const maxTags = 128

// Tag adds an attribute. Both strings are copied: a span outlives its exchange.
func (s *Span) Tag(key, value string) {
	if len(s.Tags) < maxTags {
		s.Tags = append(s.Tags, Tag{key, strings.Clone(value)})
	}
}
