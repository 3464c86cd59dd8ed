// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/mesh"
)

// Clusters shows a proxy's clusters.
func (m *Mesh) Clusters(ctx context.Context, workload string) error {
	p, err := m.find(workload)
	if err != nil {
		return err
	}
	d, b, err := m.dump(ctx, p)
	if err != nil {
		return err
	}
	if m.JSON {
		return m.raw(b, "ClustersConfigDump")
	}
	where := m.places()
	t := table{head: []string{"SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "FROM"}}
	for i := range d.clusters {
		c := &d.clusters[i]
		host, port, subset, direction := c.Name, "-", "-", "-"
		if n, err := mesh.ParseClusterName(c.Name); err == nil {
			host, port, subset, direction = or(string(n.Host)), strconv.Itoa(n.Port), or(n.Subset), string(n.Direction)
		}
		kind := or(c.Type)
		if c.failure != nil {
			kind = "REJECTED: " + oneLine(c.failure.Details)
		}
		t.add(host, port, subset, direction, kind, or(where.short(ctx, c.Metadata.origins())))
	}
	slices.SortStableFunc(t.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return t.print(m.Out)
}
