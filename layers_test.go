// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package meltemi

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/meltemi/meltemi"

// A floor is the level of a room: a package imports only what lies on its own
// floor's lower rooms or below. Rooms of one column are listed in the order in
// which they may be imported: an earlier one by a later one, never back.
//
// The longest matching prefix decides.
var floors = []struct {
	room  string
	floor int
}{
	{"mesh", 0}, {"match", 0}, {"message", 0}, {"wire", 0},

	{"derive", 10}, {"http1", 10}, {"http2", 10}, {"netio", 10}, {"daemon", 10},
	{"telemetry", 11}, {"certs", 11}, {"dns", 11}, {"redirect", 11}, {"hbone", 11}, {"xds", 11},
	{"certs/sds", 12},

	{"control/source", 20}, {"control/source/file", 21}, {"control/registry", 22}, {"control/intent", 23},
	{"control/istioapi", 24}, {"control/gatewayapi", 24}, {"control/envoy", 25}, {"control/ambient", 25},
	{"control/push", 26}, {"control/ca", 26}, {"control/provision", 27}, {"control", 29},

	{"proxy/fault", 20}, {"proxy/peerexchange", 20}, {"proxy/route", 21}, {"proxy/authz", 21}, {"proxy/upstream", 22}, {"proxy/filter", 23},
	{"proxy/filter/stock", 24}, {"proxy/config", 25}, {"proxy/demand", 26}, {"proxy/l4", 26}, {"proxy/l7", 26}, {"proxy/listen", 27}, {"proxy/admin", 28}, {"proxy/explain", 28}, {"proxy", 29},

	{"node", 29}, {"cni", 29},

	{"samples", 35},
	{"install", 40}, {"diagnose", 40}, {"ui", 40}, {"local", 41},
	{"cmd", 50}, {"bench", 60}, {"test", 60},
}

// columns never import one another: they meet on the wire.
var columns = []string{"control", "proxy", "node", "cni"}

// fences say where third parties may be imported, and why only there.
var fences = []struct {
	third   string
	allowed []string
	why     string
}{
	{"k8s.io/", []string{"control/source/kube", "control/provision", "cni", "install", "diagnose"}, "Kubernetes' types stay at the edge, so that the mesh runs without it"},
	{"sigs.k8s.io/gateway-api", []string{"control/source", "control/gatewayapi", "diagnose"}, "Gateway API's types end at the front end"},
	{"istio.io/api/security/v1alpha1", []string{"control/source", "control/istioapi", "diagnose", "certs", "control/ca"}, "the CSR service is Istio's protocol between certs and control/ca"},
	{"istio.io/api", []string{"control/source", "control/istioapi", "diagnose"}, "Istio's types end at the front end: intent is neutral"},
	{"github.com/envoyproxy/go-control-plane/envoy/service", []string{"control/envoy", "proxy/config", "proxy/admin", "xds", "diagnose", "certs/sds"}, "xds carries resources without knowing them"},
	{"github.com/envoyproxy/go-control-plane/envoy/config/core", []string{"control/envoy", "control/push", "proxy/config", "proxy", "xds", "diagnose", "certs/sds"}, "the node is part of the discovery service"},
	{"github.com/envoyproxy/go-control-plane", []string{"control/envoy", "proxy/config", "proxy/admin", "diagnose", "certs/sds"}, "Envoy's resources are seen by the back end that writes them and the room that reads them"},
	{"charm.land/", []string{"local/view"}, "terminals are drawn on in one room"},
	{"github.com/charmbracelet/", []string{"local/view"}, "terminals are drawn on in one room"},
}

// refused are names that say nothing about what a package answers.
var refused = []string{"util", "utils", "common", "model", "types", "helpers", "core", "base"}

type listed struct {
	ImportPath string
	Imports    []string
	Dir        string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Dir", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(room, folder string) bool { return room == folder || strings.HasPrefix(room, folder+"/") }

func floorOf(room string) (string, int, bool) {
	best, floor, ok := "", 0, false
	for _, f := range floors {
		if within(room, f.room) && len(f.room) >= len(best) {
			best, floor, ok = f.room, f.floor, true
		}
	}
	return best, floor, ok
}

// forbid says why from may not import dep, or "".
func forbid(from, dep string) string {
	if !strings.HasPrefix(dep, module+"/") {
		for _, f := range fences {
			if !strings.HasPrefix(dep, f.third) {
				continue
			}
			for _, a := range append(f.allowed, "test", "bench") {
				if within(from, a) {
					return ""
				}
			}
			return f.why
		}
		return ""
	}
	dep = strings.TrimPrefix(dep, module+"/")
	for _, a := range columns {
		for _, b := range columns {
			if a != b && within(from, a) && within(dep, b) {
				return a + " and " + b + " meet on the wire and share only the lower floors"
			}
		}
	}
	fromRoom, fromFloor, ok := floorOf(from)
	depRoom, depFloor, ok2 := floorOf(dep)
	switch {
	case !ok || !ok2:
		return "the package has no floor: give it one in layers_test.go"
	case fromRoom == depRoom, depFloor < fromFloor:
		return ""
	case depFloor == fromFloor && fromFloor < 20 && !within(dep, from):
		return "" // words and mechanisms may lean on each other; Go forbids cycles
	}
	return dep + " lies on a higher floor than " + from + ", or beside it"
}

func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		if p.ImportPath == module {
			continue
		}
		for _, dep := range p.Imports {
			if why := forbid(from, dep); why != "" {
				t.Errorf("%s imports %s: %s", from, dep, why)
			}
		}
	}
}

func TestForbid(t *testing.T) {
	for _, c := range []struct {
		from, dep string
		ok        bool
	}{
		{"control/envoy", module + "/proxy/route", false},
		{"proxy/route", module + "/proxy/l7", false},
		{"proxy/l7", module + "/proxy/route", true},
		{"mesh", module + "/derive", false},
		{"proxy/l7", "github.com/envoyproxy/go-control-plane/envoy/config/route/v3", false},
		{"proxy/config", "github.com/envoyproxy/go-control-plane/envoy/config/route/v3", true},
		{"control/intent", "istio.io/api/networking/v1", false},
		{"proxy", "k8s.io/api/core/v1", false},
		{"local", module + "/proxy", true},
		{"local/view", "charm.land/bubbletea/v2", true},
		{"local", "charm.land/bubbletea/v2", false},
		{"proxy", module + "/local", false},
		{"nowhere", module + "/mesh", false},
	} {
		if why := forbid(c.from, c.dep); (why == "") != c.ok {
			t.Errorf("forbid(%s, %s) = %q, want allowed: %v", c.from, c.dep, why, c.ok)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, p := range packages(t) {
		for _, bad := range refused {
			if path.Base(p.ImportPath) == bad {
				t.Errorf("%s: name a package by what it answers; %q attracts everything", p.ImportPath, bad)
			}
		}
	}
}

func TestEveryPackageHasItsMap(t *testing.T) {
	for _, p := range packages(t) {
		found := false
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			found = found || f.Doc != nil && len(f.Doc.Text()) > 20
		}
		if !found {
			t.Errorf("%s has no package comment: say what it answers and in which order to read it", p.ImportPath)
		}
	}
}

// TestEveryFileHasItsLicence looks at Go files; generated ones carry their own header.
func TestEveryFileHasItsLicence(t *testing.T) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".cache" || d.Name() == ".git" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(b, []byte("// Copyright The Meltemi Authors\n// SPDX-License-Identifier: Apache-2.0\n")) {
			t.Errorf("%s lacks the licence header", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
