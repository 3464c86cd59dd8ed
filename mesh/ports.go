// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

// The ports of the mesh; the numbers are Istio's.
const (
	PortAdmin      = 15000 // proxy: admin, loopback only
	PortOutbound   = 15001 // proxy: captured outbound connections
	PortDebug      = 15004 // debug xDS, loopback only
	PortInbound    = 15006 // proxy: captured inbound connections
	PortHBONE      = 15008 // mTLS HTTP/2 CONNECT
	PortXDSPlain   = 15010 // control plane: xDS and CA without TLS, hence without identity
	PortXDS        = 15012 // control plane: xDS and CA over TLS
	PortMonitoring = 15014 // control plane: metrics, debug, version
	PortWebhook    = 15017 // control plane: injection and validation
	PortAgent      = 15020 // proxy: readiness, merged metrics, application probes
	PortHealth     = 15021 // proxy: readiness for the outside
	PortDNS        = 15053 // proxy: DNS, UDP and TCP, loopback
	PortSOCKS      = 15080 // node proxy: SOCKS5, loopback
	PortMetrics    = 15090 // proxy: metrics alone
	PortSNIDNAT    = 15443 // east-west gateway: routing by SNI

	// ProxyUID is the user and group whose own traffic is not captured.
	ProxyUID = 1337
	// ProxyMark is the socket mark of traffic that must not be captured again.
	ProxyMark = 1337
)
