// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"fmt"
	"io"
)

// A Kind says what sort of fault an Error is.
type Kind uint8

const (
	// Malformed: a request breaks the grammar, or could be read in two ways.
	Malformed Kind = iota + 1
	// TooLarge: a limit on a head, a trailer or a chunk line was passed.
	TooLarge
	// Unsupported: well formed, but not served: a version, a transfer coding, an expectation.
	Unsupported
	// Protocol: a response that the upstream sent breaks the grammar, or could be read in two ways.
	Protocol
	// Truncated: the connection ended inside a message; errors.Is(err, io.ErrUnexpectedEOF).
	Truncated
	// Misuse: what the caller wants written is no valid message.
	Misuse
)

var kindNames = [...]string{
	Malformed: "malformed", TooLarge: "too large", Unsupported: "unsupported",
	Protocol: "protocol", Truncated: "truncated", Misuse: "misuse",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// An Error is a message that is refused; the connection ends after it.
type Error struct {
	// Status is what to answer the peer that is to blame: 400, 414, 417, 426, 431,
	// 501 or 505 for a request, 502 for an upstream's response, 500 for Misuse.
	Status int
	Kind   Kind
	Msg    string // what is wrong, without the offending bytes
}

// Error returns the message.
func (e *Error) Error() string { return "http1: " + e.Msg }

// Unwrap lets errors.Is find io.ErrUnexpectedEOF in a truncated message.
func (e *Error) Unwrap() error {
	if e.Kind == Truncated {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// What can be wrong with a message whoever sent it. The status is that for a
// request; blame turns it into an upstream's fault.
var (
	errTruncated  = &Error{400, Truncated, "connection ended inside the message"}
	errEmptyLines = &Error{400, Malformed, "too many empty lines before the message"}
	errHeadSize   = &Error{431, TooLarge, "head is larger than allowed"}
	errFieldCount = &Error{431, TooLarge, "more field lines than allowed"}
	errTargetSize = &Error{414, TooLarge, "request target is longer than allowed"}
)

func malformed(msg string) *Error { return &Error{400, Malformed, msg} }

func misuse(format string, args ...any) *Error {
	return &Error{500, Misuse, fmt.Sprintf(format, args...)}
}

// blame makes the upstream answerable for e.
func (e *Error) blame() *Error {
	if e.Kind == Truncated {
		return &Error{502, Truncated, "upstream " + e.Msg}
	}
	return &Error{502, Protocol, "upstream sent a bad response: " + e.Msg}
}
