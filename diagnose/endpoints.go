// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// clusterStatuses is envoy.admin.v3.Clusters, as far as it is shown.
type clusterStatuses struct {
	Clusters []struct {
		Name  string `json:"name"`
		Hosts []struct {
			Address address `json:"address"`
			Health  struct {
				EDS     string `json:"eds_health_status"`
				Outlier bool   `json:"failed_outlier_check"`
				Active  bool   `json:"failed_active_health_check"`
			} `json:"health_status"`
			Weight   int `json:"weight"`
			Priority int `json:"priority"`
			Stats    []struct {
				Name string `json:"name"`
				// Value is a string in Envoy's JSON, because it has 64 bits.
				Value json.RawMessage `json:"value"`
			} `json:"stats"`
		} `json:"host_statuses"`
	} `json:"cluster_statuses"`
}

// Endpoints shows the endpoints of a proxy's clusters and how they fare.
func (m *Mesh) Endpoints(ctx context.Context, workload string) error {
	p, err := m.find(workload)
	if err != nil {
		return err
	}
	b, err := p.page(ctx, "GET", "/clusters?format=json", nil)
	if err != nil {
		return err
	}
	if m.JSON {
		return m.json(json.RawMessage(b))
	}
	var all clusterStatuses
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("proxy %s: clusters: %w", p.Name(), err)
	}
	t := table{head: []string{"ENDPOINT", "STATUS", "OUTLIER CHECK", "REQUESTS", "ERRORS", "CLUSTER"}}
	for i := range all.Clusters {
		c := &all.Clusters[i]
		for j := range c.Hosts {
			h := &c.Hosts[j]
			host, port := h.Address.parts()
			at := host
			if h.Address.Socket != nil {
				at = net.JoinHostPort(host, port)
			}
			status, outlier := or(h.Health.EDS), "OK"
			if h.Health.Active {
				status = "UNHEALTHY"
			}
			if h.Health.Outlier {
				outlier = "FAILED"
			}
			requests, errors := uint64(0), uint64(0)
			for _, s := range h.Stats {
				n, _ := strconv.ParseUint(strings.Trim(string(s.Value), `"`), 10, 64)
				switch s.Name {
				case "rq_total":
					requests = n
				case "rq_error":
					errors = n
				}
			}
			t.add(at, status, outlier, strconv.FormatUint(requests, 10), strconv.FormatUint(errors, 10), c.Name)
		}
	}
	slices.SortStableFunc(t.rows, func(a, b []string) int { return strings.Compare(a[5], b[5]) })
	return t.print(m.Out)
}
