// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// A Discovery is how a cluster finds its endpoints (Envoy Cluster.type).
type Discovery uint8

// The ways to find endpoints.
const (
	Static      Discovery = iota // Spec.Endpoints
	EDS                          // Set.Assign
	StrictDNS                    // every address of each name in Spec.Endpoints
	LogicalDNS                   // the first address of the one name
	OriginalDst                  // where the client wanted to go
)

// A Family says which addresses of a name are used (Envoy Cluster.dns_lookup_family).
type Family uint8

// The families. Where Envoy looks for IPv6 first, AnyFamily uses all there is.
const (
	AnyFamily  Family = iota // AUTO, ALL
	OnlyIPv4                 // V4_ONLY
	OnlyIPv6                 // V6_ONLY
	PreferIPv4               // V4_PREFERRED: IPv6 only where there is no IPv4
)

// A Protocol says which HTTP version to speak to endpoints.
type Protocol uint8

// The choices of Envoy's HttpProtocolOptions.
const (
	HTTP1        Protocol = iota
	HTTP2                 // explicit_http_config.http2_protocol_options
	SameAsClient          // use_downstream_protocol_config
)

// A Spec is a cluster's configuration: immutable, made by config, compared by Hash.
type Spec struct {
	Name     string
	StatName string // alt_stat_name without a trailing ";"; Name if unset
	Hash     uint64 // of the whole resource; equal means nothing changed
	// ConnHash covers what an open connection depends on: transports, protocol,
	// bind source, keepalive. Pools survive a new Spec with an equal ConnHash.
	ConnHash uint64
	Source   string // provenance for explain: "DestinationRule default/reviews (rules.yaml:12)", may be ""

	Discovery   Discovery
	ServiceName string      // EDS name; Name if unset
	Endpoints   *Assignment // Static and DNS; names in Endpoint.Hostname for DNS
	DNSRefresh  time.Duration
	DNSFamily   Family

	ConnectTimeout       time.Duration // covers TCP and TLS; Envoy default 5 s
	Protocol             Protocol
	IdleTimeout          time.Duration // of pooled connections; default 1 h, 0 disables
	KeepIdle             bool          // somebody has asked for IdleTimeout: none is closed before
	MaxRequestsPerConn   uint32        // 0: no limit
	MaxConcurrentStreams uint32        // HTTP/2; 0: 1024
	// MaxConnDuration is how old a pooled connection may become
	// (max_connection_duration); then it takes no more requests and closes when
	// those it has are over. 0: no limit.
	MaxConnDuration time.Duration
	// PingAfter is how long an HTTP/2 connection may be silent before it is asked
	// whether it is alive, PingTimeout how long the answer may take; then it is
	// closed (connection_keepalive). 0: never.
	PingAfter, PingTimeout time.Duration
	// AutoSNI: whoever makes a Request sets its SNI to the host asked for
	// (auto_sni); without it Request.SNI stays "" and the transport's own is sent.
	AutoSNI      bool
	TCPKeepalive *Keepalive
	BindSource   netip.Addr // upstream_bind_config.source_address, e.g. 127.0.0.6; invalid: none
	PortOverride uint16     // original_dst_lb_config.upstream_port_override

	Balance  balance.Config
	Breakers Breakers
	Outlier  *Outlier

	// Transports are tried in order: the first whose Match is a subset of the
	// endpoint's Match is used (Envoy transport_socket_matches); Default otherwise.
	Transports []Transport
	Default    Transport

	// PeerExchange says who we are ahead of a connection's bytes, where that was agreed on by ALPN; nil: nowhere.
	PeerExchange []byte

	// Telemetry facts from metadata.filter_metadata.istio.
	Service  ServiceFact
	External bool // metadata istio.external
	NoMX     bool // metadata istio.disable_mx
	NoALPN   bool // metadata istio.alpn_override == "false"
}

// A ServiceFact names the service behind a cluster, for metric labels.
type ServiceFact struct{ Host, Name, Namespace string }

// A Keepalive sets TCP keep-alive probes; zero fields keep the kernel's value.
type Keepalive struct {
	Probes   uint32
	Time     time.Duration
	Interval time.Duration
}

// Breakers are the thresholds of priority DEFAULT; Envoy's defaults are 1024, 1024, 1024, 3.
type Breakers struct {
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	BudgetPercent                                       float64 // >0: retry_budget instead of MaxRetries
	BudgetMin                                           uint32
}

