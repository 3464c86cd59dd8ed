// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// redactedText stands where a secret was, as in Envoy.
const redactedText = "[redacted]"

// redacted returns a copy of a resource without private keys and passwords,
// however deep they are. What cannot be decoded is not shown at all.
func redacted(a *anypb.Any) *anypb.Any {
	if a == nil {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err == nil {
		redact(m)
		_, err = protojson.Marshal(m)
	}
	if err != nil {
		// One resource that cannot be written as JSON, because of an unknown type
		// or a hostile number, must not spoil the whole page.
		m = wrapperspb.String("a " + strings.ToValidUTF8(a.GetTypeUrl(), "?") + " that cannot be shown: " + strings.ToValidUTF8(err.Error(), "?"))
	}
	out, err := anypb.New(m)
	if err != nil {
		return nil
	}
	return out
}

func redact(m proto.Message) {
	hide := func(d *corev3.DataSource) {
		switch d.GetSpecifier().(type) {
		case *corev3.DataSource_InlineBytes:
			d.Specifier = &corev3.DataSource_InlineBytes{InlineBytes: []byte(redactedText)}
		case *corev3.DataSource_InlineString:
			d.Specifier = &corev3.DataSource_InlineString{InlineString: redactedText}
		}
	}
	switch m := m.(type) {
	case *anypb.Any:
		shown := redacted(m)
		m.TypeUrl, m.Value = shown.GetTypeUrl(), shown.GetValue()
		return
	case *tlsv3.TlsCertificate:
		hide(m.GetPrivateKey())
		hide(m.GetPassword())
		hide(m.GetPkcs12())
	case *tlsv3.TlsSessionTicketKeys:
		for _, k := range m.GetKeys() {
			hide(k)
		}
	case *tlsv3.GenericSecret:
		hide(m.GetSecret())
		for _, k := range m.GetSecrets() {
			hide(k)
		}
	}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Kind() == protoreflect.MessageKind:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				redact(v.Message().Interface())
				return true
			})
		case f.IsMap() || f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message().Interface())
			}
		default:
			redact(v.Message().Interface())
		}
		return true
	})
}
