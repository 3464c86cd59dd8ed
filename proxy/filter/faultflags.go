// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import "github.com/meltemi/meltemi/proxy/fault"

// faultFlags gives each kind of fault the response flag Envoy sets for it.
var faultFlags = [...]Flags{
	fault.NoRoute:          NoRouteFound,
	fault.NoCluster:        NoClusterFound,
	fault.NoEndpoint:       NoHealthyUpstream,
	fault.Overflow:         UpstreamOverflow,
	fault.ConnectFailure:   UpstreamConnectionFailure,
	fault.ConnectTimeout:   UpstreamConnectionFailure,
	fault.ConnectionClosed: UpstreamConnectionTermination,
	fault.RemoteReset:      UpstreamRemoteReset,
	fault.RefusedStream:    UpstreamRemoteReset,
	fault.LocalReset:       LocalReset,
	fault.UpstreamProtocol: UpstreamProtocolError,
	fault.Timeout:          UpstreamRequestTimeout,
	fault.PerTryTimeout:    UpstreamRequestTimeout,
	fault.IdleTimeout:      StreamIdleTimeout,
	fault.Injected:         FaultInjected,
	fault.RateLimited:      RateLimited,
	fault.BadRequest:       DownstreamProtocolError,
	fault.TooLarge:         DownstreamProtocolError,
	fault.ClientGone:       DownstreamConnectionTermination,
	fault.MaxDuration:      DurationTimeout,
	fault.Internal:         0,
}

// FlagsOf returns the response flags of f's kind; none for a nil f.
func FlagsOf(f *fault.Fault) Flags {
	if f == nil || int(f.Kind) >= len(faultFlags) {
		return 0
	}
	return faultFlags[f.Kind]
}
