// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// TestSamples reads Istio's own samples as they are. Those of Bookinfo are each applied to its services and
// subsets; what comes out is in testdata/samples.golden.
func TestSamples(t *testing.T) {
	const dir = "testdata/samples"
	var out bytes.Buffer
	files, err := filepath.Glob(dir + "/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, f := range files {
		paths := []string{f}
		if strings.Contains(f, "/bookinfo/") {
			paths = append(paths, dir+"/platform/bookinfo.yaml")
			if !strings.Contains(f, "destination-rule") {
				paths = append(paths, dir+"/bookinfo/destination-rule-all.yaml")
			}
		}
		w := load(t, paths...)
		fmt.Fprintf(&out, "== %s\n", strings.TrimPrefix(f, dir+"/"))
		for line := range strings.Lines(strings.ReplaceAll(w.problems(dir), dir+"/", "")) {
			if !strings.Contains(line, "is not read from files") {
				out.WriteString(line)
			}
		}
		w.graph.Read(func(c *derive.Context) {
			scope := intent.Scope{Namespace: "default"}
			for _, h := range w.wishes.RouteHosts.Get(c, scope) {
				fmt.Fprintf(&out, "routes %s %s", h, dump(w.wishes.Routes.Get(c, intent.HostIn{Scope: scope, Host: h})))
			}
			gw := intent.NewSubject("default", mesh.Labels{"istio": "ingressgateway"})
			for _, l := range w.wishes.Listeners.Get(c, gw) {
				fmt.Fprintf(&out, "listener %d %s", l.Port, dump(w.wishes.VirtualHosts.Get(c, intent.Table{Subject: gw, Port: l.Port, Server: -1})))
			}
		})
	}
	const golden = "testdata/samples.golden"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("what samples come to differs from %s; -update rewrites it\ngot:\n%s", golden, out.String())
	}
}
