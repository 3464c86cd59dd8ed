// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package meltemi

import (
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

// A request passes at most 8 files and never backwards, a change at most 11.
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
