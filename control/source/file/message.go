// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/source"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostProblems is how many problems of one document are listed.
const mostProblems = 20

// decoder turns a tree into what it stands for and collects all that is wrong with it.
type decoder struct {
	file     string
	lines    []source.FieldLine
	problems []source.Problem
}

func (d *decoder) fail(line int, path, format string, args ...any) {
	if len(d.problems) > mostProblems {
		return
	}
	p := source.Problem{Place: source.Place{File: d.file, Line: line}, Field: path, Severity: source.Error}
	if p.Message = fmt.Sprintf(format, args...); len(d.problems) == mostProblems {
		p.Field, p.Message = "", "there are more problems after this one"
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) at(path string, line int) {
	d.lines = append(d.lines, source.FieldLine{Field: path, Line: line})
}

// message fills m with the mapping n. Fields that m does not have, values of another type and
// oneofs set twice are problems.
func (d *decoder) message(n *node, m proto.Message, path string) {
	before := len(d.problems)
	var b strings.Builder
	d.object(&b, n, m.ProtoReflect().Descriptor(), path)
	if len(d.problems) > before {
		salvageFields(n, m, path)
		return
	}
	if err := protojson.Unmarshal([]byte(b.String()), m); err != nil {
		d.fail(n.line, path, "%s", strings.TrimSpace(strings.TrimPrefix(err.Error(), "proto:")))
	}
}

// salvageFields reads into m those fields of n in which nothing is wrong.
func salvageFields(n *node, m proto.Message, path string) {
	for _, f := range n.fields {
		var d decoder
		var b strings.Builder
		d.object(&b, &node{kind: mapping, line: f.line, fields: []field{f}}, m.ProtoReflect().Descriptor(), path)
		part := m.ProtoReflect().New().Interface()
		if len(d.problems) == 0 && protojson.Unmarshal([]byte(b.String()), part) == nil {
			proto.Merge(m, part)
		}
	}
}

// object writes a mapping as the JSON of a message.
func (d *decoder) object(b *strings.Builder, n *node, md protoreflect.MessageDescriptor, path string) {
	if n.kind != mapping {
		d.fail(n.line, path, "%s stands where a mapping is wanted", n.kind)
		return
	}
	b.WriteByte('{')
	defer b.WriteByte('}')
	first := true
	chosen := map[protoreflect.Name]string{}
	seen := map[string]bool{}
	for _, f := range n.fields {
		fd := md.Fields().ByJSONName(f.name)
		if fd == nil {
			fd = md.Fields().ByName(protoreflect.Name(f.name))
		}
		if fd == nil {
			d.fail(f.line, join(path, f.name), "there is no such field%s", suggest(f.name, md))
			continue
		}
		name := fd.JSONName()
		at := join(path, name)
		d.at(at, f.line)
		if seen[name] {
			d.fail(f.line, at, "the field is there twice, under two spellings")
			continue
		}
		seen[name] = true
		if f.value.kind == null {
			continue
		}
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if other, taken := chosen[o.Name()]; taken {
				d.fail(f.line, at, "%s is set as well; only one of the two may be", other)
				continue
			}
			chosen[o.Name()] = name
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		quote(b, name)
		b.WriteByte(':')
		d.fieldValue(b, f.value, fd, at)
	}
}

func (d *decoder) fieldValue(b *strings.Builder, n *node, fd protoreflect.FieldDescriptor, path string) {
	switch {
	case fd.IsMap():
		d.dictionary(b, n, fd, path)
	case fd.IsList():
		if n.kind != list {
			d.fail(n.line, path, "%s stands where a list is wanted", n.kind)
			b.WriteString("[]")
			return
		}
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			at := path + "[" + strconv.Itoa(i) + "]"
			d.at(at, item.line)
			d.single(b, item, fd, at)
		}
		b.WriteByte(']')
	default:
		d.single(b, n, fd, path)
	}
}

func (d *decoder) dictionary(b *strings.Builder, n *node, fd protoreflect.FieldDescriptor, path string) {
	b.WriteByte('{')
	defer b.WriteByte('}')
	if n.kind != mapping {
		d.fail(n.line, path, "%s stands where a mapping is wanted", n.kind)
		return
	}
	for i, f := range n.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		at := path + "[" + f.name + "]"
		d.at(at, f.line)
		quote(b, f.name)
		b.WriteByte(':')
		if k := fd.MapKey().Kind(); k != protoreflect.StringKind {
			if _, err := strconv.ParseUint(f.name, 10, 32); err != nil {
				d.fail(f.line, at, "%q is no number", clip(f.name))
			}
		}
		d.single(b, f.value, fd.MapValue(), at)
	}
}

