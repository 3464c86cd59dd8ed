// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// MTLSMode is what a workload demands of its callers.
type MTLSMode uint8

const (
	MTLSUnset MTLSMode = iota // inherit
	MTLSDisable
	MTLSPermissive
	MTLSStrict
)

// String is the mode as Istio writes it.
func (m MTLSMode) String() string {
	return [...]string{"UNSET", "DISABLE", "PERMISSIVE", "STRICT"}[min(int(m), 3)]
}

// A PeerRule is one object's wish for mutual TLS.
type PeerRule struct {
	Object   source.Key
	Selector mesh.Labels // empty: the namespace, or in the root namespace the mesh
	Mode     MTLSMode
	Ports    []PortMode // sorted; by workload port
}

// PortMode is the mode of one workload port.
type PortMode struct {
	Port int
	Mode MTLSMode
}

// PeerAuth is the effective mode of a workload. Nothing in it is unset.
type PeerAuth struct {
	Mode    MTLSMode
	Ports   []PortMode
	Origins []source.Origin // what decided: workload, namespace, mesh; empty if the default did
}

// ForPort is the mode of a workload port.
func (p *PeerAuth) ForPort(port int) MTLSMode {
	for _, m := range p.Ports {
		if m.Port == port {
			return m.Mode
		}
	}
	return p.Mode
}

// Action is what a matching policy does.
type Action uint8

const (
	Allow Action = iota
	Deny
	Audit
	Custom
)

// String is the action as Istio writes it.
func (a Action) String() string {
	return [...]string{"ALLOW", "DENY", "AUDIT", "CUSTOM"}[min(int(a), 3)]
}

// A Policy says who may call. An Allow policy without rules allows nothing.
// Values keep Istio's form: exact, "x*", "*x" or "*".
type Policy struct {
	Object   source.Key
	Selector mesh.Labels // empty: the namespace, or in the root namespace the mesh
	Action   Action
	Provider string // for Custom
	DryRun   bool
	Rules    []Rule
}

// A Rule matches if any of From, any of To and all of When do; an empty list matches everything.
type Rule struct {
	Origin source.Origin
	From   []Peer
	To     []Operation
	When   []Condition
}

// A Peer is a condition on who calls: all that is set must match. Service accounts are ns/sa.
type Peer struct {
	Origin                                  source.Origin
	Principals, NotPrincipals               []string // trust-domain/ns/NS/sa/SA
	RequestPrincipals, NotRequestPrincipals []string
	Namespaces, NotNamespaces               []string
	ServiceAccounts, NotServiceAccounts     []string
	IPBlocks, NotIPBlocks                   []string // of the direct peer
	RemoteIPBlocks, NotRemoteIPBlocks       []string // of the client behind proxies
	TrustDomains, NotTrustDomains           []string
}

// An Operation is a condition on what is called: all that is set must match.
type Operation struct {
	Origin              source.Origin
	Hosts, NotHosts     []string
	Ports, NotPorts     []int
	Methods, NotMethods []string
	Paths, NotPaths     []string
}

// A Condition is on an attribute, such as request.headers[x-a] or source.ip.
type Condition struct {
	Origin            source.Origin
	Key               string
	Values, NotValues []string
}

// Authorization is what applies to a workload, ordered by object; the root namespace's are among them.
type Authorization struct {
	Policies []*Policy
}
