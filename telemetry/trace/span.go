// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import "time"

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

// Tag adds an attribute.
func (s *Span) Tag(key, value string) { s.Tags = append(s.Tags, Tag{key, value}) }
