// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"github.com/meltemi/meltemi/match"
)

// Facts is what a decision may depend on besides the request itself. The caller
// keeps one per exchange and passes a pointer; it is not kept.
type Facts struct {
	Random    uint64 // the exchange's random number: weights and fractions
	Internal  bool   // as Envoy understands it, for RequireExternal
	GRPC      bool   // the content type is application/grpc…
	Presented bool   // the client presented a certificate
	Validated bool   // and it was verified
	Metadata  match.Metadata
}

// A Kind is what a Decision says to do.
type Kind uint8

// The kinds of Decision.
const (
	NoVirtualHost Kind = iota // 404, NR
	NoRoute                   // 404, NR
	ToCluster
	ToLocation // Decision.Location
	ToClient   // Decision.Route.Direct
)

// A Decision is where a request goes. It points into its Table.
type Decision struct {
	Kind  Kind
	Host  *Host  // nil for NoVirtualHost
	Route *Entry // nil for NoVirtualHost and NoRoute, and if the host requires TLS
	// Choice is the index into Route.Forward.Clusters.
	Choice int
	// Cluster is the slot of the cluster in Table.Clusters; -1 if Kind is not ToCluster.
	Cluster int
	// Slot numbers the choice within the table, 0 ≤ Slot < Table.Slots: what
	// filters are told by the route is kept by it. -1 without a Route.
	Slot int
}
