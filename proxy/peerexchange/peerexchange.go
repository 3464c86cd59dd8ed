// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package peerexchange speaks istio-peer-exchange: proxies that have agreed on it by ALPN tell each other who they
// are, ahead of what a TCP connection carries.
//
//	peerexchange.go  the preamble: written by Preamble, read by Parse
//	conn.go          Conn: a connection whose peer's preamble is taken out of what is read
//
// Each side writes one preamble before its first byte and waits for nobody. It is eight bytes, the number magic and the
// length of what follows, both big endian, and a google.protobuf.Any of a google.protobuf.Struct with the fields
// x-envoy-peer-metadata, a Struct, and x-envoy-peer-metadata-id (envoy.tcp.metadataexchange.config.MetadataExchange).
package peerexchange

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// ALPN is the protocol that stands for the exchange.
const ALPN = "istio-peer-exchange"

const (
	magic      = 0x3D230467
	headerSize = 8
	maxSize    = 64 << 10 // of what follows the header; proxies' own takes about half a KiB

	fieldMetadata = "x-envoy-peer-metadata"
	fieldID       = "x-envoy-peer-metadata-id"
)

// Preamble is what a proxy says of itself: its node's id, and metadata with Istio's keys.
func Preamble(id string, metadata *structpb.Struct) ([]byte, error) {
	fields := map[string]*structpb.Value{fieldMetadata: structpb.NewStructValue(metadata)}
	if id != "" {
		fields[fieldID] = structpb.NewStringValue(id)
	}
	var a anypb.Any
	opts := proto.MarshalOptions{Deterministic: true}
	if err := anypb.MarshalFrom(&a, &structpb.Struct{Fields: fields}, opts); err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, magic)
	out = binary.BigEndian.AppendUint32(out, uint32(proto.Size(&a)))
	return opts.MarshalAppend(out, &a)
}

// Parse reads what follows the eight bytes. It is the peer's own claim.
func Parse(b []byte) (id string, metadata *structpb.Struct, err error) {
	var a anypb.Any
	var s structpb.Struct
	if proto.Unmarshal(b, &a) != nil || a.UnmarshalTo(&s) != nil {
		return "", nil, errors.New("the preamble of istio-peer-exchange holds no google.protobuf.Struct")
	}
	return s.GetFields()[fieldID].GetStringValue(), s.GetFields()[fieldMetadata].GetStructValue(), nil
}
