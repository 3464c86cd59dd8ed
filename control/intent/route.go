// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// GatewayMesh in a list of gateways stands for every sidecar.
const GatewayMesh GatewayName = "mesh"

// A GatewayName is namespace/name, or GatewayMesh.
type GatewayName string

// A RouteSet is what one object wants for the traffic to its hosts.
type RouteSet struct {
	Object   source.Key
	Hosts    []mesh.Hostname // complete names; empty for a delegate
	Gateways []GatewayName   // never empty, but for a delegate
	ExportTo registry.Visibility
	HTTP     []HTTPRoute
	TLS      []L4Route
	TCP      []L4Route
}

// An HTTPRoute says what becomes of the requests that match it. Of Forward,
// Redirect, Direct and Delegate exactly one is set.
type HTTPRoute struct {
	Origin source.Origin
	// Origins are the further objects that had a part in it: the delegate's root.
	Origins []source.Origin
	Name    string
	Matches []HTTPMatch // any of them; none: every request

	Forward  []Destination
	Redirect *Redirect
	Direct   *DirectResponse
	Delegate *source.Key // resolved before a back end sees the route

	Rewrite *Rewrite
	Timeout time.Duration // zero: none
	Retries *Retries      // nil: the mesh's default
	Fault   *Fault
	Mirrors []Mirror
	CORS    *CORS
	Headers Headers
}

// An HTTPMatch holds if all of its parts do.
type HTTPMatch struct {
	Origin       source.Origin
	Name         string
	StatPrefix   string
	URI          *StringMatch
	IgnoreCase   bool // of an exact or prefix URI
	Scheme       *StringMatch
	Method       *StringMatch
	Authority    *StringMatch
	Headers      []NamedMatch // sorted by name
	NotHeaders   []NamedMatch
	Query        []NamedMatch
	Claims       []ClaimMatch // headers named @request.auth.claims
	Port         int          // of the listener; zero: any
	SourceLabels mesh.Labels  // of the sidecar or gateway that routes, as is SourceNS
	SourceNS     mesh.Namespace
	Gateways     []GatewayName // where it holds; never empty
}

// MatchKind is how a string is compared.
type MatchKind uint8

const (
	Exact MatchKind = iota
	Prefix
	Regex   // RE2, the whole string
	Present // whatever the value
)

// String is the kind in one word.
func (k MatchKind) String() string {
	return [...]string{"exact", "prefix", "regex", "present"}[min(int(k), 3)]
}

// A StringMatch is a condition on a string.
type StringMatch struct {
	Kind  MatchKind
	Value string
}

// A NamedMatch is a condition on a header or query parameter.
type NamedMatch struct {
	Name string // lower case for headers
	StringMatch
}

// A ClaimMatch is a condition on a claim of a verified token.
type ClaimMatch struct {
	Path []string
	Not  bool
	StringMatch
}

// A Destination takes a share of a route's requests.
type Destination struct {
	Origin source.Origin
	Host   mesh.Hostname // complete
	Subset string
	Port   int // zero: the service's only port, or else the one the request was sent to
	Weight uint32
	// Headers are changed for this destination alone.
	Headers Headers
}

// A Redirect answers with another address.
type Redirect struct {
	Path       string // replaces the whole path
	PathPrefix string // replaces the matched prefix
	Authority  string
	Scheme     string
	Port       int  // zero: see DerivePort
	DerivePort Port // where no Port is given
	Code       int  // 301, 302, 303, 307 or 308
}

// Port says which port a redirect names.
type Port uint8

const (
	PortUnset    Port = iota // as Authority says
	PortProtocol             // the default of the scheme
	PortRequest              // the request's own
)

// A DirectResponse answers without asking anybody.
type DirectResponse struct {
	Status int
	Body   []byte
}

// A Rewrite changes a request before it is forwarded. Of URI and Regex one is empty.
type Rewrite struct {
	URI       string // in place of the matched prefix, or of the whole path if the match was no prefix
	Regex     string // RE2; Subst may name its groups as \1
	Subst     string
	Authority string
}

// Retries say when a failed request is tried again.
type Retries struct {
	Attempts         int           // after the first; zero: never
	PerTry           time.Duration // zero: the route's timeout
	On               []string      // Envoy's conditions; empty: the default ones
	Codes            []int         // further statuses that are retried
	RemoteLocalities bool
	SameHosts        bool // an endpoint that failed may be tried again (retryIgnorePreviousHosts: false)
	Backoff          time.Duration
}

// A Fault is injected on purpose.
type Fault struct {
	Delay        time.Duration
	DelayPercent float64
	AbortStatus  int    // HTTP status; zero if AbortGRPC is set or nothing is aborted
	AbortGRPC    string // name of a gRPC status
	AbortPercent float64
}

// A Mirror sends a copy of requests to a destination whose answers nobody sees.
type Mirror struct {
	Origin  source.Origin
	Host    mesh.Hostname
	Subset  string
	Port    int
	Percent float64
}

// CORS answers browsers that ask whether another origin may call.
type CORS struct {
	Origins          []StringMatch
	Methods          []string
	Headers          []string
	Expose           []string
	MaxAge           time.Duration // zero: not said
	Credentials      *bool
	IgnorePreflights bool // unmatched preflights are answered here, not forwarded
}

// Headers are changes to the headers of requests and responses.
type Headers struct {
	Request, Response HeaderOps
}

// HeaderOps are applied in this order: Remove, Set, Add. Names are lower case and sorted.
type HeaderOps struct {
	Remove []string
	Set    []Header
	Add    []Header
}

// A Header is a field. Its value may hold Envoy's %COMMANDS%.
type Header struct{ Name, Value string }

// An L4Route says where the connections go that match it.
type L4Route struct {
	Origin  source.Origin
	Matches []L4Match // any of them; none: every connection
	Forward []Destination
}

// An L4Match holds if all of its parts do.
type L4Match struct {
	Origin       source.Origin
	SNI          []mesh.Hostname // TLS routes only
	Subnets      []netip.Prefix  // of the original destination
	Port         int
	SourceLabels mesh.Labels
	SourceNS     mesh.Namespace
	Gateways     []GatewayName // where it holds; never empty
}
