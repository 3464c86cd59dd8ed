// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"time"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A TrafficRule says how clients treat the endpoints of a host: after routing, before dialling.
type TrafficRule struct {
	Origins   []source.Origin // more than one if objects were merged; the first gave the policy
	Host      mesh.Hostname
	Namespace mesh.Namespace
	Selector  mesh.Labels // of the clients it is for, in its own namespace; empty: all
	ExportTo  registry.Visibility
	Policy    TrafficPolicy
	Subsets   []Subset // by order of writing
}

// A Subset is those endpoints that carry its labels.
type Subset struct {
	Origin source.Origin
	Name   string
	Labels mesh.Labels
	Policy TrafficPolicy
}

// TrafficPolicy is a set of settings; nil means that nothing was said.
type TrafficPolicy struct {
	ClusterPolicy
	Ports []PortPolicy
}

// ClusterPolicy holds the settings of one cluster.
type ClusterPolicy struct {
	LoadBalancer  *LoadBalancer
	Pool          *ConnectionPool
	Outliers      *Outliers
	TLS           *ClientTLS
	ProxyProtocol int // version of the PROXY header to send; zero: none
	RetryBudget   *RetryBudget
}

// A PortPolicy replaces the settings for one port: what it leaves out of load balancer,
// pool, outliers and TLS falls back to the default, not to the policy around it.
type PortPolicy struct {
	Port int
	ClusterPolicy
}

// Algorithm chooses among endpoints.
type Algorithm uint8

const (
	LeastRequest Algorithm = iota // also what UNSPECIFIED means
	RoundRobin
	Random
	Passthrough // the original destination
	RingHash
	Maglev
)

// String is the algorithm in one word.
func (a Algorithm) String() string {
	return [...]string{"LeastRequest", "RoundRobin", "Random", "Passthrough", "RingHash", "Maglev"}[min(int(a), 5)]
}

// LoadBalancer says how an endpoint is chosen.
type LoadBalancer struct {
	Algorithm Algorithm
	Hash      *Hash  // for RingHash and Maglev
	TableSize uint64 // of the ring (its minimum) or the Maglev table; zero: default
	Locality  *LocalityLB
	Warmup    *Warmup
}

// Hash says what keeps a client at its endpoint. One of the first five is set.
type Hash struct {
	Header   string
	Query    string
	SourceIP bool
	Cookie   *Cookie
}

// Cookie keeps a client at its endpoint.
type Cookie struct {
	Name, Path string
	TTL        *time.Duration // nil: no cookie is made, one that is there is used
	Attributes []Header
}

// LocalityLB prefers or weighs localities.
type LocalityLB struct {
	Enabled    *bool // nil: as the mesh says
	Distribute []Distribute
	Failover   []Failover
	Priority   []string // failoverPriority: label keys, or key=value
}

// Distribute spreads what leaves one locality.
type Distribute struct {
	From string
	To   []LocalityWeight // sorted by locality
}

// LocalityWeight is a share in percent.
type LocalityWeight struct {
	Locality string
	Percent  uint32
}

// Failover names the region that takes over for another.
type Failover struct{ From, To string }

// Warmup sends few requests to an endpoint that has just appeared.
type Warmup struct {
	Duration       time.Duration
	MinimumPercent float64 // zero: 10
	Aggression     float64 // zero: 1
}

// ConnectionPool limits connections and requests. Zero means that nothing was said.
type ConnectionPool struct {
	MaxConnections int
	ConnectTimeout time.Duration
	Keepalive      *Keepalive
	MaxDuration    time.Duration
	TCPIdle        *time.Duration // nil: default; zero: never

	MaxPending       int
	MaxRequests      int
	MaxPerConnection int
	MaxRetries       int
	HTTPIdle         *time.Duration
	H2Upgrade        H2Upgrade
	ClientProtocol   bool // speak to the endpoint what the client spoke to us
	MaxStreams       int
	PingInterval     time.Duration
	PingTimeout      time.Duration
}

// H2Upgrade says whether HTTP/1.1 requests travel over HTTP/2.
type H2Upgrade uint8

const (
	H2Default H2Upgrade = iota // as the mesh says
	H2Never
	H2Always
)

// Keepalive is TCP's; zero means the operating system's default.
type Keepalive struct {
	Probes         int
	Time, Interval time.Duration
}

// Outliers says when an endpoint is set aside. A nil threshold means that nothing was said.
type Outliers struct {
	Consecutive5xx     *uint32
	ConsecutiveGateway *uint32
	ConsecutiveLocal   *uint32
	SplitLocal         bool
	Interval           time.Duration
	BaseEjection       time.Duration
	MaxEjectionPercent int
	MinHealthPercent   int
	Codes              []int // statuses that count as errors
}

// TLSMode is how a client secures connections to a host.
type TLSMode uint8

const (
	TLSDisable TLSMode = iota
	TLSSimple
	TLSMutual
	TLSMesh // ISTIO_MUTUAL: the mesh's own certificates
)

// String is the mode as Istio writes it.
func (m TLSMode) String() string {
	return [...]string{"DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"}[min(int(m), 3)]
}

// ClientTLS secures connections to endpoints.
type ClientTLS struct {
	Mode            TLSMode
	Certificate     string // files of the proxy
	PrivateKey      string
	CA              string
	CRL             string
	Credential      string // name of a secret
	SubjectAltNames []string
	SNI             string
	SkipVerify      bool
}

// RetryBudget bounds retries by a share of the requests.
type RetryBudget struct {
	Percent        *float64
	MinConcurrency uint32
	Interval       time.Duration
}