// single writes one value that is neither list nor map.
func (d *decoder) single(b *strings.Builder, n *node, fd protoreflect.FieldDescriptor, path string) {
	if n.kind == null && fd.Message() == nil {
		d.fail(n.line, path, "there is no value")
		b.WriteString("null")
		return
	}
	want, hint := "", ""
	switch fd.Kind() {
	case protoreflect.MessageKind:
		d.known(b, n, fd.Message(), path)
		return
	case protoreflect.EnumKind:
		d.enum(b, n, fd.Enum(), path)
		return
	case protoreflect.StringKind:
		if n.kind == str {
			quote(b, n.text)
			return
		}
		want, hint = "a string", " (put it in quotes)"
	case protoreflect.BytesKind:
		if n.kind == str {
			if _, err := base64.StdEncoding.DecodeString(n.text); err != nil {
				d.fail(n.line, path, "the value is not base64")
			}
			quote(b, n.text)
			return
		}
		want = "base64"
	case protoreflect.BoolKind:
		if n.kind == boolean {
			b.WriteString(n.text)
			return
		}
		want = "true or false"
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		if n.kind == integer || n.kind == float {
			b.WriteString(n.text)
			return
		}
		want = "a number"
	default:
		if n.kind == integer {
			b.WriteString(n.text)
			d.checkRange(n, fd.Kind(), path)
			return
		}
		want = "a whole number"
	}
	got := n.kind.String()
	if n.text != "" {
		got = clip(n.text)
	}
	d.fail(n.line, path, "%s stands where %s is wanted%s", got, want, hint)
	b.WriteString("null")
}

func (d *decoder) checkRange(n *node, k protoreflect.Kind, path string) {
	var err error
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		_, err = strconv.ParseInt(n.text, 10, 32)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		_, err = strconv.ParseUint(n.text, 10, 32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		_, err = strconv.ParseUint(n.text, 10, 64)
	}
	if err != nil {
		d.fail(n.line, path, "%s is out of range", n.text)
	}
}

func (d *decoder) enum(b *strings.Builder, n *node, ed protoreflect.EnumDescriptor, path string) {
	if n.kind == str {
		if ed.Values().ByName(protoreflect.Name(n.text)) != nil {
			quote(b, n.text)
			return
		}
		var names []string
		for i := range ed.Values().Len() {
			names = append(names, string(ed.Values().Get(i).Name()))
		}
		d.fail(n.line, path, "%q is none of %s", clip(n.text), strings.Join(names, ", "))
	} else {
		d.fail(n.line, path, "%s stands where a name is wanted", n.kind)
	}
	b.WriteString("null")
}

// known writes a message. Durations may be written as Go writes them, which is more than
// protobuf's JSON allows; wrappers are their value.
func (d *decoder) known(b *strings.Builder, n *node, md protoreflect.MessageDescriptor, path string) {
	switch md.FullName() {
	case "google.protobuf.Duration":
		d.duration(b, n, path)
	case "google.protobuf.DoubleValue", "google.protobuf.UInt32Value", "google.protobuf.BoolValue",
		"google.protobuf.Int32Value", "google.protobuf.Int64Value", "google.protobuf.UInt64Value",
		"google.protobuf.FloatValue", "google.protobuf.StringValue":
		d.single(b, n, md.Fields().ByName("value"), path)
	default:
		// An empty mapping and a field without a value are the same in YAML, not in protobuf.
		if n.kind == null {
			b.WriteString("{}")
			return
		}
		d.object(b, n, md, path)
	}
}

func (d *decoder) duration(b *strings.Builder, n *node, path string) {
	if n.kind != str {
		d.fail(n.line, path, "%s stands where a duration such as 1.5s, 100ms or 1h is wanted", n.kind)
		b.WriteString("null")
		return
	}
	v, err := time.ParseDuration(n.text)
	if err != nil {
		d.fail(n.line, path, "%q is no duration such as 1.5s, 100ms or 1h", clip(n.text))
		b.WriteString("null")
		return
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	fmt.Fprintf(b, "\"%s%d.%09ds\"", sign, v/time.Second, v%time.Second)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func quote(b *strings.Builder, s string) {
	text, _ := json.Marshal(s) // a string cannot fail
	b.Write(text)
}

// suggest names the field that was probably meant.
func suggest(name string, md protoreflect.MessageDescriptor) string {
	best, at := 3, ""
	for i := range md.Fields().Len() {
		f := md.Fields().Get(i).JSONName()
		if n := distance(strings.ToLower(name), strings.ToLower(f)); n < best {
			best, at = n, f
		}
	}
	if at == "" {
		return ""
	}
	return "; is " + at + " meant?"
}

// distance counts the single-letter changes between two short words.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
