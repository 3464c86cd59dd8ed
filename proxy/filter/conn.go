// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// A Direction is how the listener stands to the workload (Envoy TrafficDirection).
type Direction uint8

// The directions; a gateway's listener has none and counts as Outbound in metrics.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

func (d Direction) String() string { return [...]string{"UNSPECIFIED", "INBOUND", "OUTBOUND"}[d] }

// Conn is what is known of a client's connection when its filter chain has been
// chosen. It is shared by all exchanges of the connection and never changes.
type Conn struct {
	ID        uint64 // unique in this process
	Direction Direction
	Listener  string // name of the listener
	Chain     string // name of the filter chain
	Start     time.Time
	Handshake time.Duration // of TLS; 0 without

	// DirectRemote and DirectLocal are the socket's. Remote and Local are what
	// they stand for: Remote after PROXY protocol, Local the original destination
	// if the connection was redirected.
	DirectRemote, DirectLocal netip.AddrPort
	Remote, Local             netip.AddrPort
	// OriginalDst is where the client wanted to go; not valid if unknown.
	OriginalDst netip.AddrPort

	SNI string
	TLS *tls.ConnectionState // nil for plaintext; Peer and LocalSAN are drawn from it
	// Mutual is true if the client presented a certificate and it was verified.
	Mutual bool
	Peer   Certificate // the client's
	Own    Certificate // ours
}

// Scheme is "https" on a TLS connection, else "http".
func (c *Conn) Scheme() string {
	if c.TLS != nil {
		return "https"
	}
	return "http"
}

// A Certificate is what policy, headers and logs want to know of one, drawn out
// once per connection.
type Certificate struct {
	URISANs, DNSSANs []string
	Subject          string // RFC 2253
	Issuer           string
	Serial           string // hex
	SHA256           string // fingerprint, lower-case hex
	NotBefore        time.Time
	NotAfter         time.Time
}

// URI is the first URI SAN, or "".
func (c *Certificate) URI() string {
	if len(c.URISANs) == 0 {
		return ""
	}
	return c.URISANs[0]
}
