// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

// Limits bound what is read. The zero value of a field means its default.
type Limits struct {
	// MaxHeadBytes bounds a request line or status line with its fields, and,
	// apart from that, the trailer section. Default 60 KiB.
	MaxHeadBytes int
	// MaxTargetBytes bounds the request target. Default MaxHeadBytes.
	MaxTargetBytes int
	// MaxFields bounds the number of field lines of a head, and of a trailer. Default 100.
	MaxFields int
	// AllowBareLF accepts a line of a head that ends with LF alone. Chunk lines
	// and trailers end with CRLF always. Default off: such a message is refused.
	AllowBareLF bool
}

// Defaults, where a Config leaves a field zero.
const (
	DefaultMaxHeadBytes = 60 << 10
	DefaultMaxFields    = 100
	DefaultDrainBytes   = 64 << 10
)

// What is not worth an option.
const (
	maxEmptyLines        = 4        // before a request line (RFC 9112 section 2.2)
	maxConnectionOptions = 32       // options in all Connection fields of a head
	maxChunkLine         = 256      // chunk-size, its extensions and CRLF
	maxChunkExtensions   = 16 << 10 // of all chunks of one body
	maxInformational     = 16       // 1xx responses before a final one
	minReadBuffer        = 4 << 10
	writeBuffer          = 16 << 10
)

func (l Limits) withDefaults() Limits {
	if l.MaxHeadBytes <= 0 {
		l.MaxHeadBytes = DefaultMaxHeadBytes
	}
	if l.MaxTargetBytes <= 0 {
		l.MaxTargetBytes = l.MaxHeadBytes
	}
	if l.MaxFields <= 0 {
		l.MaxFields = DefaultMaxFields
	}
	return l
}

// A ServerConfig says how requests are read.
type ServerConfig struct {
	Limits
	// AcceptHTTP10 accepts HTTP/1.0 requests; otherwise they are refused with 426
	// (Envoy: http_protocol_options.accept_http_10).
	AcceptHTTP10 bool
	// DrainBytes is how much of a request's body that nobody read Next reads away
	// to keep the connection. Default 64 KiB; negative: none.
	DrainBytes int
}

// A ClientConfig says how responses are read.
type ClientConfig struct {
	Limits
}
