// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"fmt"
)

// An ErrCode says why a stream or a connection ended (RFC 9113 section 7).
type ErrCode uint32

// The codes of RFC 9113 section 7.
const (
	CodeNo                 ErrCode = 0x0
	CodeProtocol           ErrCode = 0x1
	CodeInternal           ErrCode = 0x2
	CodeFlowControl        ErrCode = 0x3
	CodeSettingsTimeout    ErrCode = 0x4
	CodeStreamClosed       ErrCode = 0x5
	CodeFrameSize          ErrCode = 0x6
	CodeRefusedStream      ErrCode = 0x7
	CodeCancel             ErrCode = 0x8
	CodeCompression        ErrCode = 0x9
	CodeConnect            ErrCode = 0xa
	CodeEnhanceYourCalm    ErrCode = 0xb
	CodeInadequateSecurity ErrCode = 0xc
	CodeHTTP11Required     ErrCode = 0xd
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
	"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String returns the name that RFC 9113 gives the code.
func (c ErrCode) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code 0x%x", uint32(c))
}

// A StreamError ended one stream; its connection lives on, unless Cause is a
// ConnError.
type StreamError struct {
	Stream uint32 // 0 if the stream had no number yet
	Code   ErrCode
	Remote bool // the peer said so, not we
	// Unprocessed is true if the peer certainly did not act on the request: it
	// refused the stream, announced in GOAWAY that it ignored it, or never got it.
	Unprocessed bool
	Reason      string // for the operator; "" if the code says it all
	Cause       error  // the ConnError that took the stream with it, or nil
}

// Error implements error.
func (e StreamError) Error() string {
	side := "we reset"
	if e.Remote {
		side = "peer reset"
	}
	s := fmt.Sprintf("http2: %s stream %d: %v", side, e.Stream, e.Code)
	if e.Cause != nil {
		s = fmt.Sprintf("http2: stream %d ended with its connection", e.Stream)
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e StreamError) Unwrap() error { return e.Cause }

// A ConnError ended, or is about to end, a connection and all its streams.
type ConnError struct {
	Code       ErrCode
	Remote     bool   // the peer said so (GOAWAY, or it closed the socket), not we
	LastStream uint32 // the highest stream that was or may have been acted on
	Limit      string // the field of Limits that was exceeded, "" if none
	Reason     string
	Cause      error // of the socket, or nil
}

// Error implements error.
func (e ConnError) Error() string {
	side := "we closed the connection"
	if e.Remote {
		side = "peer closed the connection"
	}
	s := fmt.Sprintf("http2: %s: %v", side, e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Limit != "" {
		s += " (limit " + e.Limit + ")"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e ConnError) Unwrap() error { return e.Cause }

// Unprocessed says whether err proves that the peer did not act on the request,
// so that it may be sent again elsewhere whatever its method
// (RFC 9113 section 8.7).
func Unprocessed(err error) bool {
	var se StreamError
	return errors.As(err, &se) && se.Unprocessed
}

// ErrNoStream says that a connection takes no more streams for now: as many as
// the peer (or ClientConfig) allows are open, or the connection is ending.
var ErrNoStream = errors.New("http2: connection takes no more streams; use another connection or wait")

// errMisuse says that a method was called in the wrong state.
func errMisuse(what string) error { return errors.New("http2: " + what) }
