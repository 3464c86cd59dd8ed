// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

// A Peer is the workload at the other end, as it told by metadata exchange or
// as the mesh knows it by its address. Peers are immutable and shared; comparing
// pointers compares most of them.
type Peer struct {
	ID                string // node id; "" if found by address
	Name              string // pod or machine
	Namespace         string
	Workload          string
	WorkloadType      string // deployment, job …
	Cluster           string
	Identity          string // SPIFFE URI
	CanonicalName     string
	CanonicalRevision string
	App, Version      string
	Region, Zone      string
	Labels            map[string]string // the additional ones, may be nil
}
