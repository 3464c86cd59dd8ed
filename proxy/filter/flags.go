// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import "math/bits"

// Flags is a set of Envoy's response flags (core/v3 ResponseFlags): what was out
// of the ordinary about an exchange or a connection.
type Flags uint32

// The flags, in the order in which they are printed: that in which Envoy usually
// sets them.
const (
	UpstreamRetryLimitExceeded Flags = 1 << iota
	FailedLocalHealthCheck
	NoHealthyUpstream
	UpstreamRequestTimeout
	LocalReset
	UpstreamRemoteReset
	UpstreamConnectionFailure
	UpstreamConnectionTermination
	UpstreamOverflow
	NoRouteFound
	DelayInjected
	FaultInjected
	RateLimited
	UnauthorizedExternalService
	RateLimitServiceError
	DownstreamConnectionTermination
	StreamIdleTimeout
	InvalidEnvoyRequestHeaders
	DownstreamProtocolError
	UpstreamMaxStreamDurationReached
	ResponseFromCacheFilter
	NoFilterConfigFound
	DurationTimeout
	UpstreamProtocolError
	NoClusterFound
	OverloadManagerTerminated
	DNSResolutionFailed
	DropOverload
	DownstreamRemoteReset
	UnconditionalDropOverload
)

var flagNames = [...]struct{ short, long string }{
	{"URX", "UpstreamRetryLimitExceeded"}, {"LH", "FailedLocalHealthCheck"}, {"UH", "NoHealthyUpstream"}, {"UT", "UpstreamRequestTimeout"},
	{"LR", "LocalReset"}, {"UR", "UpstreamRemoteReset"}, {"UF", "UpstreamConnectionFailure"},
	{"UC", "UpstreamConnectionTermination"}, {"UO", "UpstreamOverflow"}, {"NR", "NoRouteFound"},
	{"DI", "DelayInjected"}, {"FI", "FaultInjected"}, {"RL", "RateLimited"},
	{"UAEX", "UnauthorizedExternalService"}, {"RLSE", "RateLimitServiceError"},
	{"DC", "DownstreamConnectionTermination"},
	{"SI", "StreamIdleTimeout"}, {"IH", "InvalidEnvoyRequestHeaders"}, {"DPE", "DownstreamProtocolError"},
	{"UMSDR", "UpstreamMaxStreamDurationReached"}, {"RFCF", "ResponseFromCacheFilter"},
	{"NFCF", "NoFilterConfigFound"}, {"DT", "DurationTimeout"}, {"UPE", "UpstreamProtocolError"},
	{"NC", "NoClusterFound"}, {"OM", "OverloadManagerTerminated"}, {"DF", "DnsResolutionFailed"},
	{"DO", "DropOverload"}, {"DR", "DownstreamRemoteReset"}, {"UDO", "UnconditionalDropOverload"},
}

// Has says whether any of f2 is in f.
func (f Flags) Has(f2 Flags) bool { return f&f2 != 0 }

// String is the short names joined by ",", or "-" for none, as
// %RESPONSE_FLAGS% prints them. One flag costs no allocation.
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	if f&(f-1) == 0 {
		return flagNames[bits.TrailingZeros32(uint32(f))].short
	}
	return string(f.Append(nil))
}

// Append appends what String returns.
func (f Flags) Append(b []byte) []byte { return f.append(b, false) }

// AppendLong appends the long names (%RESPONSE_FLAGS_LONG%).
func (f Flags) AppendLong(b []byte) []byte { return f.append(b, true) }

func (f Flags) append(b []byte, long bool) []byte {
	if f == 0 {
		return append(b, '-')
	}
	for first := true; f != 0; f &= f - 1 {
		if !first {
			b = append(b, ',')
		}
		first = false
		n := flagNames[bits.TrailingZeros32(uint32(f))]
		if long {
			b = append(b, n.long...)
		} else {
			b = append(b, n.short...)
		}
	}
	return b
}

// ParseFlag returns the flag with that short name, or 0 (response_flag_filter).
func ParseFlag(short string) Flags {
	for i, n := range flagNames {
		if n.short == short {
			return 1 << i
		}
	}
	return 0
}
