// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

// A RetryOn is a set of conditions under which another attempt may be made
// (x-envoy-retry-on and x-envoy-retry-grpc-on).
type RetryOn uint32

// The conditions.
const (
	On5xx RetryOn = 1 << iota
	OnGatewayError
	OnReset
	OnResetBeforeRequest
	OnConnectFailure
	OnRatelimited // envoy-ratelimited
	OnRetriable4xx
	OnRefusedStream
	OnStatusCodes // retriable-status-codes
	OnHeaders     // retriable-headers
	OnHTTP3
	OnCancelled // gRPC from here on: the grpc-status header
	OnDeadline
	OnInternal
	OnResourceExhausted
	OnUnavailable
)

const onGRPC = OnCancelled | OnDeadline | OnInternal | OnResourceExhausted | OnUnavailable

// retryNames are the tokens of x-envoy-retry-on, in the order of the bits.
var retryNames = [...]string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx",
	"refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// ParseRetryOn reads a list of tokens separated by commas. It returns the first
// token that it does not know, or "".
func ParseRetryOn(list string) (on RetryOn, unknown string) {
	for token := range strings.SplitSeq(list, ",") {
		token = strings.TrimSpace(token)
		i := slices.Index(retryNames[:], token)
		switch {
		case i >= 0:
			on |= 1 << i
		case token != "" && unknown == "":
			unknown = token
		}
	}
	return on, unknown
}

// String is the list of tokens.
func (on RetryOn) String() string {
	var tokens []string
	for i, name := range retryNames {
		if on&(1<<i) != 0 {
			tokens = append(tokens, name)
		}
	}
	return strings.Join(tokens, ",")
}

// A Retry is a retry policy; immutable.
type Retry struct {
	On         RetryOn
	Count      uint32         // attempts after the first
	PerTry     time.Duration  // one attempt's timeout; 0: none
	PerTryIdle time.Duration  // 0: none
	Codes      []uint32       // for OnStatusCodes
	Headers    []match.Header // for OnHeaders: of the response
	Requests   []match.Header // only requests that fulfil one of these; empty: all
	Base, Max  time.Duration  // back-off; Envoy's defaults are 25 ms and 10 × Base
	// PreviousHosts avoids endpoints already tried, by asking the balancer up
	// to MaxReselect more times.
	PreviousHosts bool
	MaxReselect   int
	// PreviousPriorities avoids priorities already tried, every so many attempts; 0: no.
	PreviousPriorities uint32
}

// Applies says whether r may be tried again at all.
func (p *Retry) Applies(r *message.Request) bool {
	if p.On == 0 {
		return false
	}
	for i := range p.Requests {
		if p.Requests[i].Match(r) {
			return true
		}
	}
	return len(p.Requests) == 0
}

// OnResponse says whether the head of a response asks for another attempt.
func (p *Retry) OnResponse(r *message.Response) bool {
	if r.Header.Has("x-envoy-ratelimited") {
		return p.On&OnRatelimited != 0
	}
	status := r.Status
	switch {
	case p.On&On5xx != 0 && status >= 500 && status < 600,
		p.On&OnGatewayError != 0 && status >= 502 && status <= 504,
		p.On&OnRetriable4xx != 0 && status == 409,
		p.On&OnStatusCodes != 0 && slices.Contains(p.Codes, uint32(status)):
		return true
	}
	if p.On&OnHeaders != 0 {
		for i := range p.Headers {
			if p.matchResponse(&p.Headers[i], r) {
				return true
			}
		}
	}
	return p.On&onGRPC != 0 && p.onStatus(r)
}

func (p *Retry) matchResponse(h *match.Header, r *message.Response) bool {
	if h.Name == ":status" {
		return h.MatchValue(strconv.Itoa(r.Status), true)
	}
	return h.MatchFields(&r.Header)
}

// onStatus looks at grpc-status in the head: trailers come too late.
func (p *Retry) onStatus(r *message.Response) bool {
	status, ok := r.Header.Lookup("grpc-status")
	if !ok {
		return false
	}
	switch status {
	case "1":
		return p.On&OnCancelled != 0
	case "4":
		return p.On&OnDeadline != 0
	case "8":
		return p.On&OnResourceExhausted != 0
	case "13":
		return p.On&OnInternal != 0
	case "14":
		return p.On&OnUnavailable != 0
	}
	return false
}

// OnFault says whether a failed attempt may be followed by another.
func (p *Retry) OnFault(f *fault.Fault) bool {
	var on RetryOn
	switch f.Kind {
	case fault.ConnectFailure, fault.ConnectTimeout:
		on = OnConnectFailure
	case fault.RefusedStream:
		on = OnRefusedStream
	case fault.ConnectionClosed, fault.RemoteReset, fault.LocalReset, fault.UpstreamProtocol, fault.PerTryTimeout:
	default:
		return false
	}
	on |= OnReset | On5xx | OnGatewayError
	if !f.Sent {
		on |= OnResetBeforeRequest
	}
	return p.On&on != 0
}

// Backoff is how long to wait before attempt n+1, n ≥ 1, for a random number.
func (p *Retry) Backoff(n uint32, random uint64) time.Duration {
	limit := p.Base
	for range min(n, 32) - 1 {
		if limit = 2*limit + p.Base; limit >= p.Max {
			break
		}
	}
	limit = min(limit, p.Max)
	if limit <= 0 {
		return 0
	}
	return time.Duration(random % uint64(limit))
}