// Outlier is Envoy's OutlierDetection with its defaults filled in.
type Outlier struct {
	Consecutive5xx, EnforcingConsecutive5xx         uint32 // default 5, 100
	ConsecutiveGateway, EnforcingConsecutiveGateway uint32 // default 5, 0
	SplitLocal                                      bool
	ConsecutiveLocal, EnforcingConsecutiveLocal     uint32        // default 5, 100
	Interval, BaseEjection, MaxEjection             time.Duration // 10 s, 30 s, 300 s
	MaxEjectionPercent                              uint32        // default 10
}

// A Transport is how to secure connections to some endpoints.
type Transport struct {
	Name  string
	Match map[string]string // endpoint metadata envoy.transport_socket_match
	// TLS is nil for plaintext. It is complete but for NextProtos, which the
	// pool sets from ALPN: it reads certificates live, so rotation needs no new Spec.
	TLS *tls.Config
	// ALPN offered; by the HTTP version spoken when ByVersion is set (Istio's
	// istio.alpn filter: istio-http/1.1, istio-h2 …).
	ALPN      []string
	ALPNHTTP1 []string // nil: ALPN
	ALPNHTTP2 []string // nil: ALPN
	// ProxyProtocol 1 or 2 writes that header first; 0 none.
	ProxyProtocol uint8
	// Mutual is true if a client certificate is presented (for metrics: mutual_tls).
	Mutual bool
	// Broken, if not nil, says why no connection can be made (a missing secret).
	Broken func() error
}

// An Assignment is the endpoints of one cluster (Envoy ClusterLoadAssignment).
type Assignment struct {
	Localities       []Locality
	Overprovisioning uint32 // percent; default 140
}

// A Locality groups endpoints of one place and priority.
type Locality struct {
	Region, Zone, SubZone string
	Weight, Priority      uint32
	Endpoints             []Endpoint
}

// A Health is what the control plane says of an endpoint.
type Health uint8

// The states; Unknown counts as healthy.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
	Draining
	Degraded
)

// An Endpoint is one address.
type Endpoint struct {
	Addr     netip.AddrPort
	Pipe     string // unix socket path instead of Addr
	Hostname string // the name to resolve for DNS clusters, with Addr.Port() as port
	Weight   uint32 // default 1
	Health   Health
	Match    map[string]string // envoy.transport_socket_match
	Workload string            // metadata istio.workload "name;ns;canonical;revision;cluster"
	HashKey  string            // metadata envoy.lb.hash_key
}

// A Request is what balancing and pooling may know of an exchange. The caller
// keeps one per exchange; methods of Cluster read it and do not keep it.
type Request struct {
	Version     message.Version // the client's
	Hash        uint64          // from the route's hash policy
	HasHash     bool
	OriginalDst netip.AddrPort // for OriginalDst clusters
	Client      netip.AddrPort // for ProxyProtocol
	SNI         string
	Tried       []*Host // addresses already attempted (previous_hosts); nil: none
	MaxReselect int     // host_selection_retry_max_attempts
	// AvoidEvery, if positive, leaves out the priorities of hosts in Tried, anew
	// every so many attempts (previous_priorities.update_frequency).
	AvoidEvery int
	Random     uint64 // the exchange's random number; 0: the cluster draws one
	// Deadline bounds Dial, on top of ConnectTimeout; zero: none. Open waits no longer
	// than it and Until, but leaves to others the connection that it began to open.
	Deadline, Until time.Time
	Caller          Caller // nil: nobody who could go
	Upgrade         bool   // needs HTTP/1.1 or extended CONNECT
}

// A Caller is who a Request is for. Nobody asks it while a connection is free at once.
type Caller interface {
	// Done returns a channel that is closed when the caller wants no connection any more.
	Done() <-chan struct{}
	// Cancelled returns why that is so, nil if it is not.
	Cancelled() *fault.Fault
}

// done is closed when r is not wanted any more.
func (r *Request) done() <-chan struct{} {
	if r.Caller == nil {
		return nil
	}
	return r.Caller.Done()
}

// cancelled returns why r is not wanted any more, or nil.
func (r *Request) cancelled() *fault.Fault {
	if r.Caller == nil {
		return nil
	}
	return r.Caller.Cancelled()
}

// patience is when r stops waiting for a connection, at the latest by limit; zero: never.
func (r *Request) patience(limit time.Time) time.Time {
	for _, t := range [...]time.Time{r.Deadline, r.Until} {
		if !t.IsZero() && (limit.IsZero() || t.Before(limit)) {
			limit = t
		}
	}
	return limit
}
