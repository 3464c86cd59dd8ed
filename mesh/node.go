// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"net/netip"
	"strings"
)

// NodeType is the kind of proxy that asks for configuration.
type NodeType string

const (
	Sidecar      NodeType = "sidecar"
	Router       NodeType = "router" // a gateway
	Waypoint     NodeType = "waypoint"
	Ztunnel      NodeType = "ztunnel" // a node proxy
	AgentGateway NodeType = "agentgateway"
)

// NodeID is how a proxy introduces itself: type~ip~name.namespace~namespace.svc.domain.
type NodeID struct {
	Type      NodeType
	Addr      netip.Addr // invalid when the text holds no address
	Name      string     // of the pod or machine
	Namespace Namespace
	Domain    string // namespace.svc.cluster.local, or whatever the proxy's DNS domain is
}

// String is the text form. An empty Domain is written as NAMESPACE.svc.cluster.local,
// an invalid Addr as nothing.
func (n NodeID) String() string {
	domain := n.Domain
	if domain == "" {
		domain = string(n.Namespace) + ".svc." + DefaultDomain
	}
	addr := ""
	if n.Addr.IsValid() {
		addr = n.Addr.String()
	}
	return string(n.Type) + "~" + addr + "~" + n.Name + "." + string(n.Namespace) + "~" + domain
}

// ParseNodeID reads the text form. The address may be missing, because the
// proxy's metadata (INSTANCE_IPS) may give it. A dot in a pod's name is allowed:
// the namespace is what follows the last one.
func ParseNodeID(s string) (NodeID, error) {
	parts := strings.Split(s, "~")
	if len(parts) != 4 {
		return NodeID{}, fmt.Errorf("node ID %q: has %d parts; want type~ip~name.namespace~domain", clip(s), len(parts))
	}
	n := NodeID{Type: NodeType(parts[0]), Domain: parts[3]}
	switch n.Type {
	case Sidecar, Router, Waypoint, Ztunnel, AgentGateway:
	default:
		return NodeID{}, fmt.Errorf("node ID %q: type %q is none of sidecar, router, waypoint, ztunnel, agentgateway", clip(s), clip(parts[0]))
	}
	if parts[1] != "" {
		addr, err := netip.ParseAddr(parts[1])
		if err != nil {
			return NodeID{}, fmt.Errorf("node ID %q: %q is no IP address", clip(s), clip(parts[1]))
		}
		n.Addr = addr
	}
	n.Name = parts[2]
	if i := strings.LastIndexByte(parts[2], '.'); i >= 0 {
		n.Name, n.Namespace = parts[2][:i], Namespace(parts[2][i+1:])
	} else if ns, _, ok := strings.Cut(n.Domain, "."); ok {
		n.Namespace = Namespace(ns)
	}
	if n.Name == "" {
		return NodeID{}, fmt.Errorf("node ID %q: has no name", clip(s))
	}
	return n, nil
}
