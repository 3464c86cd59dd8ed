// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault says why an exchange or a connection failed: whose side, what
// kind, whether another attempt may be made, and where an operator should look.
// Every room of the data plane returns faults; only l7 turns one into a response.
package fault

import "fmt"

// A Side is who is to blame.
type Side uint8

// The sides of an exchange.
const (
	Client Side = iota + 1
	Mesh
	Upstream
)

func (s Side) String() string { return [...]string{"", "client", "mesh", "upstream"}[s] }

// A Kind is what went wrong. Each has one row in l7's table of answers, and one
// or more of Envoy's response flags.
type Kind uint8

// The kinds of fault, with Envoy's response flag.
const (
	NoRoute          Kind = iota + 1 // NR: no virtual host, route or filter chain
	NoCluster                        // NC: the route names a cluster that is not known
	NoEndpoint                       // UH: no healthy endpoint
	Overflow                         // UO: a circuit breaker is open
	ConnectFailure                   // UF: refused, unreachable, TLS failed
	ConnectTimeout                   // UF
	ConnectionClosed                 // UC: the upstream closed before or while answering
	RemoteReset                      // UR: RST_STREAM from upstream
	RefusedStream                    // UR: RST_STREAM(REFUSED_STREAM) or GOAWAY: not processed
	LocalReset                       // LR
	UpstreamProtocol                 // UPE: the upstream broke the protocol
	Timeout                          // UT: the route's timeout
	PerTryTimeout                    // UT: one attempt's timeout
	IdleTimeout                      // SI
	Denied                           // no flag: authorization said no (403)
	Unauthenticated                  // no flag: 401
	Injected                         // FI: fault injection
	RateLimited                      // RL
	BadRequest                       // DPE: the client broke the protocol
	TooLarge                         // DPE: head or body beyond a limit
	ClientGone                       // DC: the client closed or reset
	MaxDuration                      // DT / UMSDR
	Internal                         // a broken invariant of ours; never the caller's fault
)

var names = [...]string{
	NoRoute: "no route", NoCluster: "no cluster", NoEndpoint: "no healthy endpoint", Overflow: "circuit breaker open",
	ConnectFailure: "connect failure", ConnectTimeout: "connect timeout", ConnectionClosed: "connection closed",
	RemoteReset: "remote reset", RefusedStream: "refused stream", LocalReset: "local reset",
	UpstreamProtocol: "upstream protocol error", Timeout: "timeout", PerTryTimeout: "per-try timeout",
	IdleTimeout: "idle timeout", Denied: "denied", Unauthenticated: "unauthenticated", Injected: "injected fault",
	RateLimited: "rate limited", BadRequest: "bad request", TooLarge: "too large", ClientGone: "client gone",
	MaxDuration: "max duration", Internal: "internal error",
}

func (k Kind) String() string { return names[k] }

// A Fault is why an exchange failed. Faults that happen often carry no
// allocation of their own beyond the value; compare Kind, print the whole.
type Fault struct {
	Side Side
	Kind Kind
	// Status to answer with; 0: what the table of answers says for Kind.
	Status int
	// Sent is true if any byte of the request may have reached the upstream
	// (retry policy "reset-before-request" asks).
	Sent bool
	// Details for %RESPONSE_CODE_DETAILS%, e.g. "route_not_found"; "": by Kind.
	Details string
	// Body of a local reply; "": by Kind, as Envoy words it.
	Body string
	// Object names the configuration object concerned: cluster, route, policy.
	Object string
	// Hint tells the operator what to try.
	Hint string
	Err  error
}

// Error gives side, kind, object, cause and hint in one line.
func (f *Fault) Error() string {
	s := fmt.Sprintf("%s: %s", f.Side, f.Kind)
	if f.Object != "" {
		s += " (" + f.Object + ")"
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	if f.Hint != "" {
		s += "; " + f.Hint
	}
	return s
}

func (f *Fault) Unwrap() error { return f.Err }
