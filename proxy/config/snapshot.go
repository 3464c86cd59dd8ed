// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/filter"
)

// A Snapshot is all that is in force at one time. It is immutable; the next one
// shares whatever did not change, so that comparing pointers tells what did.
type Snapshot struct {
	// Serial counts snapshots, from 1.
	Serial uint64
	// Listeners are those that are ready, by name.
	Listeners []*Listener
	byName    map[string]*Listener
}

// NewSnapshot returns a snapshot of listeners that did not come from a Store, for
// tests and for listeners of the proxy's own. It makes their chains ready to be
// chosen from; equal matches are an error.
func NewSnapshot(serial uint64, listeners ...*Listener) (*Snapshot, error) {
	s := &Snapshot{Serial: serial, Listeners: listeners, byName: map[string]*Listener{}}
	for _, l := range listeners {
		var err error
		if l.tree, err = newChainTree(l.Chains); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
		s.byName[l.Name] = l
	}
	return s, nil
}

// Listener returns the listener of that name, or nil.
func (s *Snapshot) Listener(name string) *Listener { return s.byName[name] }

// Wanted is what must be subscribed to by name, each list sorted.
type Wanted struct {
	Endpoints []string // ClusterLoadAssignment: EDS service names
	Routes    []string // RouteConfiguration
	Secrets   []string // Secret over ADS
	Clusters  []string // Cluster: on demand, besides those that come unasked
	Listeners []string // Listener: the same
}

// A Listener is an address with filter chains. A new pointer under the same name
// means that something differs; see SameSocket.
type Listener struct {
	Name    string
	Hash    uint64 // of the resource; equal means nothing changed
	Source  string // provenance, may be ""
	Version string // of the update that brought it

	Addrs     []Address // the address and additional_addresses
	Direction filter.Direction
	// Bind is false for a listener that only takes over connections which
	// another one with HandOff has accepted.
	Bind bool
	// HandOff gives a connection to the listener whose address is its original
	// destination: the exact one, else that port on the wildcard address, else
	// it stays here (use_original_dst).
	HandOff bool
	// OriginalDst restores the address the client wanted (listener filter
	// original_dst; implied by HandOff).
	OriginalDst bool
	Transparent bool
	// ProxyProtocol expects that header first; nil without.
	ProxyProtocol *ProxyProtocol
	// TLSInspector and HTTPInspector look at the first bytes; nil without.
	TLSInspector, HTTPInspector *Inspector
	// InspectTimeout bounds PROXY protocol, and how long a silent client is waited for; 0: nothing does.
	InspectTimeout time.Duration
	// ContinueOnTimeout chooses a chain with what is known then, instead of closing.
	ContinueOnTimeout bool

	Chains  []*FilterChain // by order of configuration
	Default *FilterChain   // nil: no match closes the connection (NR)
	tree    chainTree

	BufferLimit uint32 // bytes per connection and direction, soft; default 1 MiB
	AccessLogs  []AccessLog
}

// SameSocket says whether l and o listen in the same way, so that the socket and
// the connections of chains that stayed may be kept.
func (l *Listener) SameSocket(o *Listener) bool {
	if l.Bind != o.Bind || l.Transparent != o.Transparent || len(l.Addrs) != len(o.Addrs) {
		return false
	}
	for i := range l.Addrs {
		if l.Addrs[i] != o.Addrs[i] {
			return false
		}
	}
	return true
}

// An Address is where to listen: exactly one field is set.
type Address struct {
	IP       netip.AddrPort
	Pipe     string // path of a Unix socket; "@" first: abstract
	Internal string // name of an internal listener
}

// String is "1.2.3.4:80", "[::]:80", the path, or "internal:NAME".
func (a Address) String() string {
	switch {
	case a.Pipe != "":
		return a.Pipe
	case a.Internal != "":
		return "internal:" + a.Internal
	}
	return a.IP.String()
}

// ProxyProtocol is the listener filter of that name.
type ProxyProtocol struct {
	// Optional takes connections without the header, too
	// (allow_requests_without_proxy_protocol).
	Optional bool
	V1, V2   bool // accepted versions
}

// An Inspector is a listener filter that looks at the first bytes.
type Inspector struct {
	// Disabled says for which connections it does not run; nil: it always runs.
	Disabled *Predicate
	// Limit of bytes to wait for; 0: the inspector's own (16 KiB for TLS, 8 KiB for HTTP).
	Limit uint32
}

