// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import "testing"

// FuzzDump reads configuration dumps, which may be those of proxies that we know nothing of.
func FuzzDump(f *testing.F) {
	f.Add([]byte(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump","dynamic_listeners":[{"name":"a","active_state":{"listener":{"name":"a"}},"error_state":{"details":"x"}}]}]}`))
	f.Add([]byte(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.RoutesConfigDump","dynamic_route_configs":[{"route_config":{"name":"80","virtual_hosts":[{"domains":["*"],"routes":[{}]}]}}]}]}`))
	f.Add([]byte(`{"configs":[null,{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump","static_clusters":[{"cluster":null}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseDump(b); err == nil && d == nil {
			t.Error("neither a dump nor an error")
		}
	})
}
