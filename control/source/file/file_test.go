// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/sourcetest"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// folder is a folder under test.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

func (f folder) source() *Source {
	s, err := New(Defaults(f.dir))
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// write saves a file the plain way.
func (f folder) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// replace saves a file as careful editors do: a new file, moved over the old one.
func (f folder) replace(name, text string) {
	f.t.Helper()
	f.write("."+name+".swp", text)
	if err := os.Rename(filepath.Join(f.dir, "."+name+".swp"), filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}

func TestFolderIsASource(t *testing.T) {
	name := func(k source.Key) string { return fmt.Sprintf("%s-%s-%s.yaml", k.Kind, k.Namespace, k.Name) }
	sourcetest.Run(t, func(t *testing.T) sourcetest.Rig {
		f := newFolder(t)
		return sourcetest.Rig{
			Source: f.source(),
			Put:    func(e source.Entry) { f.replace(name(e.ObjectKey()), render(t, e)) },
			Delete: func(k source.Key) { f.remove(name(k)) },
		}
	})
}

// render writes an object as YAML.
func render(t *testing.T, e source.Entry) string {
	k := e.ObjectKey()
	doc := map[string]any{
		"kind":     string(k.Kind),
		"metadata": map[string]any{"name": k.Name, "namespace": string(k.Namespace)},
	}
	switch o := e.(type) {
	case *source.Object[source.Service]:
		doc["apiVersion"] = "v1"
		var ports []any
		for _, p := range o.Spec.Ports {
			ports = append(ports, map[string]any{"name": p.Name, "port": p.Port})
		}
		doc["spec"] = map[string]any{"selector": o.Spec.Selector, "ports": ports}
	case *source.Object[*source.VirtualService]:
		doc["apiVersion"] = "networking.istio.io/v1"
		doc["spec"] = asMap(t, o.Spec)
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func asMap(t *testing.T, m proto.Message) (out map[string]any) {
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func vs(name, host string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: %s\nspec:\n"+
		"  hosts: [%s]\n  http:\n  - route:\n    - destination:\n        host: %s\n", name, name, host)
}

func key(name string) source.Key {
	return source.Key{Kind: source.KindVirtualService, Namespace: "default", Name: name}
}

func target(t *testing.T, r *sourcetest.Recorder, name string) string {
	for _, e := range r.Entries() {
		if o, ok := e.(*source.Object[*source.VirtualService]); ok && o.Name == name {
			return o.Spec.Http[0].Route[0].Destination.Host
		}
	}
	return ""
}

func wantTarget(t *testing.T, r *sourcetest.Recorder, name, host string) {
	t.Helper()
	r.Wait(t, name+" going to "+host, func() bool { return target(t, r, name) == host })
}

func wantProblem(t *testing.T, r *sourcetest.Recorder, part string) {
	t.Helper()
	r.Wait(t, "the problem "+part, func() bool {
		for _, p := range r.Problems() {
			if strings.Contains(p.String(), part) {
				return true
			}
		}
		return false
	})
}

func wantNoProblem(t *testing.T, r *sourcetest.Recorder) {
	t.Helper()
	r.Wait(t, "no problem", func() bool { return len(r.Problems()) == 0 })
}

func TestEditorsOfAllHabits(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	r := sourcetest.Start(t, f.source())
	r.WaitSynced(t)
	wantTarget(t, r, "a", "one")
	f.write("a.yaml", vs("a", "two")) // in place
	wantTarget(t, r, "a", "two")
	f.replace("a.yaml", vs("a", "three")) // a new file moved over the old one
	wantTarget(t, r, "a", "three")
	if err := os.Rename(filepath.Join(f.dir, "a.yaml"), filepath.Join(f.dir, "a.yaml~")); err != nil { // a backup first
		t.Fatal(err)
	}
	f.write("a.yaml", vs("a", "four"))
	wantTarget(t, r, "a", "four")
	f.write("sub/deep/b.yml", vs("b", "five")) // in new folders
	wantTarget(t, r, "b", "five")
	f.write("sub/deep/b.yml", vs("b", "six"))
	wantTarget(t, r, "b", "six")
	f.remove("sub")
	wantTarget(t, r, "b", "")
	f.write("sub/deep/b.yml", vs("b", "seven")) // the folder again
	wantTarget(t, r, "b", "seven")
	wantNoProblem(t, r)
}

func TestFileThatIsEmptiedBeforeItIsWritten(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	s := newScan(f.source().cfg, f.source().parser, nil)
	if b := s.look(nil); len(b.Put) != 1 {
		t.Fatalf("first look: %+v", b)
	}
	f.write("a.yaml", "")
	if b := s.look(nil); len(b.Delete) != 0 || len(s.hollow) == 0 {
		t.Fatalf("a file just emptied gave %+v, hollow %v; want nothing yet, and another look", b, s.hollow)
	}
	if b := s.look(nil); len(b.Delete) != 1 || len(s.hollow) > 0 {
		t.Fatalf("a file that stays empty gave %+v, hollow %v; want its object deleted", b, s.hollow)
	}
}

func TestBrokenDocumentKeepsItsObject(t *testing.T) {
	f := newFolder(t)
	good := vs("a", "one") + "---\n" + vs("b", "one")
	f.write("x.yaml", good)
	r := sourcetest.Start(t, f.source())
	r.WaitSynced(t)
	for _, broken := range []struct{ how, doc, problem string }{
		{"tab", strings.Replace(vs("a", "two"), "  hosts", "\thosts", 1), "x.yaml:6: error: VirtualService/default/a: not readable as YAML"},
		{"unknown field", strings.Replace(vs("a", "two"), "  http:", "  htttp:", 1), "x.yaml:7: error: VirtualService/default/a: spec.htttp: there is no such field; is http meant?; the version before this one stays in force"},
		{"wrong type", strings.Replace(vs("a", "two"), "host: two", "host: 2", 1), "spec.http[0].route[0].destination.host: 2 stands where a string is wanted (put it in quotes)"},
		{"no name", strings.Replace(vs("a", "two"), "  name: a", "  labels: {}", 1), "x.yaml:1: error: metadata.name: the object has no name"},
		{"no kind", strings.Replace(vs("a", "two"), "kind: VirtualService", "", 1), "apiVersion and kind must say what this is"},
		{"wrong kind", strings.Replace(vs("a", "two"), "kind: VirtualService", "kind: VirtualServce", 1), "the kind VirtualServce (networking.istio.io) is not known"},
		{"rubbish", "]]]", "not readable as YAML"},
		{"twice", strings.Replace(vs("a", "two"), "spec:\n", "spec:\n  hosts: [a]\n", 1), "x.yaml:7: error: VirtualService/default/a: field \"hosts\" is there twice; the first is on line 6"},
	} {
		t.Run(broken.how, func(t *testing.T) {
			f.write("x.yaml", broken.doc+"\n---\n"+vs("b", broken.how))
			wantTarget(t, r, "b", broken.how) // everything else goes on
			wantProblem(t, r, broken.problem)
			wantTarget(t, r, "a", "one")
			f.write("x.yaml", good)
			wantNoProblem(t, r)
		})
	}
	f.write("x.yaml", vs("b", "last"))
	wantTarget(t, r, "a", "")
}

func TestWhatIsNotReadIsNamed(t *testing.T) {
	f := newFolder(t)
	f.write("x.yaml", `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: v1
kind: Thing
metadata: {name: web}
---
apiVersion: networking.istio.io/v2
kind: Gateway
metadata: {name: web}
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata: {name: listed}
  spec: {hosts: [a], http: [{route: [{destination: {host: h}}]}]}
`)
	r := sourcetest.Start(t, f.source())
	r.WaitSynced(t)
	wantProblem(t, r, "x.yaml:2: error: kind: RequestAuthentication (security.istio.io) is not supported yet: no token is checked")
	wantProblem(t, r, "x.yaml:6: warning: kind: Deployment (apps) is not read from files")
	wantProblem(t, r, "x.yaml:10: error: kind: the kind Thing is not known")
	wantProblem(t, r, "x.yaml:14: error: Gateway/default/web: apiVersion: v2 is none of the versions of Gateway: v1, v1beta1, v1alpha3")
	wantTarget(t, r, "listed", "h")
}

func TestFirstOfTwoWins(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("x", "first"))
	f.write("b.yaml", vs("x", "second"))
	r := sourcetest.Start(t, f.source())
	r.WaitSynced(t)
	wantTarget(t, r, "x", "first")
	wantProblem(t, r, "b.yaml:1: error: VirtualService/default/x: the object is in "+filepath.Join(f.dir, "a.yaml")+":1 already, and the first one counts")
	f.remove("a.yaml")
	wantTarget(t, r, "x", "second")
	wantNoProblem(t, r)
}

func TestUnchangedDocumentsAreNotReportedAgain(t *testing.T) {
	f := newFolder(t)
	f.write("x.yaml", vs("a", "one")+"---\n"+vs("b", "one"))
	s := newScan(f.source().cfg, f.source().parser, nil)
	s.look(nil)
	f.write("x.yaml", vs("a", "one")+"---\n"+vs("b", "two"))
	b := s.look(map[string]bool{filepath.Join(f.dir, "x.yaml"): true})
	if len(b.Put) != 1 || b.Put[0].Entry.ObjectKey() != key("b") {
		t.Fatalf("one changed document gave %+v", b.Put)
	}
	f.write("x.yaml", "# a comment\n---\n"+vs("a", "one")+"---\n"+vs("b", "two"))
	b = s.look(map[string]bool{filepath.Join(f.dir, "x.yaml"): true})
	if len(b.Put) != 2 {
		t.Fatalf("moved documents gave %+v", b.Put)
	}
	p := b.Put[0].Places
	for field, line := range map[string]int{"": 3, "spec.hosts": 8, "spec.http[0].route[0].destination.host": 12, "spec.http[0].timeout": 10} {
		if got := p.Of(field); got.Line != line {
			t.Errorf("%q is on %v, want line %d", field, got, line)
		}
	}
}

// A link that leads nowhere is named, and what was read through it stays.
func TestLinkToNowhere(t *testing.T) {
	f, elsewhere := newFolder(t), newFolder(t)
	elsewhere.write("a.yaml", vs("a", "one"))
	elsewhere.write("sub/b.yaml", vs("b", "one"))
	f.link(filepath.Join(elsewhere.dir, "a.yaml"), "a.yaml")
	f.link(filepath.Join(elsewhere.dir, "sub"), "more")
	f.link("no/such/file", "c.yaml")
	s := newScan(f.source().cfg, f.source().parser, nil)
	b := s.look(nil)
	if len(b.Put) != 2 || len(b.Report) != 1 || b.Report[0].About != filepath.Join(f.dir, "c.yaml") ||
		!strings.Contains(b.Report[0].Problems[0].Message, "is a link to no/such/file, which cannot be reached") {
		t.Fatalf("a link to nowhere beside two good ones gave %+v", b)
	}
	elsewhere.remove("a.yaml")
	elsewhere.remove("sub")
	if b = s.look(nil); len(b.Delete) != 0 || len(b.Report) != 2 {
		t.Fatalf("links that lead nowhere any more gave %+v; want what is wrong, and nothing deleted", b)
	}
	f.remove("a.yaml")
	f.remove("more")
	f.remove("c.yaml")
	if b = s.look(nil); len(b.Delete) != 2 || len(b.Report) != 3 {
		t.Fatalf("links that are gone gave %+v; want their objects deleted, and nothing wrong", b)
	}
}

func TestLimits(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	p := &parser{namespace: "default", limits: Limits{}.withDefaults()}
	for _, c := range []struct{ name, text, want string }{
		{"aliases", bomb, "more than 100000 values"},
		{"alias of itself", "a: &a [*a]", "contains itself"},
		{"depth", strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper than 64"},
		{"size", "a: " + strings.Repeat("x", 1<<20), "at most 1048576"},
		{"merge", "a: &a {b: c}\nd:\n  <<: *a", "merge keys"},
		{"not UTF-8", "a: \xff", "not UTF-8"},
		{"no number", "a: .nan", "no finite number"},
		{"tag", "a: !!binary aaaa", "tag !!binary is not read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := p.parse(c.text)
			if len(doc.problems) != 1 || !strings.Contains(doc.problems[0].Message, c.want) {
				t.Errorf("problems = %v, want one with %q", doc.problems, c.want)
			}
		})
	}
}

func TestFileThatCannotBeReadKeepsItsObjects(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	cfg := Defaults(f.dir)
	cfg.Limits.FileBytes = 1000
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := sourcetest.Start(t, s)
	r.WaitSynced(t)
	f.write("a.yaml", vs("a", "two")+"#"+strings.Repeat("x", 1000))
	wantProblem(t, r, "a.yaml: error: is larger than 1000 bytes")
	wantTarget(t, r, "a", "one")
	f.write("a.yaml", vs("a", "three"))
	wantTarget(t, r, "a", "three")
	wantNoProblem(t, r)
}

func TestLinesOfAllSystems(t *testing.T) {
	for name, text := range map[string]string{
		"unix": "a: 1\n---\nb: [\n", "windows": "a: 1\r\n---\r\nb: [\r\n", "old mac": "a: 1\r---\rb: [\r",
	} {
		pieces := split([]byte(text))
		if len(pieces) != 2 || pieces[1].line != 2 {
			t.Errorf("%s: pieces %+v", name, pieces)
		}
	}
}

func TestFolderThatComesLater(t *testing.T) {
	f := newFolder(t)
	cfg := Defaults(filepath.Join(f.dir, "later"))
	cfg.Rescan = cfg.Debounce
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := sourcetest.Start(t, s)
	r.WaitSynced(t)
	wantProblem(t, r, "cannot be read")
	f.write("later/a.yaml", vs("a", "one"))
	wantTarget(t, r, "a", "one")
	wantNoProblem(t, r)
}

func FuzzParse(f *testing.F) {
	f.Add(vs("a", "b"))
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, targetPort: http}]}\n")
	f.Add("a: &a [*a]")
	f.Add("--- {apiVersion: v1}\n...\n--- x\n")
	samples, err := filepath.Glob("../../istioapi/testdata/samples/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range samples {
		text, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := &parser{namespace: "default", limits: Limits{Nodes: 1000, DocumentBytes: 1 << 16}.withDefaults()}
		if strings.ContainsAny(text, "\u0085\u2028\u2029") {
			return // line breaks to YAML, but to no editor
		}
		lines := strings.Count(strings.ReplaceAll(text, "\r", "\n"), "\n") + 1
		for _, piece := range split([]byte(text)) {
			doc := p.parse(piece.text)
			if doc.entry != nil && doc.entry.ObjectKey() != doc.key {
				t.Errorf("object %v claims %v", doc.entry.ObjectKey(), doc.key)
			}
			for _, pr := range doc.problems {
				if line := pr.Place.Line + piece.line - 1; pr.Message == "" || line < 1 || line > lines+1 {
					t.Errorf("problem %q on line %d of %d", pr.Message, line, lines)
				}
			}
		}
	})
}

func TestNamedPipeHoldsUpNothing(t *testing.T) {
	f := newFolder(t)
	f.write("x.yaml", vs("a", "one"))
	r := sourcetest.Start(t, f.source())
	r.WaitSynced(t)
	if err := syscall.Mkfifo(filepath.Join(f.dir, "pipe.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, r, "is not a regular file")
	f.write("x.yaml", vs("a", "two"))
	wantTarget(t, r, "a", "two")
}
