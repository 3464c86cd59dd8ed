// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/telemetry/trace"
)

// A Record is one exchange or connection. It points to what its owner holds and
// is used only while that lasts. Zero fields are missing values.
type Record struct {
	Type string // %ACCESS_LOG_TYPE%; "" is DownstreamEnd
	// Request is nil for a connection that is not HTTP, Response while there is none.
	Request  *message.Request
	Response *message.Response
	Trailer  *message.Header // of the response

	Start      time.Time
	Duration   time.Duration    // since Start
	Marks      *[9]Mark         // moments after Start, by Point; nil: none known
	Handshake  time.Duration    // of the client's TLS
	Status     int              // 0: no response
	GRPCStatus int              // -1: none
	Flags      Names            // nil: none
	Details    string           // of the response code
	Close      string           // why the connection was closed
	LocalBody  string           // of an answer of our own
	Fault      error            // why it failed
	Received   uint64           // body bytes; of a connection, all
	Sent       uint64           //
	Wire       [4]uint64        // downstream received and sent, upstream received and sent
	Attempts   uint32           //
	Trace      *trace.Context   // nil: none
	Metadata   Metadata         // nil: none
	Route      string           //
	Cluster    string           //
	Stat       string           // the cluster's name in statistics
	Upstream   Upstream         //
	Downstream Downstream       //
	State      func(string) any // filter state by key; nil: none
}

// A Mark is a moment, as a time after Start; 0: it did not happen.
type Mark = time.Duration

// Names writes a set of flags by short or long names.
type Names interface {
	Append([]byte) []byte
	AppendLong([]byte) []byte
}

// Metadata is what filters left for others, by filter name.
type Metadata interface {
	Metadata(filter string) map[string]any
}

// Upstream is where the last attempt went.
type Upstream struct {
	Remote, Local netip.AddrPort
	Host          string // overrides Remote in %UPSTREAM_HOST%: a pipe's path
	Name          string // host name of the endpoint
	Version       message.Version
	TLS           *tls.ConnectionState
	Failure       string // transport failure reason
}

// Downstream is the client's connection.
type Downstream struct {
	ID                        uint64
	Remote, Local             netip.AddrPort
	DirectRemote, DirectLocal netip.AddrPort
	SNI, Listener, Chain      string
	TLS                       *tls.ConnectionState
	Failure                   string
	Peer, Own                 *Certificate // nil: none
}

// A Certificate is what is logged of one.
type Certificate struct {
	URISANs, DNSSANs []string
	Subject          string // RFC 2253
	Issuer           string
	Serial           string // hex
	SHA256           string // fingerprint, lower-case hex
	NotBefore        time.Time
	NotAfter         time.Time
}

// Moments of Record.Marks.
const (
	markRequestEnd = iota
	markConnectBegin
	markConnectEnd
	markUpstreamTxBegin
	markUpstreamTxEnd
	markUpstreamRxBegin
	markUpstreamRxEnd
	markResponseBegin
	markResponseEnd
)

func (r *Record) mark(i int) (time.Duration, bool) {
	if r.Marks == nil || r.Marks[i] == 0 {
		return 0, false
	}
	return r.Marks[i], true
}
