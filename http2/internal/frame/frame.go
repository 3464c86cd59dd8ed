// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package frame takes HTTP/2 frames (RFC 9113 section 4) apart and builds them.
//
//	frame.go    kinds, flags, sizes; frames appended to a buffer
//	reader.go   frames out of a connection
package frame

import "encoding/binary"

// Preface is what a client sends first (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// A Kind is the type of a frame (RFC 9113 section 6).
type Kind uint8

// The kinds of frames.
const (
	Data         Kind = 0x0
	Headers      Kind = 0x1
	Priority     Kind = 0x2
	Reset        Kind = 0x3
	Settings     Kind = 0x4
	PushPromise  Kind = 0x5
	Ping         Kind = 0x6
	GoAway       Kind = 0x7
	WindowUpdate Kind = 0x8
	Continuation Kind = 0x9
)

// The flags of frames.
const (
	FlagEndStream  = 0x1
	FlagAck        = 0x1
	FlagEndHeaders = 0x4
	FlagPadded     = 0x8
	FlagPriority   = 0x20
)

// A Setting is the identifier of a parameter (RFC 9113 section 6.5.2, RFC 8441).
type Setting uint16

// The parameters.
const (
	SettingHeaderTableSize   Setting = 0x1
	SettingEnablePush        Setting = 0x2
	SettingMaxStreams        Setting = 0x3
	SettingInitialWindow     Setting = 0x4
	SettingMaxFrameSize      Setting = 0x5
	SettingMaxHeaderListSize Setting = 0x6
	SettingEnableConnect     Setting = 0x8
)

// Sizes of the specification.
const (
	HeadLen        = 9
	SettingLen     = 6
	PingLen        = 8
	DefaultWindow  = 65535
	MaxSize        = 16384 // what we accept and what we send, whatever the peer would take
	LargestMaxSize = 1<<24 - 1
	LargestWindow  = 1<<31 - 1
	LargestStream  = 1<<31 - 1
)

// A Head is the first nine bytes of a frame.
type Head struct {
	Length int
	Kind   Kind
	Flags  uint8
	Stream uint32
}

// Has says whether a flag is set.
func (h Head) Has(flag uint8) bool { return h.Flags&flag != 0 }

// Parse reads b, of HeadLen bytes. The reserved bit is ignored.
func Parse(b []byte) Head {
	_ = b[HeadLen-1]
	return Head{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Kind:   Kind(b[3]),
		Flags:  b[4],
		Stream: binary.BigEndian.Uint32(b[5:]) & LargestStream,
	}
}

// AppendHead appends a frame's head.
func AppendHead(b []byte, length int, kind Kind, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// Patch corrects the length of the frame that begins at b[0] and adds flags.
func Patch(b []byte, length int, flags uint8) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[4] |= flags
}

// AppendReset appends RST_STREAM.
func AppendReset(b []byte, stream uint32, code uint32) []byte {
	b = AppendHead(b, 4, Reset, 0, stream)
	return binary.BigEndian.AppendUint32(b, code)
}

// AppendWindowUpdate appends WINDOW_UPDATE by n.
func AppendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = AppendHead(b, 4, WindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendPing appends PING.
func AppendPing(b []byte, ack bool, data [PingLen]byte) []byte {
	var flags uint8
	if ack {
		flags = FlagAck
	}
	return append(AppendHead(b, PingLen, Ping, flags, 0), data[:]...)
}

// AppendGoAway appends GOAWAY.
func AppendGoAway(b []byte, last uint32, code uint32, debug string) []byte {
	b = AppendHead(b, 8+len(debug), GoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, debug...)
}

// AppendSetting appends one parameter of a SETTINGS frame.
func AppendSetting(b []byte, id Setting, value int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	return binary.BigEndian.AppendUint32(b, uint32(value))
}
