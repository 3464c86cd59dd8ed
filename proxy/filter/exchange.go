// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry/trace"
)

// An Exchange is one request and its answer. The conductor owns it and pools it;
// filters see it one at a time. Strings in it live as message.Header's do.
type Exchange struct {
	Conn *Conn
	// Request is as it will be forwarded: sanitised before the chain runs.
	Request *message.Request
	// Response is the answer that goes to the client; Status 0 until there is one.
	Response message.Response
	// Trailer of the response; nil if none.
	Trailer *message.Header

	// Remote is the client's address as policies and logs see it: Conn.Remote, or
	// what a trusted x-forwarded-for says.
	Remote netip.AddrPort
	// Internal is true if x-forwarded-for makes the request an internal one (Envoy).
	Internal bool
	// GRPC is true if the request's content type is application/grpc….
	GRPC bool
	// GRPCStatus is the response's; -1 while there is none.
	GRPCStatus int
	// CountMessages is set by a filter that wants those of a gRPC call to be counted.
	CountMessages bool
	// Random is drawn once per exchange: weights, percentages, balancing.
	Random uint64

	// Target is what the route decided; zero before and without a route.
	Target Target
	// Upstream is where the last attempt went.
	Upstream Upstream
	Attempts uint32 // made so far; the first counts

	// Fault is why the exchange failed, if it did.
	Fault   *fault.Fault
	Flags   Flags
	Details string // %RESPONSE_CODE_DETAILS%; "" until known
	// Local is an answer that a filter or the route gives instead of forwarding
	// and that is no failure: a preflight, a redirect. See Answer.
	Local Local

	// DownstreamPeer and UpstreamPeer are nil while unknown.
	DownstreamPeer, UpstreamPeer *Peer
	// PeerAsked is true if the request carried metadata exchange headers, so
	// that the response shall carry ours.
	PeerAsked bool
	// Facts is what authorization may depend on; filters that learn more
	// (claims of a token) add it there before the next one decides.
	Facts authz.Facts
	// Shadow is what dry-run policies would have said.
	Shadow []Shadow

	Trace trace.Context // of our span; valid only if tracing is on
	Span  *trace.Span   // nil unless sampled

	Start time.Time
	marks [points]time.Duration
	// Received and Sent count body bytes as the client sees them; the Wire
	// fields count heads and framing too.
	Received, Sent         uint64
	WireReceived, WireSent uint64

	holder   Holder
	settings []Setting
	slot     int
	chain    *Chain
	granted  int
}

// Target is what routing decided.
type Target struct {
	Route       string // name of the route
	VirtualHost string
	Cluster     string // name of the cluster, also if it is unknown
	Operation   string // of the route's decorator
}

// Upstream tells of the last attempt.
type Upstream struct {
	Spec     *upstream.Spec     // nil until the cluster is known
	Endpoint *upstream.Endpoint // nil until a host was picked
	Remote   netip.AddrPort
	Local    netip.AddrPort
	Version  message.Version
	TLS      *tls.ConnectionState
	Mutual   bool // we presented a certificate
	// Failure is %UPSTREAM_TRANSPORT_FAILURE_REASON%.
	Failure string
	// Received and Sent count bytes as they are on the wire, heads included.
	Received, Sent uint64
}

// Local is an answer of our own.
type Local struct {
	Status  int // 0: none
	Details string
	Body    string
	// GRPC is the gRPC status of an answer to a call; 0: what Status stands for.
	GRPC int
}

// A Shadow is the verdict of a policy that is not enforced.
type Shadow struct {
	Prefix  string // of its statistics: istio_dry_run_allow_
	Policy  string // that matched, or ""
	Allowed bool
}

// A Setting is what a route says to the filter of that name
// (typed_per_filter_config). The value's type is the filter's own.
type Setting struct {
	Name     string
	Disabled bool
	Value    any
}

// A Point is a moment of an exchange (Envoy COMMON_DURATION time points).
type Point uint8

// The points, in the order of a usual exchange.
const (
	RequestEnd      Point = iota // DS_RX_END: the last byte of the request came
	ConnectBegin                 // US_CX_BEG
	ConnectEnd                   // US_CX_END, the pool is ready
	UpstreamTxBegin              // US_TX_BEG
	UpstreamTxEnd                // US_TX_END
	UpstreamRxBegin              // US_RX_BEG: the response's head came
	UpstreamRxEnd                // US_RX_END
	ResponseBegin                // DS_TX_BEG
	ResponseEnd                  // DS_TX_END
	points
)

// Mark notes that p happened now. The last mark of a point counts.
func (x *Exchange) Mark(p Point) { x.MarkAt(p, time.Since(x.Start)) }

// MarkAt notes that p happened d after Start.
func (x *Exchange) MarkAt(p Point, d time.Duration) { x.marks[p] = max(d, 1) }

// Since returns how long after Start p happened, and false if it did not.
func (x *Exchange) Since(p Point) (time.Duration, bool) { return x.marks[p], x.marks[p] != 0 }

// Reset empties x for reuse; storage of the response head is kept.
func (x *Exchange) Reset() {
	x.Response.Reset()
	*x = Exchange{Response: x.Response, GRPCStatus: -1}
}

// A Holder lets an exchange wait; the conductor is one.
type Holder interface {
	// Hold returns nil after d, or a fault as soon as the client is gone or the
	// exchange may not last longer.
	Hold(d time.Duration) *fault.Fault
}

// Prepare gives x what the chain needs: who waits, and what the route says to filters.
func (x *Exchange) Prepare(h Holder, settings []Setting) { x.holder, x.settings = h, settings }

// Hold waits for d (fault injection). It returns a fault if the exchange ends first.
func (x *Exchange) Hold(d time.Duration) *fault.Fault {
	if x.holder == nil || d <= 0 {
		return nil
	}
	return x.holder.Hold(d)
}

// Setting returns what the route says to the filter that is running, or nil.
func (x *Exchange) Setting() any {
	if len(x.settings) == 0 {
		return nil
	}
	if s := x.find(x.chain.entries[x.slot].Name); s != nil {
		return s.Value
	}
	return nil
}

func (x *Exchange) find(name string) *Setting {
	for i := range x.settings {
		if x.settings[i].Name == name {
			return &x.settings[i]
		}
	}
	return nil
}

// Grant is called by a filter that authorizes, when it lets the request pass.
func (x *Exchange) Grant() { x.granted++ }

// Answer makes the exchange end with an answer of our own that is no failure.
// The filters after the one that calls it do not see the request. Header fields
// are added to Response.Header.
func (x *Exchange) Answer(status int, details, body string) {
	x.Local = Local{Status: status, Details: details, Body: body}
}
