// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"strings"
)

// Severity says what became of an object that has a problem.
type Severity uint8

const (
	// Warning: the object is in force; part of it may not do what its author meant.
	Warning Severity = iota
	// Error: the object, or this version of it, is refused. The last good version stays in force.
	Error
)

// String is warning or error.
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// A Problem is what is wrong with an object, said so that its author can mend it.
type Problem struct {
	Object   Key   // zero when the text was not readable enough to tell
	Place    Place // empty when the object comes from no file
	Field    string
	Severity Severity
	Message  string
	// Beside says that it is about a text which does not stand for Object, as another one comes first. That one may be well.
	Beside bool
	// Partial says that the rest of the object is in force, but not what the field says, as Meltemi has not learned it yet.
	Partial bool
	// Idle says that nothing of the object has an effect.
	Idle bool
}

// String is one line: place, severity, object, field and message.
func (p Problem) String() string {
	var b strings.Builder
	if at := p.Place.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(p.Severity.String() + ": ")
	if !p.Object.IsZero() {
		b.WriteString(p.Object.String() + ": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Compare orders problems by place, object, field and message.
func (p Problem) Compare(o Problem) int {
	return cmp.Or(
		cmp.Compare(p.Place.File, o.Place.File),
		cmp.Compare(p.Place.Line, o.Place.Line),
		p.Object.Compare(o.Object),
		cmp.Compare(p.Field, o.Field),
		cmp.Compare(p.Severity, o.Severity),
		cmp.Compare(p.Message, o.Message),
	)
}

// StaysInForce is said about the newest version of an object that is refused, after the reason, if there was a good one.
const StaysInForce = "; the version before this one stays in force"
