// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Prefix is how type URLs begin.
const Prefix = "type.googleapis.com/"

// recursionLimit bounds how deep messages are nested.
const recursionLimit = 100

// Unmarshal reads a into m and checks it. A nil a, or one of another type, is an error.
func Unmarshal(a *anypb.Any, m proto.Message) error {
	want := string(m.ProtoReflect().Descriptor().FullName())
	if a == nil {
		return fmt.Errorf("typed_config is missing, want %s", want)
	}
	if got := strings.TrimPrefix(a.GetTypeUrl(), Prefix); got != want {
		return fmt.Errorf("typed_config is %q, want %s", got, want)
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: recursionLimit}).Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("%s: %w", want, err)
	}
	return Check(m)
}

// Check refuses fields of m that are unknown, not honoured, or invalid.
func Check(m proto.Message) error { return check(m, nil) }

func check(m proto.Message, at *step) error {
	if err := walk(m.ProtoReflect(), at, 0); err != nil {
		return err
	}
	if v, ok := m.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			if at != nil {
				return fmt.Errorf("%s: invalid: %w", at, err)
			}
			return fmt.Errorf("invalid: %w", err)
		}
	}
	return nil
}

// A step is one part of the path to a field, kept on the stack so that only an
// error pays for text.
type step struct {
	up    *step
	field protoreflect.FieldDescriptor
	index int    // in a list; -1: none
	key   string // in a map
}

func (s *step) String() string {
	if s == nil {
		return ""
	}
	text := string(s.field.Name())
	switch {
	case s.field.IsMap():
		text += fmt.Sprintf("[%q]", s.key)
	case s.index >= 0:
		text += fmt.Sprintf("[%d]", s.index)
	}
	if s.up != nil {
		text = s.up.String() + "." + text
	}
	return text
}

func walk(m protoreflect.Message, at *step, depth int) error {
	if depth > recursionLimit {
		return fmt.Errorf("%s: nested more than %d deep", at, recursionLimit)
	}
	desc := m.Descriptor()
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s: a field that this version does not know; is the control plane newer?", where(at, desc))
	}
	known := honoured()[desc.FullName()]
	wellKnown := desc.ParentFile().Package() == "google.protobuf"
	if known == nil && !wellKnown {
		return fmt.Errorf("%s is not supported", where(at, desc))
	}
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		if err := d.CheckValid(); err != nil {
			return fmt.Errorf("%s: %w", where(at, desc), err)
		}
		return nil
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !wellKnown && !known[f.Name()] {
			err = fmt.Errorf("%s is not supported", &step{up: at, field: f, index: -1})
			return false
		}
		err = walkField(f, v, at, depth)
		return err == nil
	})
	return err
}

func walkField(f protoreflect.FieldDescriptor, v protoreflect.Value, at *step, depth int) (err error) {
	switch {
	case f.IsMap():
		if f.MapValue().Kind() != protoreflect.MessageKind {
			return nil
		}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			err = walk(v.Message(), &step{up: at, field: f, index: -1, key: k.String()}, depth+1)
			return err == nil
		})
		return err
	case f.Kind() != protoreflect.MessageKind && f.Kind() != protoreflect.GroupKind:
		return nil
	case f.IsList():
		for i := range v.List().Len() {
			if err := walk(v.List().Get(i).Message(), &step{up: at, field: f, index: i}, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(v.Message(), &step{up: at, field: f, index: -1}, depth+1)
}

func where(at *step, desc protoreflect.MessageDescriptor) string {
	if at == nil {
		return string(desc.FullName())
	}
	return at.String()
}

// honoured is the table of fields.go by message.
var honoured = sync.OnceValue(func() map[protoreflect.FullName]map[protoreflect.Name]bool {
	table := map[protoreflect.FullName]map[protoreflect.Name]bool{}
	for line := range strings.Lines(fields) {
		message, names, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(message, "#") {
			continue
		}
		set := map[protoreflect.Name]bool{}
		for name := range strings.FieldsSeq(names) {
			set[protoreflect.Name(strings.TrimPrefix(name, "~"))] = true
		}
		table[protoreflect.FullName(message)] = set
	}
	return table
})

// ErrMissing is for a field that must be there.
var ErrMissing = errors.New("is missing")
