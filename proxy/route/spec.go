// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"time"

	"github.com/meltemi/meltemi/match"
)

// A Config is a route table as configured (RouteConfiguration). Compile keeps
// what it points to, and fills in what routes take over from their virtual host;
// nobody writes to it afterwards, nor does Compile if a virtual host comes again in another table.
type Config struct {
	Name         string
	Source       string // provenance, may be ""
	VirtualHosts []*VirtualHost
	// IgnorePort compares hosts without their port (ignore_port_in_host_matching).
	IgnorePort bool
	// MostSpecificWins applies header operations of the table first and of the
	// route last (most_specific_header_mutations_wins).
	MostSpecificWins bool
	RequestHeaders   HeaderOps
	ResponseHeaders  HeaderOps
	InternalOnly     []string // response headers removed for external requests (internal_only_headers)
}

// A VirtualHost is the routes of some hosts.
type VirtualHost struct {
	Name, Source string
	// Domains are exact, "*.suffix", "prefix.*" or "*"; compared without case.
	Domains         []string
	Routes          []Route
	RequireTLS      RequireTLS
	RequestHeaders  HeaderOps
	ResponseHeaders HeaderOps
	Retry           *Retry       // for forwarding routes that have none
	Mirrors         []Mirror     // for forwarding routes that have none
	Hash            []HashPolicy // for forwarding routes that have none
	AttemptCount    bool         // x-envoy-attempt-count to the upstream (include_request_attempt_count)
	AttemptCountOut bool         // and to the client (include_attempt_count_in_response)
}

// RequireTLS says which plaintext requests a virtual host redirects to https.
type RequireTLS uint8

// The values of VirtualHost.TlsRequirementType.
const (
	RequireNone RequireTLS = iota
	RequireExternal
	RequireAll
)

// A Route is conditions and what to do when they hold: exactly one of Forward,
// Redirect and Direct is set.
type Route struct {
	Name, Source    string
	Match           Match
	Forward         *Forward
	Redirect        *Redirect
	Direct          *Direct
	RequestHeaders  HeaderOps
	ResponseHeaders HeaderOps
	Decorator       *Decorator
	StatPrefix      string
	BufferLimit     int64 // bytes of a request kept for retries; 0: the listener's
}

// A Match is the conditions of a route; all must hold (RouteMatch).
type Match struct {
	Path      PathMatch
	Headers   []match.Header
	Query     []match.Query
	Metadata  []match.MetadataValue // dynamic metadata, such as JWT claims
	Fraction  *Fraction             // runtime_fraction.default_value
	GRPC      bool                  // only gRPC requests
	Presented *bool                 // client certificate presented (tls_context)
	Validated *bool                 // client certificate validated (tls_context)
}

// A PathKind is how a path is compared. Query and fragment are never part of it.
type PathKind uint8

// The kinds of path_specifier.
const (
	PathPrefix   PathKind = iota
	PathExact             // path
	PathSegments          // path_separated_prefix: "/a" matches /a and /a/b, not /ab
	PathRegex             // safe_regex
	PathConnect           // connect_matcher: CONNECT and extended CONNECT
	PathTemplate          // path_match_policy uri_template
)

// A PathMatch is a condition on the path.
type PathMatch struct {
	Kind       PathKind
	Value      string
	IgnoreCase bool // case_sensitive: false; not for PathRegex and PathTemplate
}

// A Fraction is Of parts per Per: 1 per 100, 10,000 or 1,000,000.
type Fraction struct{ Of, Per uint32 }

// A Forward sends the request to a cluster (RouteAction). Config fills in
// Envoy's defaults: a Timeout of 0 really means none.
type Forward struct {
	Clusters       []Weighted // one, or several with weights
	Random         string     // request header with the random number for the choice (weighted_clusters.header_name)
	NotFoundStatus int        // when the cluster is not known; 503 if 0

	Timeout        time.Duration  // whole exchange, retries included; 0: none
	MaxGRPCTimeout *time.Duration // honour grpc-timeout up to this; 0: any; nil: do not
	GRPCOffset     time.Duration  // subtracted from grpc-timeout
	Stream         *StreamLimit
	IdleTimeout    *time.Duration // of the stream; nil: the connection manager's; 0: none

	Retry   *Retry
	Rewrite Rewrite
	Mirrors []Mirror
	Hash    []HashPolicy
	// Upgrades override the connection manager's list, by lower-case name.
	Upgrades []Upgrade
}

