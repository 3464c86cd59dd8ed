// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected sections of testdata")

// TestGolden runs each archive: files ending in .yaml are the mesh, ask holds one question a line, problems
// and answers are what is expected. A line of ask that begins with # is a remark.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files, ask := map[string]string{}, ""
			for _, f := range a.Files {
				switch {
				case strings.HasSuffix(f.Name, ".yaml"):
					files[f.Name] = string(f.Data)
				case f.Name == "ask":
					ask = string(f.Data)
				}
			}
			dir := write(t, files)
			w := load(t, dir)
			check(t, path, a, "problems", w.problems(dir))
			check(t, path, a, "answers", strings.ReplaceAll(w.answers(t, ask), dir+"/", ""))
		})
	}
}

// check compares a section, or with -update rewrites it.
func check(t *testing.T, path string, a *txtar.Archive, name, got string) {
	t.Helper()
	i := -1
	for j := range a.Files {
		if a.Files[j].Name == name {
			i = j
		}
	}
	if *update {
		if i < 0 {
			a.Files = append(a.Files, txtar.File{Name: name})
			i = len(a.Files) - 1
		}
		a.Files[i].Data = []byte(got)
		if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := ""
	if i >= 0 {
		want = string(a.Files[i].Data)
	}
	if got != want {
		t.Errorf("%s of %s differ; -update rewrites them\ngot:\n%s\nwant:\n%s", name, path, got, want)
	}
}

// answers asks each line of ask.
func (w *world) answers(t *testing.T, ask string) string {
	var b strings.Builder
	w.graph.Read(func(c *derive.Context) {
		for line := range strings.Lines(ask) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] == "#" {
				continue
			}
			fmt.Fprintf(&b, "# %s\n%s", strings.TrimSpace(line), dump(w.answer(t, c, words)))
		}
	})
	return b.String()
}

// answer knows the questions: their names are the queries', their arguments are namespaces, hosts and labels.
func (w *world) answer(t *testing.T, c *derive.Context, q []string) any {
	arg := func(i int) string {
		if i < len(q) {
			return q[i]
		}
		t.Fatalf("%q needs more words", strings.Join(q, " "))
		return ""
	}
	ns := mesh.Namespace(arg(1))
	host := func(i int) mesh.Hostname { return mesh.ExpandHost(arg(i), ns, "") }
	port := func(i int) int {
		n, err := strconv.Atoi(arg(i))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	labels := func(from int) intent.Subject {
		l := mesh.Labels{}
		for _, kv := range q[min(from, len(q)):] {
			k, v, _ := strings.Cut(kv, "=")
			l[k] = v
		}
		return intent.NewSubject(ns, l)
	}
	scope := func() intent.Scope { // namespace[/sidecar[/egress]]
		parts := strings.Split(arg(1), "/")
		s := intent.Scope{Namespace: mesh.Namespace(parts[0])}
		ns = s.Namespace
		if len(parts) > 1 {
			s.Sidecar = source.Key{Kind: source.KindSidecar, Namespace: s.Namespace, Name: parts[1]}
		}
		if len(parts) > 2 {
			s.Egress, _ = strconv.Atoi(parts[2])
		}
		return s
	}
	resolve := func(i int) registry.ServiceKey {
		return w.facts.Resolve.Get(c, registry.HostFrom{Namespace: ns, Host: host(i)})
	}
	switch q[0] {
	case "service":
		return w.facts.Service.Get(c, resolve(2))
	case "resolve":
		return resolve(2)
	case "byaddr":
		return w.facts.ByAddr.Get(c, registry.AddrFrom{Namespace: ns, Addr: netip.MustParseAddr(arg(2))})
	case "endpoints":
		return w.facts.Endpoints.Get(c, registry.PortKey{Service: resolve(2), Port: port(3)}).List
	case "names":
		return w.facts.Names.Get(c, ns)
	case "served":
		return w.facts.Served.Get(c, source.Key{Kind: source.Kind(arg(2)), Namespace: ns, Name: arg(3)})
	case "visible":
		return w.wishes.Visible.Get(c, scope())
	case "routehosts":
		return w.wishes.RouteHosts.Get(c, scope())
	case "routes":
		s := scope()
		return w.wishes.Routes.Get(c, intent.HostIn{Scope: s, Host: host(2)})
	case "rules":
		key := resolve(2)
		if key.IsZero() {
			key.Host = host(2)
		}
		return w.wishes.Rules.Get(c, intent.RuleFor{Client: ns, Service: key})
	case "sidecar":
		return w.wishes.Sidecar.Get(c, labels(2))
	case "listeners":
		return w.wishes.Listeners.Get(c, labels(2))
	case "vhosts":
		return w.wishes.VirtualHosts.Get(c, intent.Table{Subject: labels(4), Port: port(2), Server: port(3)})
	case "l4":
		return w.wishes.L4Routes.Get(c, intent.ServerKey{
			Namespace: ns, Gateway: source.Key{Kind: source.KindGateway, Namespace: ns, Name: arg(2)}, Server: port(3),
		})
	case "peerauth":
		return w.wishes.PeerAuth.Get(c, labels(2))
	case "authorization":
		return w.wishes.Authorization.Get(c, labels(2)).Policies
	case "accesslog":
		return w.wishes.AccessLog.Get(c, labels(2))
	case "status":
		return w.statuses.Of.Get(c, source.Key{Kind: source.Kind(arg(2)), Namespace: ns, Name: arg(3)})
	}
	t.Fatalf("no such question: %s", q[0])
	return nil
}
