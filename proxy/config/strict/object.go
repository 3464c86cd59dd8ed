// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"slices"
	"time"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// TypeOf returns what a configures: its own type, or for a TypedStruct the type
// that it wraps, without the prefix; and the struct then.
func TypeOf(a *anypb.Any) (name string, s *structpb.Struct, err error) {
	var wrapped interface {
		GetTypeUrl() string
		GetValue() *structpb.Struct
	}
	switch a.GetTypeUrl() {
	case Prefix + "xds.type.v3.TypedStruct":
		m := &xdsv3.TypedStruct{}
		err, wrapped = Unmarshal(a, m), m
	case Prefix + "udpa.type.v1.TypedStruct":
		m := &udpav1.TypedStruct{}
		err, wrapped = Unmarshal(a, m), m
	default:
		return trim(a.GetTypeUrl()), nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	if s = wrapped.GetValue(); s == nil {
		s = &structpb.Struct{}
	}
	return trim(wrapped.GetTypeUrl()), s, nil
}

// trim removes everything up to the last slash, as type URLs are compared.
func trim(url string) string {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '/' {
			return url[i+1:]
		}
	}
	return url
}

// An Object reads a Struct. Keys are asked for in snake_case; camelCase is
// understood, too, as in proto3's JSON. The first error is kept; Done returns
// it, or names a key that nobody has asked for.
type Object struct {
	fields map[string]*structpb.Value
	asked  map[string]bool
	err    error
}

// NewObject reads s, which may be nil.
func NewObject(s *structpb.Struct) *Object {
	return &Object{fields: s.GetFields(), asked: map[string]bool{}}
}

// Done ends reading.
func (o *Object) Done() error {
	if o.err != nil {
		return o.err
	}
	var unknown []string
	for k := range o.fields {
		if !o.asked[k] {
			unknown = append(unknown, k)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("field %q is not supported", unknown[0])
	}
	return nil
}

func (o *Object) get(key string) (*structpb.Value, bool) {
	for _, k := range [...]string{key, camel(key)} {
		o.asked[k] = true
		if v, ok := o.fields[k]; ok {
			if _, null := v.GetKind().(*structpb.Value_NullValue); !null {
				return v, true
			}
		}
	}
	return nil, false
}

func camel(key string) string {
	out := make([]byte, 0, len(key))
	up := false
	for i := range len(key) {
		switch c := key[i]; {
		case c == '_':
			up = true
		case up && 'a' <= c && c <= 'z':
			out, up = append(out, c-32), false
		default:
			out, up = append(out, c), false
		}
	}
	return string(out)
}

func (o *Object) fail(key, want string) {
	if o.err == nil {
		o.err = fmt.Errorf("field %q: want %s", key, want)
	}
}

// String returns a string, "" if it is missing.
func (o *Object) String(key string) string {
	v, ok := o.get(key)
	if !ok {
		return ""
	}
	s, ok := v.GetKind().(*structpb.Value_StringValue)
	if !ok {
		o.fail(key, "a string")
		return ""
	}
	return s.StringValue
}

// Bool returns a bool, or what is meant if it is missing.
func (o *Object) Bool(key string, missing bool) bool {
	v, ok := o.get(key)
	if !ok {
		return missing
	}
	b, ok := v.GetKind().(*structpb.Value_BoolValue)
	if !ok {
		o.fail(key, "true or false")
		return missing
	}
	return b.BoolValue
}

// Duration returns a duration such as "5s", or what is meant if it is missing.
func (o *Object) Duration(key string, missing time.Duration) time.Duration {
	v, ok := o.get(key)
	if !ok {
		return missing
	}
	var d durationpb.Duration
	raw, err := protojson.Marshal(v)
	if err == nil {
		err = protojson.Unmarshal(raw, &d)
	}
	if err != nil {
		o.fail(key, `a duration such as "5s"`)
		return missing
	}
	return d.AsDuration()
}

// Object returns a nested object and whether it is there.
func (o *Object) Object(key string) (*Object, bool) {
	v, ok := o.get(key)
	if !ok {
		return NewObject(nil), false
	}
	s, ok := v.GetKind().(*structpb.Value_StructValue)
	if !ok {
		o.fail(key, "an object")
		return NewObject(nil), false
	}
	return NewObject(s.StructValue), true
}

// Each calls read for the elements of a list of objects.
func (o *Object) Each(key string, read func(*Object) error) {
	v, ok := o.get(key)
	if !ok {
		return
	}
	for i, e := range v.GetListValue().GetValues() {
		s, ok := e.GetKind().(*structpb.Value_StructValue)
		if !ok {
			o.fail(key, "a list of objects")
			return
		}
		element := NewObject(s.StructValue)
		err := read(element)
		if err == nil {
			err = element.Done()
		}
		if err != nil && o.err == nil {
			o.err = fmt.Errorf("%s[%d]: %w", key, i, err)
		}
	}
	if _, ok := v.GetKind().(*structpb.Value_ListValue); !ok {
		o.fail(key, "a list")
	}
}

// Strings returns a list of strings.
func (o *Object) Strings(key string) []string {
	v, ok := o.get(key)
	if !ok {
		return nil
	}
	if _, ok := v.GetKind().(*structpb.Value_ListValue); !ok {
		o.fail(key, "a list")
	}
	var out []string
	for _, e := range v.GetListValue().GetValues() {
		s, ok := e.GetKind().(*structpb.Value_StringValue)
		if !ok {
			o.fail(key, "a list of strings")
			return nil
		}
		out = append(out, s.StringValue)
	}
	return out
}

// Map returns an object of strings.
func (o *Object) Map(key string) map[string]string {
	v, ok := o.get(key)
	if !ok {
		return nil
	}
	out := map[string]string{}
	for k, e := range v.GetStructValue().GetFields() {
		s, ok := e.GetKind().(*structpb.Value_StringValue)
		if !ok {
			o.fail(key, "strings")
			return nil
		}
		out[k] = s.StringValue
	}
	return out
}
