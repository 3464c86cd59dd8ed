// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"time"

	"github.com/meltemi/meltemi/match"
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

// A Retry is a retry policy; immutable.
type Retry struct {
	On         RetryOn
	Count      uint32         // attempts after the first
	PerTry     time.Duration  // one attempt's timeout; 0: none
	PerTryIdle time.Duration  // 0: none
	Codes      []uint32       // for OnStatusCodes
	Headers    []match.Header // for OnHeaders: of the response
	Requests   []match.Header // only requests that fulfil one of these; empty: all
	Base, Max  time.Duration  // back-off; 25 ms and 10 × Base
	// PreviousHosts avoids endpoints already tried, by asking the balancer up
	// to MaxReselect more times.
	PreviousHosts bool
	MaxReselect   int
	// PreviousPriorities avoids priorities already tried, every so many attempts; 0: no.
	PreviousPriorities uint32
}
