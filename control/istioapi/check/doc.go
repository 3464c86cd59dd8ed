// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package check says what is wrong with Istio's objects, one object at a time.
//
//	object.go           Object
//	checker.go          collects problems; checks of hosts, durations, ports and the like
//	virtualservice.go   VirtualService, its TLS and TCP routes
//	httproute.go        its HTTP routes
//	destinationrule.go  DestinationRule
//	gateway.go          Gateway
//	serviceentry.go     ServiceEntry and WorkloadEntry
//	sidecar.go          Sidecar
//	security.go         PeerAuthentication and AuthorizationPolicy
//	telemetry.go        Telemetry
//
// A check sees one object and nothing else. It names every field that is not valid, and every field that Meltemi does
// not implement yet: such an object is refused, for a field that is silently dropped is a lie.
package check
