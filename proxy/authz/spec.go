// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"net/netip"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// An Action is what a match means (RBAC.Action).
type Action uint8

// The actions.
const (
	Allow Action = iota
	Deny
	Log
)

func (a Action) String() string { return [...]string{"ALLOW", "DENY", "LOG"}[a] }

// A Config is what rules are made from (envoy.config.rbac.v3.RBAC).
type Config struct {
	Action   Action
	Policies []Policy
}

// A Policy matches if one of its permissions and one of its principals does.
type Policy struct {
	Name, Source string
	Permissions  []Rule // about what is asked for
	Principals   []Rule // about who asks
}

// An Op is what a Rule says.
type Op uint8

// The kinds of Rule, with the fields they use.
const (
	Any             Op = iota // everything
	And                       // Of: all
	Or                        // Of: one
	Not                       // Of: one rule, which must not match
	Header                    // Header; HTTP only
	Path                      // Text: path without query and fragment; HTTP only
	Template                  // Template: path without query and fragment; HTTP only
	DestinationIP             // Prefixes
	DestinationPort           // Ports
	ServerName                // Text: SNI
	Metadata                  // Metadata
	Authenticated             // Text: URI SANs, else DNS SANs, else subject of a verified client certificate
	DirectRemoteIP            // Prefixes: the peer of the connection
	RemoteIP                  // Prefixes: the client, after x-forwarded-for or PROXY protocol
)

// A Rule is a permission or a principal: a tree of conditions.
type Rule struct {
	Op       Op
	Of       []Rule
	Header   match.Header
	Text     match.String
	Template *match.Template
	Prefixes match.Prefixes
	Ports    match.Ports
	Metadata match.MetadataValue
}

// Facts is what a decision may depend on. The caller keeps one per exchange or
// connection and passes a pointer; it is not kept.
type Facts struct {
	// Verified is true if the client presented a certificate and it was verified.
	Verified         bool
	URISANs, DNSSANs []string
	Subject          string // RFC 2253

	DirectRemote netip.Addr     // the peer of the connection
	Remote       netip.Addr     // the client, after x-forwarded-for or PROXY protocol
	Local        netip.AddrPort // where the client wanted to go
	SNI          string

	Request  *message.Request // nil for a connection
	Metadata match.Metadata   // may be nil
}

// A Verdict is the outcome of Rules.Check.
type Verdict struct {
	Allowed bool
	// Policy that matched, or "" if none did: what allowed, denied or logged.
	Policy string
	// Details is what %RESPONSE_CODE_DETAILS% says of a denial,
	// "rbac_access_denied_matched_policy[NAME]", with "none" if no policy matched.
	Details string
	// Logged is true if an action LOG matched.
	Logged bool
}
