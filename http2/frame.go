// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import "encoding/binary"

// Preface is what a client sends first (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// A frameKind is the type of a frame (RFC 9113 section 6).
type frameKind uint8

const (
	frameData         frameKind = 0x0
	frameHeaders      frameKind = 0x1
	framePriority     frameKind = 0x2
	frameReset        frameKind = 0x3
	frameSettings     frameKind = 0x4
	framePushPromise  frameKind = 0x5
	framePing         frameKind = 0x6
	frameGoAway       frameKind = 0x7
	frameWindowUpdate frameKind = 0x8
	frameContinuation frameKind = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// A setting is the identifier of a parameter (RFC 9113 section 6.5.2, RFC 8441).
type setting uint16

const (
	settingHeaderTableSize   setting = 0x1
	settingEnablePush        setting = 0x2
	settingMaxStreams        setting = 0x3
	settingInitialWindow     setting = 0x4
	settingMaxFrameSize      setting = 0x5
	settingMaxHeaderListSize setting = 0x6
	settingEnableConnect     setting = 0x8
)

// Sizes of the specification.
const (
	frameHeadLen     = 9
	settingLen       = 6
	pingLen          = 8
	defaultWindow    = 65535
	defaultTableSize = 4096
	defaultMaxFrame  = 16384 // what we accept and what we send, whatever the peer would take
	largestMaxFrame  = 1<<24 - 1
	largestWindow    = 1<<31 - 1
	largestStream    = 1<<31 - 1
)

// A frameHead is the first nine bytes of a frame.
type frameHead struct {
	length int
	kind   frameKind
	flags  uint8
	stream uint32
}

func (h frameHead) has(flag uint8) bool { return h.flags&flag != 0 }

// parseFrameHead reads b, of frameHeadLen bytes. The reserved bit is ignored.
func parseFrameHead(b []byte) frameHead {
	_ = b[frameHeadLen-1]
	return frameHead{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   frameKind(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & largestStream,
	}
}

func appendFrameHead(b []byte, length int, kind frameKind, flags uint8, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// patchFrame corrects the length of the frame that begins at b[0] and adds flags.
func patchFrame(b []byte, length int, flags uint8) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[4] |= flags
}

func appendReset(b []byte, stream uint32, code ErrCode) []byte {
	b = appendFrameHead(b, 4, frameReset, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = appendFrameHead(b, 4, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendPing(b []byte, ack bool, data [pingLen]byte) []byte {
	var flags uint8
	if ack {
		flags = flagAck
	}
	return append(appendFrameHead(b, pingLen, framePing, flags, 0), data[:]...)
}

func appendGoAway(b []byte, last uint32, code ErrCode, debug string) []byte {
	b = appendFrameHead(b, 8+len(debug), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

func appendSetting(b []byte, id setting, value int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	return binary.BigEndian.AppendUint32(b, uint32(value))
}
