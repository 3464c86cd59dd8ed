// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// A Source watches one outside world: a folder, Kubernetes, Consul or Nomad.
type Source interface {
	// Name appears in logs, in metrics and in problems. It is unique in a mesh.
	Name() string
	// Run puts all it knows into sink, calls sink.Synced, then follows changes until ctx ends, when it
	// returns nil. It retries by itself; an error means that it cannot go on at all.
	Run(ctx context.Context, sink Sink) error
}

// A Sink takes what a source reports. Its methods are called by one goroutine.
type Sink interface {
	// Apply makes a batch of changes, all of them at once.
	Apply(Batch)
	// Synced says that everything that was there at the start has been applied.
	Synced()
}

// A Batch is a set of changes. Deletions come before additions.
type Batch struct {
	Delete []Key
	Put    []Put
	Report []Report
}

// A Put adds an object or a new version of it. Putting what is already there changes nothing.
type Put struct {
	Entry  Entry
	Places *Places // nil if no file holds the object
	// Refused are the fields for which the source refuses the object, as it reports. Entry then holds what could be
	// read of it, for what stands in; it is not in force.
	Refused []string
	// Since is when this version came; zero for now.
	Since time.Time
}

// A Report replaces what the source said before about a thing that may be no object at all, such as a file.
type Report struct {
	About    string
	Problems []Problem // empty: all is well again
}

// An Entry is an Object of a type that Meltemi knows.
type Entry interface {
	// ObjectKey is the object's name.
	ObjectKey() Key
	yields() bool // only *Object has it
}

// ObjectKey implements [Entry].
func (o *Object[T]) ObjectKey() Key { return o.Key }

func (o *Object[T]) yields() bool { return o.Annotations[Yields] == "true" }

// Yields is the annotation of an object that is there for want of another. With the value "true" the object of any
// other source goes first, and that is no problem.
const Yields = "meltemi.io/yields"

// The specifications of Istio's kinds. All API versions of a kind have the same one.
type (
	VirtualService      = networking.VirtualService
	DestinationRule     = networking.DestinationRule
	Gateway             = networking.Gateway
	ServiceEntry        = networking.ServiceEntry
	WorkloadEntry       = networking.WorkloadEntry
	Sidecar             = networking.Sidecar
	PeerAuthentication  = security.PeerAuthentication
	AuthorizationPolicy = security.AuthorizationPolicy
	Telemetry           = telemetry.Telemetry
)
