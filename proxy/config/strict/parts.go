// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// UnmarshalBut reads a into m as Unmarshal does, but for the messages of its repeated field, which stay bytes for Part: of
// many that came before, only those that differ need to be read again. The parts share memory with a.
func UnmarshalBut(a *anypb.Any, m proto.Message, field protoreflect.Name) (parts [][]byte, err error) {
	fd := m.ProtoReflect().Descriptor().Fields().ByName(field)
	rest := make([]byte, 0, 256)
	for b := a.GetValue(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().FullName(), protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return nil, fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().FullName(), protowire.ParseError(size))
		}
		if num == fd.Number() && typ == protowire.BytesType {
			part, _ := protowire.ConsumeBytes(b[n:])
			parts = append(parts, part)
		} else {
			rest = append(rest, b[:n+size]...)
		}
		b = b[n+size:]
	}
	return parts, Unmarshal(&anypb.Any{TypeUrl: a.GetTypeUrl(), Value: rest}, m)
}

// Part reads the i-th of the parts that UnmarshalBut left of the field of a message like whole.
func Part(b []byte, m, whole proto.Message, field protoreflect.Name, i int) error {
	at := &step{field: whole.ProtoReflect().Descriptor().Fields().ByName(field), index: i}
	if err := (proto.UnmarshalOptions{RecursionLimit: recursionLimit - 1}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return check(m, at)
}
