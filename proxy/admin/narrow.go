// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// A badQuery is a query that cannot be answered, with the status that says so.
type badQuery struct {
	status int
	text   string
}

func (e badQuery) Error() string { return e.text }

// narrow leaves of a dump what Envoy's parameters ask for: resource, the name of a list in one of its parts, whose
// elements alone are wanted; name_regex, what their names must be like; mask, the only fields wanted of each part or element.
func narrow(dump proto.Message, q url.Values) (proto.Message, error) {
	d, ok := dump.(*adminv3.ConfigDump)
	if !ok || !q.Has("resource") && !q.Has("name_regex") && !q.Has("mask") {
		return dump, nil
	}
	names, err := regexp.Compile("^(?:" + q.Get("name_regex") + ")$")
	if err != nil {
		return nil, badQuery{http.StatusBadRequest, "name_regex: " + err.Error()}
	}
	parts := make([]proto.Message, len(d.Configs))
	for i, c := range d.Configs {
		if parts[i], err = c.UnmarshalNew(); err != nil {
			return nil, err
		}
	}
	if q.Get("name_regex") != "" {
		for _, p := range parts {
			nameOnly(p.ProtoReflect(), names)
		}
	}
	if resource := q.Get("resource"); resource != "" {
		if parts, err = elements(parts, protoreflect.Name(resource)); err != nil {
			return nil, err
		}
	}
	if paths := q.Get("mask"); paths != "" {
		if parts, err = masked(parts, paths, q.Get("resource") != ""); err != nil {
			return nil, err
		}
	}
	out := &adminv3.ConfigDump{}
	for _, p := range parts {
		a, err := anypb.New(p)
		if err != nil {
			return nil, err
		}
		out.Configs = append(out.Configs, a)
	}
	return out, nil
}

// elements are those of the lists with that name.
func elements(parts []proto.Message, list protoreflect.Name) (all []proto.Message, err error) {
	found := false
	for _, p := range parts {
		m := p.ProtoReflect()
		f := m.Descriptor().Fields().ByName(list)
		if f == nil {
			continue
		}
		if !f.IsList() || f.Message() == nil {
			return nil, badQuery{http.StatusBadRequest, fmt.Sprintf("%s is not a repeated field. Use ?mask=%s to get only this field", list, list)}
		}
		found = true
		for i := range m.Get(f).List().Len() {
			all = append(all, m.Get(f).List().Get(i).Message().Interface())
		}
	}
	if !found {
		return nil, badQuery{http.StatusNotFound, string(list) + " not found in config dump"}
	}
	return all, nil
}

// nameOnly removes from the lists of m what is called otherwise.
func nameOnly(m protoreflect.Message, names *regexp.Regexp) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !f.IsList() || f.Message() == nil {
			continue
		}
		list, kept := m.Mutable(f).List(), 0
		for j := range list.Len() {
			if names.MatchString(nameOf(list.Get(j).Message())) {
				list.Set(kept, list.Get(j))
				kept++
			}
		}
		list.Truncate(kept)
	}
}

// nameOf is an element's own name, or that of the resource it holds.
func nameOf(m protoreflect.Message) string {
	fields := m.Descriptor().Fields()
	for _, n := range []protoreflect.Name{"name", "cluster_name"} {
		if f := fields.ByName(n); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() && m.Get(f).String() != "" {
			return m.Get(f).String()
		}
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.IsList() || !m.Has(f) {
			continue
		}
		if a := anyIn(m, f); a != nil {
			if held, err := a.UnmarshalNew(); err == nil {
				return nameOf(held.ProtoReflect())
			}
		}
	}
	return ""
}

// anyIn is what the field f of m holds, if that is an Any.
func anyIn(m protoreflect.Message, f protoreflect.FieldDescriptor) *anypb.Any {
	if f.Message() == nil || f.IsList() || f.IsMap() {
		return nil
	}
	a, _ := m.Get(f).Message().Interface().(*anypb.Any)
	return a
}

// A mask is a tree of the fields that are wanted; what a nil one stands for is wanted whole.
type mask map[string]mask

func parseMask(paths string) mask {
	top := mask{}
	for path := range strings.SplitSeq(paths, ",") {
		top.add(strings.Split(path, "."))
	}
	return top
}

func (k mask) add(path []string) {
	below, known := k[path[0]]
	switch {
	case len(path) == 1:
		k[path[0]] = nil
	case known && below == nil: // a shorter path asks for all of it
	default:
		if !known {
			below = mask{}
			k[path[0]] = below
		}
		below.add(path[1:])
	}
}

// masked leaves of each part the fields of the mask. Parts of different types are left out where the mask does not fit;
// with all, it must fit every one.
func masked(parts []proto.Message, paths string, all bool) (out []proto.Message, err error) {
	fields := parseMask(paths)
	for _, p := range parts {
		err := fields.trim(p.ProtoReflect())
		switch {
		case err == nil:
			out = append(out, p)
		case all:
			return nil, badQuery{http.StatusBadRequest, fmt.Sprintf("FieldMask %s could not be successfully used: %v", paths, err)}
		}
	}
	if len(out) == 0 && len(parts) > 0 {
		return nil, badQuery{http.StatusBadRequest, fmt.Sprintf("FieldMask %s could not be successfully applied to any configs.", paths)}
	}
	return out, nil
}

func (k mask) trim(m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for name, below := range k {
		f := fields.ByName(protoreflect.Name(name))
		if f == nil {
			return fmt.Errorf("%s has no field %q", m.Descriptor().FullName(), name)
		}
		if len(below) > 0 && (f.IsList() || f.IsMap() || f.Message() == nil) {
			return fmt.Errorf("%s cannot be masked further", f.FullName())
		}
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		below, wanted := k[string(f.Name())]
		switch {
		case !m.Has(f):
		case !wanted:
			m.Clear(f)
		case len(below) > 0:
			if err := below.within(m, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// within trims the message that the field f of m holds, in an Any or not.
func (k mask) within(m protoreflect.Message, f protoreflect.FieldDescriptor) error {
	a := anyIn(m, f)
	if a == nil {
		return k.trim(m.Mutable(f).Message())
	}
	held, err := a.UnmarshalNew()
	if err == nil {
		err = k.trim(held.ProtoReflect())
	}
	if err != nil {
		return err
	}
	return a.MarshalFrom(held)
}