// A Weighted is one choice of a Forward.
type Weighted struct {
	Cluster         string
	Weight          uint32 // ignored if it is the only choice
	RequestHeaders  HeaderOps
	ResponseHeaders HeaderOps
	HostLiteral     string // host_rewrite_literal
}

// A StreamLimit is RouteAction.max_stream_duration; present, it replaces
// Timeout and MaxGRPCTimeout.
type StreamLimit struct {
	Max        *time.Duration // 0: none; nil: the connection manager's
	GRPCMax    *time.Duration // cap on grpc-timeout; 0: no cap; nil: grpc-timeout is not used
	GRPCOffset time.Duration
}

// An Upgrade allows or forbids an upgrade (RouteAction.UpgradeConfig).
type Upgrade struct {
	Type    string // lower case: "websocket", "connect"
	Enabled bool
	// Terminate turns CONNECT into raw bytes to the upstream (connect_config).
	Terminate bool
	AllowPost bool // POST requests, too, are turned into raw bytes
}

// A Rewrite changes what the upstream sees. At most one of Prefix, Regex and
// Path, and at most one of the Host fields, is set.
type Rewrite struct {
	Prefix      string // replaces what Match.Path matched (prefix_rewrite)
	Regex       *RegexRewrite
	Path        string // replaces the whole path, query apart (path_rewrite); a format with %COMMANDS%
	HostLiteral string
	HostHeader  string        // host_rewrite_header
	HostRegex   *RegexRewrite // host_rewrite_path_regex: from the path
	HostAuto    bool          // auto_host_rewrite: the endpoint's name
	// ForwardedHost appends the old authority to x-forwarded-host if it changes.
	ForwardedHost bool
}

// A RegexRewrite replaces every match of an RE2 expression; \1 to \9 in
// Substitution are its groups, \0 the match.
type RegexRewrite struct{ Pattern, Substitution string }

// A Redirect answers with another location (RedirectAction).
type Redirect struct {
	Scheme string // "" keeps it; https_redirect is "https"
	Host   string // "" keeps it
	Port   uint32 // 0 keeps it
	// At most one of Path, Prefix and Regex is set.
	Path       string // replaces path and query if it has one
	Prefix     string
	Regex      *RegexRewrite
	HasPrefix  bool // Prefix counts although it is ""
	Status     int  // 301, 302, 303, 307 or 308
	StripQuery bool
}

// A Direct answers by itself (DirectResponseAction).
type Direct struct {
	Status int
	Body   string
}

// A Decorator names the operation of a trace span.
type Decorator struct {
	Operation string
	Propagate bool
}

// A Mirror sends copies of requests elsewhere (RequestMirrorPolicy).
type Mirror struct {
	Cluster      string
	Fraction     *Fraction // nil: all
	NoHostSuffix bool      // disable_shadow_host_suffix_append
	TraceSampled *bool     // nil: as the request
}

// A HashKind is where a hash comes from.
type HashKind uint8

// The sources of RouteAction.HashPolicy.
const (
	HashHeader HashKind = iota
	HashCookie
	HashSourceIP
	HashQuery
)

// A HashPolicy is one contribution to the hash that ring hash and maglev use.
type HashPolicy struct {
	Kind       HashKind
	Name       string         // of header, cookie or parameter
	TTL        *time.Duration // HashCookie: nil never makes a cookie; 0: a session cookie
	Path       string         // HashCookie
	Attributes []Attribute    // HashCookie
	Regex      *RegexRewrite  // HashHeader: applied to each value first
	Terminal   bool           // stop here once there is a hash
}

// An Attribute of a cookie, such as SameSite=Lax.
type Attribute struct{ Name, Value string }

// HeaderOps change a header: what is in Remove goes first, then Add is applied
// in order.
type HeaderOps struct {
	Remove []string
	Add    []HeaderOp
}

// An Append says what a HeaderOp does if the field is there already.
type Append uint8

// The values of HeaderValueOption.HeaderAppendAction.
const (
	AppendOrAdd     Append = iota // another line
	AddIfAbsent                   // nothing
	OverwriteOrAdd                // replaces it
	OverwriteExists               // replaces it; is not added if it is not there
)

// A HeaderOp adds or replaces a field.
type HeaderOp struct {
	Name      string
	Value     string // may have %COMMANDS%; "%%" is a percent sign
	Action    Append
	KeepEmpty bool // an empty result is sent, too
}
