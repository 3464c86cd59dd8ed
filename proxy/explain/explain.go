// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package explain says what would become of a request, and why, by asking the
// functions that serve requests: the same listeners, chains, route tables,
// policies and balancers, at this moment. Nothing is sent.
//
//	explain.go   Query, Answer, Step: what is asked and what is answered
//	ask.go       World, Answer: reads a query, finds where the connection enters
//	outbound.go  the workload calls somebody
//	inbound.go   somebody calls the workload
//	http.go      what a connection manager does with a request
//	filters.go   what its filters do: policies, faults
//	cluster.go   which endpoint, and how the connection there is secured
//	origin.go    which objects had a part
//
// An answer is a list of steps in the order in which they would be taken, each
// with what was considered and lost. Who asks about a call asks twice: the
// caller's proxy, and, with what Answer.Next tells, the callee's.
package explain

// A Side is which half of a call is asked about.
type Side string

// The sides of a call, as the workload sees it.
const (
	Outbound Side = "outbound" // the workload calls
	Inbound  Side = "inbound"  // the workload is called
)

// A Query is a request that might be made.
type Query struct {
	Side   Side   `json:"side"`
	Method string `json:"method,omitempty"` // GET unless given
	// URL is what is asked for: http://host[:port]/path, https:// for TLS that the
	// mesh does not look into, tcp://host:port for anything else.
	URL     string   `json:"url"`
	Headers []Header `json:"headers,omitempty"`
	// Address is where the connection goes, "ip:port". Outbound it may be left
	// out: the URL's host is then looked up as the workload would.
	Address string `json:"address,omitempty"`
	// Caller is who calls; for Inbound.
	Caller Caller `json:"caller,omitzero"`
	// Random stands for chance, which decides between weighted clusters; drawn if
	// it is not given.
	Random *uint64 `json:"random,omitempty"`
}

// A Header is one header field of a Query.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Caller is what an inbound connection shows of whoever makes it.
type Caller struct {
	Address string `json:"address,omitempty"` // "ip:port", or "ip"
	TLS     bool   `json:"tls,omitempty"`
	// Identity is the SPIFFE ID of the certificate presented; "" for none.
	Identity string   `json:"identity,omitempty"`
	SNI      string   `json:"sni,omitempty"`
	ALPN     []string `json:"alpn,omitempty"`
}

// An Outcome is how it ends.
type Outcome string

// The outcomes.
const (
	Forward  Outcome = "forward"  // to an endpoint
	Redirect Outcome = "redirect" // to another location
	Respond  Outcome = "respond"  // the proxy answers by itself
	Refuse   Outcome = "refuse"   // an error: policy, no route, no endpoint
	Bypass   Outcome = "bypass"   // the mesh has no part in it
)

// An Answer is what becomes of a Query.
type Answer struct {
	Side    Side    `json:"side"`
	Outcome Outcome `json:"outcome"`
	// Status is the proxy's own answer, if it gives one; 0 for a connection that
	// is closed without.
	Status  int    `json:"status,omitempty"`
	Summary string `json:"summary"`
	Steps   []Step `json:"steps"`
	// Next is where it goes; nil unless Outcome is Forward.
	Next *Next `json:"next,omitempty"`
	// Serial numbers the configuration that was in force.
	Serial uint64 `json:"serial"`

	identity string // of this proxy
}

// A Stage is what a Step decides.
type Stage string

// The stages, in the order in which a request meets them.
const (
	StageName     Stage = "name"     // the host's address
	StageListener Stage = "listener" // who takes the connection
	StageChain    Stage = "chain"    // which filter chain of it
	StageTLS      Stage = "tls"      // is TLS terminated, and who is the client
	StagePolicy   Stage = "policy"   // may it pass
	StageRequest  Stage = "request"  // what the request is once it is made fit
	StageRoute    Stage = "route"    // where it goes
	StageFault    Stage = "fault"    // what is injected
	StageCluster  Stage = "cluster"  // which cluster
	StageEndpoint Stage = "endpoint" // which endpoint of it
	StageSecurity Stage = "security" // how the connection there is secured
)

// A Step is one decision.
type Step struct {
	Stage Stage  `json:"stage"`
	Name  string `json:"name,omitempty"` // of what was decided on
	Says  string `json:"says,omitempty"` // the decision in words
	// From names the objects that made it so, "Kind/namespace/name field".
	From []string `json:"from,omitempty"`
	// Notes are further facts: timeouts, retries, rewrites.
	Notes []string `json:"notes,omitempty"`
	// Considered is what was looked at, in order, what was chosen included.
	Considered []Considered `json:"considered,omitempty"`
	// Fatal: the way ends here.
	Fatal bool `json:"fatal,omitempty"`
}

// Considered is something that was looked at.
type Considered struct {
	Name   string   `json:"name"`
	Chosen bool     `json:"chosen,omitempty"`
	Why    string   `json:"why,omitempty"`
	From   []string `json:"from,omitempty"`
}

// Next is where a request goes, and as what it arrives there.
type Next struct {
	Address string `json:"address"` // of the endpoint picked
	// Workload and Namespace are the endpoint's, if the control plane tells.
	Workload  string `json:"workload,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Cluster   string `json:"cluster"`
	// Method, Authority and Path are as they are sent.
	Method    string   `json:"method,omitempty"`
	Authority string   `json:"authority,omitempty"`
	Path      string   `json:"path,omitempty"`
	Headers   []Header `json:"headers,omitempty"`
	TLS       bool     `json:"tls,omitempty"`
	Mutual    bool     `json:"mutual,omitempty"`
	Identity  string   `json:"identity,omitempty"` // ours, shown if Mutual
	SNI       string   `json:"sni,omitempty"`
	ALPN      []string `json:"alpn,omitempty"`
}

// URL is what the callee is asked for, given what the caller was asked for.
func (n *Next) URL(asked string) string {
	if n.Authority == "" || n.Path == "" {
		return asked
	}
	return "http://" + n.Authority + n.Path
}
