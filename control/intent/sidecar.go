// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"net/netip"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A Sidecar narrows what a workload's proxy is told, and says which listeners it opens.
type Sidecar struct {
	Object   source.Key // zero for the default
	Selector mesh.Labels
	Egress   []Egress  // never empty
	Ingress  []Ingress // empty: from the services of the workload
	Outbound *Outbound // nil: as the mesh says
	Inbound  *ConnectionPool
}

// Capture says how connections reach a listener.
type Capture uint8

const (
	CaptureDefault Capture = iota
	CaptureRedirect
	CaptureNone // the application dials the proxy
)

// An Egress is a listener for outbound traffic, or, without a Port, all of them.
type Egress struct {
	Origin   source.Origin
	Port     int
	PortName string
	Protocol mesh.Protocol
	Bind     string
	Capture  Capture
	Hosts    []EgressHost
}

// An EgressHost admits the services that match it, or with Not keeps them out.
type EgressHost struct {
	Namespace mesh.Namespace // empty: any
	Host      mesh.Hostname  // "*", "*.suffix" or complete
	Not       bool
}

// An Ingress is a listener for inbound traffic.
type Ingress struct {
	Origin   source.Origin
	Port     int
	PortName string
	Protocol mesh.Protocol
	Bind     string
	Capture  Capture
	// Endpoint is where the application listens. An unspecified address means the
	// workload's own; if Unix is set, it is a socket.
	Endpoint netip.AddrPort
	Unix     string
	Pool     *ConnectionPool
}

// Outbound says what becomes of traffic to hosts that the mesh does not know.
type Outbound struct {
	AllowAny bool
	Proxy    *Destination // where it is sent; nil: straight on
}
