// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package istioapi is the front end for Istio's own kinds: it says which objects make sense, and
// turns those that do into neutral facts and wishes.
//
//	front.go            Admit, Entries, Front: what the head package wires
//	virtualservice.go   VirtualService to RouteSet
//	httproute.go        its HTTP routes
//	destinationrule.go  DestinationRule to TrafficRule
//	gateway.go          Gateway
//	serviceentry.go     ServiceEntry and WorkloadEntry to services and workloads
//	sidecar.go          Sidecar
//	security.go         PeerAuthentication and AuthorizationPolicy
//	standin.go          StandIn: what denies in place of a security policy that is refused
//	telemetry.go        Telemetry
//	status.go           Review, Status: what is to be said about an object
//	review.go           what other objects mean for it
//
// Package check says what is wrong with an object by itself. Compiling sees only objects that
// passed, so it has no errors.
//
// Security policy is never dropped where that would open a door: one that is refused from the first is replaced by one that
// denies, an AuthorizationPolicy
// with action CUSTOM denies what it would have asked a provider about, and conditions on tokens, which no
// request has as long as none are verified, stay in the policy. Both are told as warnings.
package istioapi
