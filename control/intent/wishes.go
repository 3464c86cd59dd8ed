// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// Wishes answer what people want of the traffic of a workload, a host or a gateway. Results are
// shared; nobody writes to them.
type Wishes struct {
	// Settings are those of the mesh.
	Settings *derive.Query[struct{}, *Settings]

	// Sidecar is the one in force for a workload; the default one if there is none, never nil.
	Sidecar *derive.Query[Subject, *Sidecar]
	// Visible lists the services that an egress listener admits, one per host, by host.
	Visible *derive.Query[Scope, []registry.ServiceKey]
	// Sees is what a complete host name means behind an egress listener; zero if it is not admitted there.
	Sees *derive.Query[HostIn, registry.ServiceKey]

	// RouteHosts are the hosts that route sets name for sidecars in a scope, whether or not there is a service, by host.
	RouteHosts *derive.Query[Scope, []mesh.Hostname]
	// Routes are those of one host for sidecars in a scope; nil if nobody routes it.
	Routes *derive.Query[HostIn, *HostRoutes]
	// RoutedBy are the objects that route a host, as they write it, for sidecars, by key.
	RoutedBy *derive.Query[mesh.Hostname, []source.Key]
	// Rules are those for one service as clients of a namespace see it; never nil.
	Rules *derive.Query[RuleFor, *Rules]

	// Listeners are the ports that a gateway proxy opens, by port and bind.
	Listeners *derive.Query[Subject, []Listener]
	// VirtualHosts are the hosts of a route table of a gateway with their merged routes, by host. A host that
	// did not change is the same pointer as before.
	VirtualHosts *derive.Query[Table, []*VirtualHost]
	// L4Routes are the TLS and TCP routes bound to one server.
	L4Routes *derive.Query[ServerKey, *L4Routes]

	// PeerAuth is the mutual TLS that a workload demands; never nil.
	PeerAuth *derive.Query[Subject, *PeerAuth]
	// Authorization is what applies to a workload; never nil.
	Authorization *derive.Query[Subject, *Authorization]
	// AccessLog is whether and what a workload's proxy logs; never nil.
	AccessLog *derive.Query[Subject, *AccessLog]

	settings *derive.Table[struct{}, *Settings]
}

// Set replaces the settings. Domain, TrustDomain, RootNamespace, HTTP10 and the default visibilities are what they were when
// the mesh was built: front ends have compiled them in.
func (w *Wishes) Set(tx *derive.Tx, s Settings) { w.settings.Set(tx, struct{}{}, &s) }

// A Subject is a workload as selectors see it: two with the same labels are one.
type Subject struct {
	Namespace mesh.Namespace
	labels    string // sorted and quoted
}

// NewSubject makes a Subject.
func NewSubject(ns mesh.Namespace, labels mesh.Labels) Subject {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(strconv.Quote(k))
		b.WriteString(strconv.Quote(labels[k]))
	}
	return Subject{ns, b.String()}
}

// Labels are the labels that the Subject was made from.
func (s Subject) Labels() mesh.Labels {
	l := mesh.Labels{}
	for rest := s.labels; rest != ""; {
		var k, v string
		k, rest = unquoteFirst(rest)
		v, rest = unquoteFirst(rest)
		l[k] = v
	}
	return l
}

func unquoteFirst(s string) (first, rest string) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", ""
	}
	first, _ = strconv.Unquote(q)
	return first, s[len(q):]
}

// A Scope is all that decides which hosts a client sees: its namespace, the Sidecar in force (zero
// for the default one), and the egress listener, as an index of Sidecar.Egress. Workloads that share it share results.
type Scope struct {
	Namespace mesh.Namespace
	Sidecar   source.Key
	Egress    int
}

// HostIn is a host in a scope.
type HostIn struct {
	Scope Scope
	Host  mesh.Hostname // complete
}

// HostRoutes are the routes of one host for sidecars. Matches that can never hold for sidecars of the scope
// (other gateways, other namespaces) are gone; source labels are still to be compared, see For.
type HostRoutes struct {
	Object source.Key
	// Host is as the object has it: the host itself or a wildcard that covers it.
	Host mesh.Hostname
	HTTP []HTTPRoute
	TLS  []L4Route
	TCP  []L4Route
}

// RuleFor is a service seen by clients of a namespace.
type RuleFor struct {
	Client  mesh.Namespace
	Service registry.ServiceKey // Namespace may be empty for a host without a service
}

// Rules are the traffic rules that may apply; which one does depends on the client's labels.
type Rules struct {
	Selective []*TrafficRule // of the client's namespace, with a selector; the first that matches
	General   *TrafficRule   // or else this; nil if there is none
}

// For is the rule for a client with these labels, or nil.
func (r *Rules) For(client mesh.Labels) *TrafficRule {
	for _, rule := range r.Selective {
		if rule.Selector.Match(client) {
			return rule
		}
	}
	return r.General
}

// A Table is a route table of a gateway proxy: all plaintext servers of a listener together (Server -1),
// or one server that terminates TLS, by its index in Listener.Servers.
type Table struct {
	Subject Subject
	Port    int
	Bind    string
	Server  int
}

// A ServerKey is one server of a Gateway, by its index in Gateway.Servers, as proxies of a namespace open it.
type ServerKey struct {
	Namespace mesh.Namespace
	Gateway   source.Key
	Server    int
}

// L4Routes are the TLS and TCP routes bound to a server, in order.
type L4Routes struct {
	TLS []L4Route
	TCP []L4Route
}

// AccessLog is a proxy's access log.
type AccessLog struct {
	Disabled bool
	// File, JSON and Format are as in Settings; File is never empty unless Disabled.
	File    string
	JSON    bool
	Format  string
	Origins []source.Origin
}