// A Predicate is a condition on a connection (ListenerFilterChainMatchPredicate).
type Predicate struct {
	Op    PredicateOp
	Of    []Predicate // PredicateAnd, PredicateOr; one for PredicateNot
	Ports match.Ports // PredicatePort: the destination's
}

// PredicateOp is what a Predicate says.
type PredicateOp uint8

// The kinds of Predicate.
const (
	PredicateAny PredicateOp = iota
	PredicateAnd
	PredicateOr
	PredicateNot
	PredicatePort
)

// Match says whether the predicate holds for a connection to local.
func (p *Predicate) Match(local netip.AddrPort) bool {
	switch p.Op {
	case PredicateAny:
		return true
	case PredicatePort:
		return p.Ports.Contains(local.Port())
	case PredicateNot:
		return !p.Of[0].Match(local)
	case PredicateAnd:
		for i := range p.Of {
			if !p.Of[i].Match(local) {
				return false
			}
		}
		return true
	case PredicateOr:
		for i := range p.Of {
			if p.Of[i].Match(local) {
				return true
			}
		}
	}
	return false
}

// A FilterChain is what happens to a connection: TLS, network filters, and
// exactly one of HTTP, TCP and OnDemand. Chains that did not change keep their
// pointer from one snapshot to the next.
type FilterChain struct {
	Name string // as configured, may be ""
	Hash uint64
	// Listener it belongs to, for logs.
	Listener string
	Source   string // provenance, may be ""
	Match    ChainMatch

	TLS *TLS // nil: bytes are passed as they come
	// HandshakeTimeout bounds TLS (transport_socket_connect_timeout); 0: none.
	HandshakeTimeout time.Duration

	// Network filters before the last one, in order.
	Network []NetworkFilter

	HTTP     *HTTP
	TCP      *TCP
	OnDemand *OnDemand

	needs needs
	outer uint64 // see Succeeds
}

// needs is what must have arrived before a chain can serve.
type needs struct {
	routes  []need
	secrets []secrets.Want
}

// A need is a resource by name, and how long to wait for it; 0: forever.
type need struct {
	name    string
	timeout time.Duration
}

// OnDemand is the chain of a proxy that learns of destinations as it meets them.
type OnDemand struct {
	HTTP *HTTP // RouteName is replaced by "host:port" of the destination
	TCP  *TCP  // the cluster is replaced by "outbound|port||host"
}

// A TLS terminates TLS. Config is complete: it reads certificates and roots
// live, so that rotation needs no new chain.
type TLS struct {
	Config            *tls.Config
	RequireClientCert bool
	ALPN              []string
	// Ready returns an error while a certificate or root that Config needs is
	// missing; connections are reset then. Nil: always ready.
	Ready func() error
	// Own returns the certificate we present now; nil if there is none.
	Own func() *x509.Certificate
	// AcceptUntrusted: a client certificate may come and proves nothing, because
	// it is not verified. The connection is then never mutual.
	AcceptUntrusted bool
}

// An AccessLog is one log to write to.
type AccessLog struct {
	Path      string         // of the file; /dev/stdout
	Text      string         // format; "" with no JSON: Envoy's default
	JSON      map[string]any // format, as decoded from a Struct; nil: text
	OmitEmpty bool
	Filter    *LogFilter // nil: everything
}

// A LogFilter chooses what is logged (envoy.config.accesslog.v3.AccessLogFilter).
type LogFilter struct {
	Op LogFilterOp
	// LogStatus and LogDuration: Compare with Value (a status, milliseconds).
	Compare Compare
	Value   uint32
	Flags   filter.Flags // LogFlags: any of these; 0: any flag at all
	Header  match.Header // LogHeader
	Of      []LogFilter  // LogAnd, LogOr
}

// LogFilterOp is what a LogFilter asks.
type LogFilterOp uint8

// The kinds of LogFilter.
const (
	LogStatus LogFilterOp = iota
	LogDuration
	LogNotHealthCheck
	LogTraceable
	LogFlags
	LogHeader
	LogAnd
	LogOr
)

// Compare is how a number is compared (ComparisonFilter.op).
type Compare uint8

// The comparisons.
const (
	Equal Compare = iota
	AtLeast
	AtMost
	NotEqual
)
