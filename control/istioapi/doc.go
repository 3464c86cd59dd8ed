// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package istioapi is the front end for Istio's own kinds: it says which objects make sense, and
// turns those that do into neutral facts and wishes.
//
//	front.go            Admit, Entries, Front: what the head package wires
//	checker.go          collects problems; checks of hosts, durations, ports and the like
//	virtualservice.go   VirtualService to RouteSet
//	httproute.go        its HTTP routes
//	checkroute.go       what is wrong with a VirtualService
//	checkhttp.go        what is wrong with its HTTP routes
//	destinationrule.go  DestinationRule to TrafficRule
//	checkrule.go        what is wrong with one
//	gateway.go          Gateway
//	serviceentry.go     ServiceEntry and WorkloadEntry to services and workloads
//	sidecar.go          Sidecar
//	security.go         PeerAuthentication and AuthorizationPolicy
//	telemetry.go        Telemetry
//	status.go           Review, Status: what is to be said about an object
//	review.go           what other objects mean for it
//
// # Checking and compiling
//
// A check sees one object and nothing else. It names every field that is not valid, and every field that Meltemi does
// not implement yet: such an object is refused, for a field that is silently dropped is a lie. Compiling
// sees only objects that passed, so it has no errors.
//
// Two kinds of security policy are never dropped where that would open a door: an AuthorizationPolicy
// with action CUSTOM denies what it would have asked a provider about, and conditions on tokens, which no
// request has as long as none are verified, stay in the policy. Both are told as warnings.
package istioapi
