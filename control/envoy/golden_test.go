// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

var update = flag.Bool("update", false, "rewrite the expected sections of testdata")

// TestGolden runs each archive: files ending in .yaml are the mesh, ask says who wants to know what, answers is what is
// expected. Lines of ask are
//
//	include FILE                           one more file of the mesh, from here
//	mesh KEY=VALUE…                        settings of the mesh
//	proxy ROLE NAMESPACE/NAME ADDRESS …    whom the following lines are about; see parseProxy
//	clusters | listeners                   the names of all
//	cluster|listener|routes|endpoints|address NAME
//	names                                  the DNS table
//	# remark
//
// A question may end with a path to what of the answer is of interest, see pick. Whatever any
// proxy is sent, asked about or not, is checked against the rules of Envoy's protos.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { golden(t, path) })
	}
}

func golden(t *testing.T, path string) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files, ask := map[string]string{}, ""
	at := -1
	for i, f := range a.Files {
		switch {
		case strings.HasSuffix(f.Name, ".yaml"):
			files[f.Name] = string(f.Data)
		case f.Name == "ask":
			ask = string(f.Data)
		case f.Name == "answers":
			at = i
		}
	}
	got := answers(t, files, ask)
	if *update {
		if at < 0 {
			a.Files = append(a.Files, txtar.File{Name: "answers"})
			at = len(a.Files) - 1
		}
		a.Files[at].Data = []byte(got)
		if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if at < 0 || got != string(a.Files[at].Data) {
		t.Errorf("answers of %s differ; -update rewrites them:\n%s", path, got)
	}
}

func answers(t *testing.T, files map[string]string, ask string) string {
	settings := intent.Defaults()
	for line := range strings.Lines(ask) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "mesh":
			for _, w := range words[1:] {
				set(t, &settings, w)
			}
		case words[0] == "include":
			text, err := os.ReadFile(words[1])
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(words[1])] = string(text)
		}
	}
	w := load(t, settings, files)
	var b strings.Builder
	var client sight.Client
	w.graph.Read(func(c *derive.Context) {
		for line := range strings.Lines(ask) {
			words := strings.Fields(line)
			if len(words) == 0 || strings.Contains("# mesh include", words[0]) {
				continue
			}
			fmt.Fprintf(&b, "# %s\n", strings.TrimSpace(line))
			if words[0] == "proxy" {
				client = parseProxy(t, words[1:])
				w.sound(t, c, client)
				continue
			}
			b.WriteString(w.answer(t, c, client, words))
		}
	})
	return b.String()
}

func set(t *testing.T, s *intent.Settings, word string) {
	t.Helper()
	switch k, v, _ := strings.Cut(word, "="); k {
	case "outbound":
		s.AllowAny = v == "ALLOW_ANY"
	case "accessLog":
		s.AccessLogFile = v
	case "detection":
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		s.DetectionTimeout = d
	case "h2Upgrade":
		s.H2Upgrade = v == "true"
	case "alias":
		s.TrustAliases = append(s.TrustAliases, "old.example")
	default:
		t.Fatalf("no such setting: %s", word)
	}
}

func (w *world) answer(t *testing.T, c *derive.Context, client sight.Client, words []string) string {
	t.Helper()
	path := ""
	if last := words[len(words)-1]; strings.HasPrefix(last, ".") && len(words) > 1 {
		path, words = last, words[:len(words)-1]
	}
	types := map[string]string{
		"clusters": envoy.TypeCluster, "listeners": envoy.TypeListener, "cluster": envoy.TypeCluster, "listener": envoy.TypeListener,
		"routes": envoy.TypeRoute, "endpoints": envoy.TypeEndpoint, "address": envoy.TypeAddress, "names": envoy.TypeNames,
	}
	typeURL, ok := types[words[0]]
	switch {
	case !ok:
		t.Fatalf("no such question: %s", words[0])
	case words[0] == "clusters" || words[0] == "listeners":
		var names []string
		for _, r := range w.all(c, typeURL, client) {
			names = append(names, r.Name)
		}
		return strings.Join(names, "\n") + "\n"
	case words[0] == "names":
		return show(t, w.all(c, typeURL, client)[0], path)
	case len(words) != 2:
		t.Fatalf("%s: want a name", words[0])
	}
	r := w.get(c, typeURL, client, words[1])
	if r == nil {
		return "nothing\n"
	}
	return show(t, r, path)
}

// show is a resource, or a part of it, as YAML.
func show(t *testing.T, r *xds.Resource, path string) string {
	t.Helper()
	v := plain(t, unpack(t, r))
	for path != "" {
		end := 1
		for depth := 0; end < len(path) && (depth > 0 || path[end] != '.'); end++ {
			depth += strings.Count("[", path[end:end+1]) - strings.Count("]", path[end:end+1])
		}
		v, path = pick(v, path[1:end]), path[end:]
	}
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func plain(t *testing.T, m proto.Message) any {
	t.Helper()
	j, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(j, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// pick follows one step: a field; field[0]; field[NAME] for the first item whose name begins so; a+b for several
// fields. A list is followed item by item.
func pick(v any, step string) any {
	if list, ok := v.([]any); ok {
		var out []any
		for _, item := range list {
			out = append(out, pick(item, step))
		}
		return out
	}
	m, _ := v.(map[string]any)
	if fields := strings.Split(step, "+"); len(fields) > 1 {
		out := map[string]any{}
		for _, f := range fields {
			if got := pick(v, f); got != nil {
				out[f] = got
			}
		}
		return out
	}
	field, which, indexed := strings.Cut(strings.TrimSuffix(step, "]"), "[")
	if !indexed {
		return m[step]
	}
	list, _ := m[field].([]any)
	for i, item := range list {
		named, _ := item.(map[string]any)
		if name, _ := named["name"].(string); strings.HasPrefix(name, which) || which == fmt.Sprint(i) {
			return item
		}
	}
	return nil
}
