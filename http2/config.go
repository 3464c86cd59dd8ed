// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/http2/internal/frame"
)

// Preface is what a client sends first (RFC 9113 section 3.4), for those who sniff.
const Preface = frame.Preface

// A Config holds what both ends can tune. Sizes are bytes.
type Config struct {
	// StreamWindow is what a peer may send on one stream before we have read
	// any of it (SETTINGS_INITIAL_WINDOW_SIZE).
	StreamWindow int
	// MaxStreamWindow is how far a stream's window grows while its reader keeps up.
	MaxStreamWindow int
	// ConnWindow is what a peer may send on all streams together before we
	// have read any of it: the bound of a connection's receive memory.
	ConnWindow int
	// WriteTimeout bounds how long the socket may take nothing of what we
	// write; the connection is closed then. 0 is no bound.
	WriteTimeout time.Duration
	// KeepAlive is how long a connection may be silent before we PING it;
	// 0 is never. KeepAliveTimeout is how long the answer may take; then the
	// connection is closed.
	KeepAlive, KeepAliveTimeout time.Duration
	// Linger is how long a closing connection waits for the peer to read our
	// last words and hang up.
	Linger time.Duration
	Limits Limits
	// Counters, if not nil, counts what went wrong; it may be shared by
	// many connections.
	Counters *Counters
}

// A ServerConfig configures a Server.
type ServerConfig struct {
	Config
	// MaxStreams is how many requests may be in work at once
	// (SETTINGS_MAX_CONCURRENT_STREAMS); more are refused with REFUSED_STREAM.
	// A request that its client has reset counts until its handler has returned.
	MaxStreams int
	// ExtendedConnect allows requests with :protocol (RFC 8441).
	ExtendedConnect bool
	// PrefaceTimeout bounds the wait for the client's preface.
	PrefaceTimeout time.Duration
	// DrainPing is how long Drain waits for the client to have seen the first
	// GOAWAY, before the second one names the last stream.
	DrainPing time.Duration
}

// A ClientConfig configures a ClientConn.
type ClientConfig struct {
	Config
	// MaxStreams bounds the streams at once, below what the peer allows.
	MaxStreams int
	// Changed, if not nil, is called when Available may have changed for
	// another reason than streams of ours: the peer's settings, GOAWAY, the
	// end of the connection. It must not block.
	Changed func()
}

// Limits bound what a peer may do to a connection. What is counted is counted in
// windows of Window; "work" is header blocks and frames with data, both ways.
// Whoever exceeds one gets GOAWAY ENHANCE_YOUR_CALM, unless said otherwise.
type Limits struct {
	// HeaderBytes bounds a decoded header list, 32 bytes for each field on top
	// (RFC 9113 section 6.5.2); HeaderFields its fields, cookie crumbs counted
	// each. A request beyond them is answered 431, a response reset.
	HeaderBytes, HeaderFields int
	// BlockBytes and BlockFrames bound one header block as it is on the wire:
	// HEADERS with its CONTINUATIONs. They are raised to what HeaderBytes needs.
	BlockBytes, BlockFrames int
	// Window is the time that the counts below are for.
	Window time.Duration
	// Resets: streams that the client resets within 100 ms and before they are
	// answered, or makes us reset by breaking rules, beyond half of those it opened.
	Resets int
	// Pings and Settings, beyond one for each piece of work.
	Pings, Settings int
	// WindowUpdates, beyond ten for each piece of work.
	WindowUpdates int
	// Priorities: PRIORITY frames, beyond as many for each stream opened.
	Priorities int
	// Unknown: frames of unknown type, and frames for streams that are closed,
	// beyond one for each piece of work.
	Unknown int
	// EmptyData: DATA frames in a row that carry nothing, not even END_STREAM.
	EmptyData int
	// Replies: acknowledgements and resets of ours that wait because the peer
	// does not read.
	Replies int
	// Interim: heads with status 1xx that wait for ReadHead; the stream is reset.
	Interim int
}

// Counters count what went wrong on connections.
type Counters struct {
	StreamsRefused  atomic.Uint64 // beyond MaxStreams
	HeadersTooLarge atomic.Uint64 // beyond HeaderBytes or HeaderFields
	Malformed       atomic.Uint64 // messages that broke rules of RFC 9113 section 8
	ResetsReceived  atomic.Uint64
	ResetsSent      atomic.Uint64
	Floods          atomic.Uint64 // connections closed with ENHANCE_YOUR_CALM
	KeepAliveLost   atomic.Uint64 // connections closed because a PING was not answered
}

// DefaultLimits are the limits of a proxy nobody has tuned.
func DefaultLimits() Limits {
	return Limits{
		HeaderBytes:   60 << 10, // Envoy's
		HeaderFields:  100,      // Envoy's
		BlockBytes:    128 << 10,
		BlockFrames:   64,
		Window:        10 * time.Second,
		Resets:        200,
		Pings:         200,
		Settings:      50,
		WindowUpdates: 1000,
		Priorities:    100, // Envoy's, per stream
		Unknown:       200,
		EmptyData:     10,
		Replies:       1000, // Envoy's
		Interim:       16,
	}
}

func defaults() Config {
	return Config{
		StreamWindow:     64 << 10, // grows for those who read; who does not read pins no more
		MaxStreamWindow:  1 << 20,
		ConnWindow:       1 << 20,
		WriteTimeout:     30 * time.Second,
		KeepAliveTimeout: 10 * time.Second,
		Linger:           time.Second,
		Limits:           DefaultLimits(),
	}
}

// ServerDefaults is the configuration of a server nobody has tuned.
func ServerDefaults() ServerConfig {
	return ServerConfig{
		Config:          defaults(),
		MaxStreams:      1024, // Envoy's
		ExtendedConnect: true,
		PrefaceTimeout:  10 * time.Second,
		DrainPing:       time.Second,
	}
}

// ClientDefaults is the configuration of a client nobody has tuned.
func ClientDefaults() ClientConfig {
	cfg := ClientConfig{Config: defaults(), MaxStreams: 1024}
	cfg.ConnWindow = 4 << 20 // shared by many callers; one that does not read must not stop the others
	return cfg
}
