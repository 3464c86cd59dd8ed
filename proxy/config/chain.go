// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "net/netip"

// A ChainMatch says which connections a chain takes (FilterChainMatch). An empty
// field takes any.
type ChainMatch struct {
	Port         uint16 // destination_port; 0: any
	Destinations []netip.Prefix
	ServerNames  []string // lower case; "*.example.com" has a wildcard
	Transport    string   // "tls" or "raw_buffer"
	Protocols    []string // ALPN, or "http/1.0", "http/1.1", "h2c" as inspected
	DirectSource []netip.Prefix
	SourceType   SourceType
	Sources      []netip.Prefix
	SourcePorts  []uint16
}

// SourceType is where a connection comes from.
type SourceType uint8

// The values of ConnectionSourceType.
const (
	SourceAny SourceType = iota
	SourceLocal
	SourceExternal
)

// ConnFacts is what choosing a chain may depend on.
type ConnFacts struct {
	Local        netip.AddrPort // where the client wanted to go
	Remote       netip.AddrPort // the client
	DirectRemote netip.AddrPort // the peer of the socket
	SNI          string         // lower case
	Transport    string         // "tls", or "raw_buffer" where TLS was not seen
	Protocols    []string       // in the client's order; nil: none detected
}

// chainTree is the compiled form of all matches of a listener.
type chainTree struct{}
