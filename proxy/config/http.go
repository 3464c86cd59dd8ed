// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
)

// A Codec is how a connection's HTTP version is found.
type Codec uint8

// The codecs.
const (
	CodecAuto Codec = iota // ALPN, else the HTTP/2 preface, else HTTP/1
	CodecHTTP1
	CodecHTTP2
)

// HTTP is the settings of a connection manager (HttpConnectionManager), with
// Envoy's defaults filled in: a duration of 0 means none.
type HTTP struct {
	StatPrefix string // without a trailing ";"
	Codec      Codec

	// Routes gives the table of the moment. One of RDS (then RouteName is its
	// name) or inline (then it never changes).
	Routes    *RouteRef
	RouteName string // "" for inline routes

	// Chain is the HTTP filters, the router apart.
	Chain  *filter.Chain
	Router Router

	AccessLogs []AccessLog
	LogOnStart bool     // flush_access_log_on_new_request
	Tracing    *Tracing // nil: none

	// Request identity and client address.
	GenerateRequestID   bool
	PreserveRequestID   bool // preserve_external_request_id
	RequestIDInResponse bool
	NoTraceInRequestID  bool // pack_trace_reason: false
	TraceByRequestID    bool // use_request_id_for_trace_sampling
	UseRemoteAddress    bool
	TrustedHops         uint32
	SkipForwardedFor    bool // skip_xff_append
	AppendForwardedPort bool
	Internal            []netip.Prefix // internal_address_config
	InternalUnix        bool
	ForwardCert         ForwardCert
	SetCert             SetCert
	Via                 string

	// Server header of responses.
	ServerName   string // default "envoy"
	ServerHeader ServerHeader

	// Path, host and header rules.
	NormalizePath    bool
	MergeSlashes     bool
	EscapedSlashes   EscapedSlashes
	StripPort        StripPort
	StripTrailingDot bool   // strip_trailing_host_dot
	SchemeOverwrite  string // "", "http" or "https"
	SchemeMatchesTLS bool
	Underscores      Underscores
	MaxHeaderBytes   uint32 // default 60 KiB
	MaxHeaders       uint32 // default 100
	Upgrades         []route.Upgrade
	Proxy100         bool // proxy_100_continue

	// Times.
	IdleTimeout       time.Duration // of the connection; default 1 h
	StreamIdleTimeout time.Duration // default 5 min
	RequestTimeout    time.Duration // whole request received; default none
	HeadersTimeout    time.Duration // head received; default none
	MaxDuration       time.Duration // of the connection; default none
	MaxStreamDuration time.Duration // default none
	DelayedClose      time.Duration // default 1 s
	MaxRequests       uint32        // per connection; 0: no limit

	HTTP1 HTTP1
	HTTP2 HTTP2
}

// For returns the settings with another route table, for a destination that was
// found on demand.
func (h *HTTP) For(routes *RouteRef) *HTTP {
	c := *h
	c.Routes, c.RouteName = routes, routes.Name()
	return &c
}

// HTTP1 is Http1ProtocolOptions.
type HTTP1 struct {
	AcceptHTTP10 bool
	DefaultHost  string // for HTTP/1.0
	PreserveCase bool   // header_key_format preserve_case
	Trailers     bool   // enable_trailers
}

// HTTP2 is Http2ProtocolOptions.
type HTTP2 struct {
	MaxStreams        uint32        // default 1024
	StreamWindow      uint32        // default 16 MiB
	ConnWindow        uint32        // default 24 MiB
	KeepaliveInterval time.Duration // 0: no PING
	KeepaliveTimeout  time.Duration
}

// Router is the settings of the last HTTP filter.
type Router struct {
	SuppressHeaders bool // suppress_envoy_headers
	SpawnUpstream   bool // start_child_span, the older name of spawn_upstream_span
	RespectExpected bool // respect_expected_rq_timeout
	UpstreamLogs    []AccessLog
}

// ForwardCert is what becomes of x-forwarded-client-cert.
type ForwardCert uint8

// The values of ForwardClientCertDetails.
const (
	CertSanitize ForwardCert = iota
	CertForwardOnly
	CertAppendForward
	CertSanitizeSet
	CertAlwaysForwardOnly
)

// SetCert is which facts of the client's certificate x-forwarded-client-cert
// gets, besides By and Hash.
type SetCert struct{ Subject, Cert, Chain, DNS, URI bool }

// ServerHeader is what becomes of the server header.
type ServerHeader uint8

// The values of ServerHeaderTransformation.
const (
	ServerOverwrite ServerHeader = iota
	ServerAppendIfAbsent
	ServerPass
)

// EscapedSlashes is what becomes of %2F and %5C in paths.
type EscapedSlashes uint8

// The values of PathWithEscapedSlashesAction.
const (
	SlashesKeep EscapedSlashes = iota
	SlashesReject
	SlashesRedirect
	SlashesUnescape
)

// StripPort removes the port from the authority.
type StripPort uint8

// The ways of strip_port_mode.
const (
	StripNone     StripPort = iota
	StripMatching           // the listener's own
	StripAny
)

// Underscores is what becomes of headers with "_" in their name.
type Underscores uint8

// The values of HeadersWithUnderscoresAction.
const (
	UnderscoresAllow Underscores = iota
	UnderscoresReject
	UnderscoresDrop
)

// Tracing is HttpConnectionManager.Tracing. Percentages are in 1/10,000.
type Tracing struct {
	Client, Random, Overall uint32
	MaxPathLength           uint32 // default 256
	SpawnUpstream           bool
	NoPropagation           bool
	Tags                    []Tag
	// Provider: OpenTelemetry over gRPC or HTTP.
	Service   string // service_name
	Cluster   string // that collects
	HTTPPath  string // "" for gRPC
	Operation string // format of the operation's name, may be ""
}

// A Tag is a custom tag of spans.
type Tag struct {
	Name    string
	Kind    TagKind
	Value   string // literal, header's or variable's name, or format
	Default string
}

// TagKind is where a Tag's value comes from.
type TagKind uint8

// The kinds of CustomTag.
const (
	TagLiteral TagKind = iota
	TagHeader
	TagEnvironment
	TagFormat
)
