// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package meltemi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// kinds are Istio's that docs/configuration.md has a section about.
var kinds = map[string]proto.Message{
	"VirtualService": &networking.VirtualService{}, "DestinationRule": &networking.DestinationRule{}, "Gateway": &networking.Gateway{},
	"ServiceEntry": &networking.ServiceEntry{}, "WorkloadEntry": &networking.WorkloadEntry{}, "Sidecar": &networking.Sidecar{},
	"PeerAuthentication": &security.PeerAuthentication{}, "AuthorizationPolicy": &security.AuthorizationPolicy{},
	"Telemetry": &telemetry.Telemetry{},
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every field of every kind has a row, or a field around it has one; every row is about a field.
func TestConfigurationTableIsComplete(t *testing.T) {
	rows := map[string]map[string]bool{}
	section := ""
	row := regexp.MustCompile("^\\| `([A-Za-z0-9.]+)` \\|")
	for line := range strings.Lines(read(t, "docs/configuration.md")) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(name)
			rows[section] = map[string]bool{}
		}
		if m := row.FindStringSubmatch(line); m != nil && kinds[section] != nil {
			rows[section][m[1]] = false // not seen to be a field yet
		}
	}
	for kind, message := range kinds {
		have := rows[kind]
		if len(have) == 0 {
			t.Errorf("docs/configuration.md has no table for %s", kind)
			continue
		}
		coverFields(t, kind, have, message.ProtoReflect().Descriptor(), "", 0)
		for field, seen := range have {
			if !seen {
				t.Errorf("docs/configuration.md: %s has no field %s", kind, field)
			}
		}
	}
}

// coverFields descends as long as rows are more detailed than the message.
func coverFields(t *testing.T, kind string, rows map[string]bool, d protoreflect.MessageDescriptor, path string, depth int) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := path + f.JSONName()
		_, covered := rows[name]
		if covered {
			rows[name] = true
		}
		deeper := false
		for row := range rows {
			deeper = deeper || strings.HasPrefix(row, name+".")
		}
		switch {
		case deeper && f.Kind() == protoreflect.MessageKind && !f.IsMap() && depth < 10:
			if covered {
				seeRows(rows, f.Message(), name+".", depth+1)
			} else {
				coverFields(t, kind, rows, f.Message(), name+".", depth+1)
			}
		case !covered:
			t.Errorf("docs/configuration.md says nothing of %s %s", kind, name)
		}
	}
}

// seeRows marks the rows that are fields of d, which is covered as a whole.
func seeRows(rows map[string]bool, d protoreflect.MessageDescriptor, path string, depth int) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := path + f.JSONName()
		if _, ok := rows[name]; ok {
			rows[name] = true
		}
		if f.Kind() == protoreflect.MessageKind && !f.IsMap() && depth < 10 {
			seeRows(rows, f.Message(), name+".", depth+1)
		}
	}
}

// documents are all that people read, but for licences and notes of other projects.
func documents(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A document that names a file of ours names one that is there.
func TestDocumentsNameRealFiles(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	source := regexp.MustCompile("`([a-z0-9_]+/[A-Za-z0-9_/.-]+\\.(?:go|md|yaml|json))`")
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
		for _, m := range source.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s names %s: %v", doc, m[1], err)
			}
		}
	}
}

// A request passes at most 8 files, a change at most 11, and neither passes one twice.
func TestWaysAreShort(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	file := regexp.MustCompile("(?m)^\\| \\d+ \\| `([^`]+)` \\|")
	for title, most := range map[string]int{"## The way of a request": 8, "## The way of a change": 11} {
		_, rest, ok := strings.Cut(text, title)
		if !ok {
			t.Errorf("ARCHITECTURE.md has no section %q", title)
			continue
		}
		section, _, _ := strings.Cut(rest, "\n## ")
		steps := file.FindAllStringSubmatch(section, -1)
		if len(steps) == 0 || len(steps) > most {
			t.Errorf("%s: %d files, want 1 to %d", title, len(steps), most)
		}
		seen := map[string]bool{}
		for _, m := range steps {
			if seen[m[1]] {
				t.Errorf("%s passes %s twice", title, m[1])
			}
			seen[m[1]] = true
			if _, err := os.Stat(m[1]); err != nil {
				t.Error(err)
			}
			if _, _, ok := floorOf(filepath.Dir(m[1])); !ok {
				t.Errorf("%s lies on no floor", m[1])
			}
		}
	}
}

// A file on the way of a request calls those that come after it, and whom it asks calls none of them.
func TestTheWayOfARequestOnlyGoesForward(t *testing.T) {
	const room = "proxy/l7/"
	_, rest, _ := strings.Cut(read(t, "ARCHITECTURE.md"), "## The way of a request")
	section, _, _ := strings.Cut(rest, "\n## ")
	row := regexp.MustCompile("(?m)^\\| \\d+ \\| `" + room + "(\\w+\\.go)` \\|[^|]*\\|(.*)\\|$")
	ask := regexp.MustCompile("`" + room + "(\\w+\\.go)`")
	place, asked := map[string]int{}, map[string]bool{}
	for i, m := range row.FindAllStringSubmatch(section, -1) {
		place[m[1]] = i
		for _, a := range ask.FindAllStringSubmatch(m[2], -1) {
			asked[a[1]] = true
		}
	}
	if len(place) < 5 || len(asked) == 0 {
		t.Fatalf("the table was not understood: %v, %v", place, asked)
	}
	files, home := map[string]*ast.File{}, map[string]string{} // home: of a function, or a method of an exchange
	parse := func(name string) {
		f, err := parser.ParseFile(token.NewFileSet(), room+name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				home[fn.Name.Name] = name
			}
		}
	}
	for name := range asked {
		parse(name)
	}
	for name := range place {
		parse(name)
	}
	for from, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch fun := call.Fun.(type) {
			case *ast.Ident:
				name = fun.Name
			case *ast.SelectorExpr:
				if id, ok := fun.X.(*ast.Ident); ok && id.Name == "x" {
					name = fun.Sel.Name
				}
			}
			to := home[name]
			switch at, step := place[to]; {
			case !step:
			case asked[from]:
				t.Errorf("%s is asked on the way, and calls %s of %s, which lies on it", from, name, to)
			case at < place[from]:
				t.Errorf("%s calls %s of %s, which lies behind it", from, name, to)
			}
			return true
		})
	}
}
