// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// Object says what is wrong with an object by itself. root is the root namespace.
func Object(e source.Entry, root mesh.Namespace) []source.Problem {
	var c checker
	switch o := e.(type) {
	case *source.Object[*source.VirtualService]:
		c.virtualService(o)
	case *source.Object[*source.DestinationRule]:
		c.destinationRule(o)
	case *source.Object[*source.Gateway]:
		c.gateway(o)
	case *source.Object[*source.ServiceEntry]:
		c.serviceEntry(o)
	case *source.Object[*source.WorkloadEntry]:
		c.workloadEntry(o)
	case *source.Object[*source.Sidecar]:
		c.sidecar(o)
	case *source.Object[*source.PeerAuthentication]:
		c.peer(o, root)
	case *source.Object[*source.AuthorizationPolicy]:
		c.policy(o)
	case *source.Object[*source.Telemetry]:
		c.telemetry(o)
	}
	slices.SortStableFunc(c.problems, source.Problem.Compare)
	return c.problems
}
