// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package emit holds the few words that every emitter of Envoy resources uses:
// packing, addresses, percentages, references to the control plane, and where a
// resource comes from.
//
//	emit.go        values
//	provenance.go  metadata that names the objects behind a resource
package emit

import (
	"math"
	"strings"

	typedstructv1 "github.com/cncf/xds/go/udpa/type/v1"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

const typePrefix = "type.googleapis.com/"

// Bytes marshals deterministically, so that what did not change has the same bytes.
func Bytes(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("control/envoy: " + err.Error()) // only invalid UTF-8, which front ends refuse
	}
	return b
}

// Any packs m.
func Any(m proto.Message) *anypb.Any { return Packed(m, Bytes(m)) }

// Packed is bytes as a message of m's type.
func Packed(m proto.Message, bytes []byte) *anypb.Any {
	return &anypb.Any{TypeUrl: typePrefix + string(m.ProtoReflect().Descriptor().FullName()), Value: bytes}
}

// TypedStruct carries a configuration whose proto is not ours to know.
func TypedStruct(typeName string, value map[string]any) *typedstructv1.TypedStruct {
	v, err := structpb.NewStruct(value)
	if err != nil {
		panic("control/envoy: " + err.Error()) // the values are written in this column
	}
	return &typedstructv1.TypedStruct{TypeUrl: typePrefix + typeName, Value: v}
}

// Texts is a struct of strings.
func Texts(m map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(m))}
	for k, v := range m {
		s.Fields[k] = structpb.NewStringValue(v)
	}
	return s
}

// ADS refers to the stream on which the reference itself came, waiting for it
// however long it takes.
func ADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// Address is a host with a port, or a socket written as unix:///path.
func Address(addr string, port int) *corev3.Address {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		return Pipe(path)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// Pipe is a Unix socket.
func Pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

// File is data that the proxy reads.
func File(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// Share writes a percentage in the coarsest unit that holds it.
func Share(percent float64) *typev3.FractionalPercent {
	percent = max(0, min(percent, 100))
	if percent == math.Trunc(percent) {
		return &typev3.FractionalPercent{Numerator: uint32(percent), Denominator: typev3.FractionalPercent_HUNDRED}
	}
	return &typev3.FractionalPercent{Numerator: uint32(math.Round(percent * 10000)), Denominator: typev3.FractionalPercent_MILLION}
}
