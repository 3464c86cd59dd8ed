// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"fmt"
	"net/http"
	"testing"

	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// An endpoint that refuses the connections of tunnels is ejected as any other that fails.
func TestTunnelThatCannotConnectIsReported(t *testing.T) {
	r := newRig(t, func(s *setup) {
		spec := cluster("tcp", upstream.HTTP1, deadAddr(t))
		spec.Outlier = &upstream.Outlier{Consecutive5xx: 2, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}
		s.specs = append(s.specs, spec)
		f := to("", "tcp", func(f *route.Forward) {
			f.Upgrades = []route.Upgrade{{Type: "connect", Enabled: true, Terminate: true}}
		})
		f.Match.Path.Kind = route.PathConnect
		s.routes = append(s.routes, f)
	})
	stats := r.set.Ref("tcp").Stats()
	for i := range int64(2) {
		if n := stats.EjectionsTotal.Load(); n != 0 {
			t.Fatalf("%d ejections after %d failures", n, i)
		}
		c := r.dial()
		fmt.Fprintf(c, "CONNECT raw.example:443 HTTP/1.1\r\nHost: raw.example:443\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 503 {
			t.Fatalf("%v %v", resp, err)
		}
	}
	if n := stats.EjectionsTotal.Load(); n != 1 {
		t.Errorf("%d ejections after two failures, want 1", n)
	}
}
