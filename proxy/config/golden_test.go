// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/xds"
)

var update = flag.Bool("update", false, "rewrite the expected sections of golden files")

// A world is a store with a clock that the test moves.
type world struct {
	*Store
	now       time.Time
	snapshots int
	lastWants Wanted
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	reg := telemetry.NewRegistry(telemetry.Config{})
	self := &filter.Peer{ID: "sidecar~10.0.0.1~a.b~b.svc.cluster.local", Workload: "a", Namespace: "b"}
	set := upstream.NewSet(upstream.Config{Now: func() time.Time { return w.now }})
	t.Cleanup(set.Close)
	store, err := NewStore(Config{
		Clusters: set, Identity: &certs.Source{}, Registry: reg, Metrics: stock.NewMetrics(self, "test", reg), Self: self,
		Lookup: func(netip.Addr) *filter.Peer { return nil }, Now: func() time.Time { return w.now },
		ReadFile:   func(path string) ([]byte, error) { return nil, os.ErrNotExist },
		OnSnapshot: func(*Snapshot) { w.snapshots++ },
		OnWanted:   func(n Wanted) { w.lastWants = n },
		Node:       Node{ID: self.ID, Cluster: "a.b", Metadata: map[string]any{"NAME": "a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.Store = store
	return w
}

// resource reads one resource written as YAML with "@type".
func resource(t testing.TB, v any) (typeURL string, r xds.Resource) {
	t.Helper()
	m := v.(map[string]any)
	typ, _ := m["@type"].(string)
	if typ != "" && !strings.Contains(typ, "/") {
		m["@type"] = map[string]string{"listener": TypeListener, "cluster": TypeCluster, "route": TypeRoute, "endpoints": TypeEndpoint, "secret": TypeSecret}[typ]
	}
	for _, key := range []string{"name", "cluster_name"} {
		if s, ok := m[key].(string); ok {
			r.Name = s
		}
	}
	j, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = &anypb.Any{}
	if err := protojson.Unmarshal(j, r.Body); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	return r.Body.GetTypeUrl(), r
}

// step does what a file says: a list of resources is an update; "remove" and
// "advance" are what their names say.
func (w *world) step(t testing.TB, file txtar.File) (rejected []xds.Rejection) {
	t.Helper()
	var doc any
	if err := yaml.UnmarshalStrict(file.Data, &doc); err != nil {
		t.Fatalf("%s: %v", file.Name, err)
	}
	if list, ok := doc.([]any); ok {
		u := xds.Update{Version: strings.TrimSuffix(file.Name, ".yaml")}
		for _, v := range list {
			url, r := resource(t, v)
			u.TypeURL = url
			u.Resources = append(u.Resources, r)
		}
		return w.Apply(u)
	}
	m := doc.(map[string]any)
	if d, ok := m["advance"].(string); ok {
		by, err := time.ParseDuration(d)
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(by)
		w.tick()
		return nil
	}
	rm := m["remove"].(map[string]any)
	u := xds.Update{TypeURL: map[string]string{"listener": TypeListener, "cluster": TypeCluster, "route": TypeRoute, "endpoints": TypeEndpoint}[rm["type"].(string)]}
	for _, n := range rm["names"].([]any) {
		u.Removed = append(u.Removed, n.(string))
	}
	return w.Apply(u)
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			var out txtar.Archive
			out.Comment = a.Comment
			bad := false
			for i := 0; i < len(a.Files); i++ {
				f := a.Files[i]
				if strings.HasSuffix(f.Name, ".out") {
					continue
				}
				got := []byte(summary(w, w.step(t, f)))
				name := strings.TrimSuffix(f.Name, ".yaml") + ".out"
				want := []byte{}
				if i+1 < len(a.Files) && a.Files[i+1].Name == name {
					want = a.Files[i+1].Data
				}
				if string(got) != string(want) {
					bad = true
					if !*update {
						t.Errorf("%s: got\n%swant\n%s", name, got, want)
					}
				}
				out.Files = append(out.Files, f, txtar.File{Name: name, Data: got})
			}
			if bad && *update {
				if err := os.WriteFile(path, txtar.Format(&out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// summary tells what a store has made of what it got.
func summary(w *world, rejected []xds.Rejection) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, r := range rejected {
		line("refused %s: %v", r.Name, r.Err)
	}
	snap := w.Snapshot()
	line("snapshot %d", snap.Serial)
	if n := w.Wanted(); len(n.Endpoints)+len(n.Routes)+len(n.Secrets) > 0 {
		line("wants endpoints %v, routes %v, secrets %v", n.Endpoints, n.Routes, n.Secrets)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range sortedKeys(w.listeners) {
		if w.listeners[name].warming != nil {
			line("warming listener %s", name)
		}
	}
	for _, name := range sortedKeys(w.clusters) {
		if w.clusters[name].warming != nil {
			line("warming cluster %s", name)
		}
	}
	for _, l := range snap.Listeners {
		describeListener(line, l)
	}
	for _, s := range w.cfg.Clusters.Snapshot() {
		describeCluster(line, s)
	}
	return b.String()
}

func describeListener(line func(string, ...any), l *Listener) {
	marks := []string{fmt.Sprint(l.Addrs), l.Direction.String()}
	mark := func(on bool, text string) {
		if on {
			marks = append(marks, text)
		}
	}
	mark(l.Bind, "bind")
	mark(l.HandOff, "hand-off")
	mark(l.OriginalDst, "original-dst")
	mark(l.Transparent, "transparent")
	mark(l.ProxyProtocol != nil, "proxy-protocol")
	mark(l.TLSInspector != nil, "tls-inspector")
	mark(l.HTTPInspector != nil, "http-inspector")
	mark(l.ContinueOnTimeout, "continue")
	mark(len(l.AccessLogs) > 0, fmt.Sprintf("%d logs", len(l.AccessLogs)))
	line("listener %s: %s, inspect %v", l.Name, strings.Join(marks, " "), l.InspectTimeout)
	for c := range l.all {
		name := c.Name
		if c == l.Default {
			name += " (default)"
		}
		line("  chain %s: %s", name, describeChain(c))
		for _, h := range []*HTTP{c.HTTP, onDemandHTTP(c)} {
			if h != nil {
				describeHTTP(line, h)
			}
		}
	}
}

func onDemandHTTP(c *FilterChain) *HTTP {
	if c.OnDemand == nil {
		return nil
	}
	return c.OnDemand.HTTP
}

func describeChain(c *FilterChain) string {
	var parts []string
	add := func(on bool, format string, args ...any) {
		if on {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	m := c.Match
	add(m.Port != 0, "port %d", m.Port)
	add(len(m.Destinations) > 0, "to %v", m.Destinations)
	add(len(m.ServerNames) > 0, "sni %v", m.ServerNames)
	add(m.Transport != "", "%s", m.Transport)
	add(len(m.Protocols) > 0, "%v", m.Protocols)
	if t := c.TLS; t != nil {
		add(true, "TLS require=%v verifies=%v alpn=%v ready=%v", t.RequireClientCert, !t.AcceptUntrusted, t.ALPN, t.Ready() == nil)
	}
	for _, n := range c.Network {
		add(n.RBAC != nil, "rbac")
		if n.Stats != nil {
			add(true, "stats every %v", n.Stats.Interval())
		}
		add(n.PeerExchange != nil, "peer exchange")
	}
	add(c.OnDemand != nil, "on demand")
	tcp := c.TCP
	if c.OnDemand != nil {
		tcp = c.OnDemand.TCP
	}
	if tcp != nil {
		var names []string
		for _, w := range tcp.Clusters {
			names = append(names, fmt.Sprintf("%s*%d", w.Ref.Name(), w.Weight))
		}
		add(true, "tcp %v idle %v", names, tcp.IdleTimeout)
	}
	return strings.Join(parts, "; ")
}

func describeHTTP(line func(string, ...any), h *HTTP) {
	var filters []string
	for _, e := range h.Chain.Entries() {
		filters = append(filters, e.Name)
	}
	table := "pending"
	if h.Routes.Answered() {
		table = "none"
	}
	if h.Routes.Load() != nil {
		table = "there"
	}
	line("    http %s: routes %s (%s), filters %v, idle %v, upgrades %v, server %q, xfcc %d, logs %d", h.StatPrefix, h.Routes.Name(), table, filters,
		h.StreamIdleTimeout, h.Upgrades, h.ServerName, h.ForwardCert, len(h.AccessLogs))
	if t := h.Tracing; t != nil {
		line("      tracing to %s%s as %s, %d/%d/%d, tags %v", t.Cluster, t.HTTPPath, t.Service, t.Client, t.Random, t.Overall, t.Tags)
	}
	if t := h.Routes.Load(); t != nil {
		describeTable(line, t)
	}
}

func describeTable(line func(string, ...any), t *RouteTable) {
	t.Walk(func(slot, host int, r *route.Route, choice int) {
		h := t.Config().VirtualHosts[host]
		what := "direct response"
		switch {
		case r.Forward != nil:
			w := r.Forward.Clusters[choice]
			what = fmt.Sprintf("%s*%d timeout %v", w.Cluster, w.Weight, r.Forward.Timeout)
			if r.Forward.Retry != nil {
				what += fmt.Sprintf(" retry %d on %s", r.Forward.Retry.Count, r.Forward.Retry.On)
			}
		case r.Redirect != nil:
			what = fmt.Sprintf("redirect %d", r.Redirect.Status)
		}
		var settings []string
		for _, s := range t.Settings[slot] {
			off := ""
			if s.Disabled {
				off = " (off)"
			}
			settings = append(settings, fmt.Sprintf("%s=%T%s", s.Name, s.Value, off))
		}
		line("      %s %v %s %s: %s %v", h.Name, h.Domains, r.Name, r.Match.Path.String(), what, settings)
	})
}

func describeCluster(line func(string, ...any), s upstream.Status) {
	c := s.Spec
	var transports []string
	for _, t := range append(slices.Clone(c.Transports), c.Default) {
		what := "plain"
		if t.TLS != nil {
			what = fmt.Sprintf("TLS sni=%s mutual=%v alpn=%v/%v/%v", t.TLS.ServerName, t.Mutual, t.ALPN, t.ALPNHTTP1, t.ALPNHTTP2)
		}
		if t.ProxyProtocol != 0 {
			what += fmt.Sprintf(" proxy-protocol v%d", t.ProxyProtocol)
		}
		transports = append(transports, fmt.Sprintf("%s %v: %s", t.Name, t.Match, what))
	}
	line("cluster %s (%s): discovery %d policy %d protocol %d panic %d breakers %v connect %v hosts %d service %v",
		c.Name, c.StatName, c.Discovery, c.Balance.Policy, c.Protocol, c.Balance.PanicThreshold, c.Breakers.MaxRequests, c.ConnectTimeout, len(s.Hosts), c.Service)
	for _, t := range transports {
		line("  %s", t)
	}
	if c.Outlier != nil {
		line("  outlier %+v", *c.Outlier)
	}
}

func yamlList(t testing.TB, b []byte) []any {
	t.Helper()
	var list []any
	if err := yaml.UnmarshalStrict(b, &list); err != nil {
		t.Fatal(err)
	}
	return list
}
