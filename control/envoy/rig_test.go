// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/file"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/wire/nds"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/xds"
)

// A world is the control plane down to resources, over some source.
type world struct {
	graph    *derive.Graph
	gather   *source.Gatherer
	statuses *istioapi.Statuses
	backend  *envoy.Backend
}

func newWorld(settings intent.Settings, sources ...source.Source) *world {
	g := derive.NewGraph()
	w := &world{graph: g, gather: source.Gather(g, istioapi.Admit(settings), istioapi.StandIn, sources...)}
	objects := w.gather.Objects()
	facts := registry.Build(g, objects, registry.Config{Domain: settings.Domain}, istioapi.Entries(g, objects, settings))
	wishes := intent.Merge(g, settings, facts, istioapi.Front(g, objects, settings))
	w.statuses = istioapi.Review(g, objects, settings, facts, wishes)
	w.backend = envoy.New(g, facts, wishes)
	return w
}

// once is a folder that is read once.
type once struct{ *file.Source }

func (o once) Run(_ context.Context, sink source.Sink) error {
	o.Once(sink)
	return nil
}

// load makes a world of files.
func load(t testing.TB, settings intent.Settings, files map[string]string) *world {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, err := file.New(file.Defaults(dir))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(settings, once{src})
	if err := w.gather.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.graph.Read(func(c *derive.Context) {
		for _, p := range w.statuses.Problems.Get(c, struct{}{}) {
			if p.Severity == source.Error {
				t.Errorf("the mesh is refused: %s", strings.ReplaceAll(p.String(), dir+"/", ""))
			}
		}
	})
	return w
}

// parseProxy reads "sidecar namespace/name address key=value…": capitals are metadata, ext= a filter
// that it has, agent= how it calls itself, locality= where it is, anything else a label.
func parseProxy(t testing.TB, words []string) sight.Client {
	t.Helper()
	ns, name, ok := strings.Cut(words[1], "/")
	if !ok || len(words) < 3 {
		t.Fatalf("proxy %q: want role namespace/name address …", words)
	}
	n := &corev3.Node{Id: fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", words[0], words[2], name, ns, ns)}
	labels, meta := map[string]any{}, map[string]any{"NAMESPACE": ns}
	for _, w := range words[3:] {
		k, v, _ := strings.Cut(w, "=")
		switch {
		case k == "ext":
			n.Extensions = append(n.Extensions, &corev3.Extension{Name: v, Category: "envoy.filters.http"})
		case k == "netext":
			n.Extensions = append(n.Extensions, &corev3.Extension{Name: v, Category: "envoy.filters.network"})
		case k == "agent":
			n.UserAgentName = v
		case k == "locality":
			l := mesh.ParseLocality(v)
			n.Locality = &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
		case strings.ToUpper(k) == k:
			meta[k] = v
		default:
			labels[k] = v
		}
	}
	meta["LABELS"] = labels
	md, err := structpb.NewStruct(meta)
	if err != nil {
		t.Fatal(err)
	}
	n.Metadata = md
	c, err := sight.ParseClient(n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) kind(typeURL string) envoy.Kind {
	kinds := w.backend.Kinds()
	return kinds[slices.IndexFunc(kinds, func(k envoy.Kind) bool { return k.TypeURL == typeURL })]
}

// get is one resource, or nil.
func (w *world) get(c *derive.Context, typeURL string, client sight.Client, name string) *xds.Resource {
	return w.kind(typeURL).Get.Get(c, envoy.Named{Client: client, Name: name})
}

// all are those that a client gets that asks for everything.
func (w *world) all(c *derive.Context, typeURL string, client sight.Client) []*xds.Resource {
	var out []*xds.Resource
	for _, name := range w.kind(typeURL).Names.Get(c, client) {
		if r := w.get(c, typeURL, client, name); r != nil {
			out = append(out, r)
		}
	}
	return out
}

func unpack(t testing.TB, r *xds.Resource) proto.Message {
	t.Helper()
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	return m
}

// A walk collects what a complete configuration refers to.
type walk struct {
	t        testing.TB
	tables   map[string]bool // asked for by listeners
	ends     map[string]bool // asked for by clusters
	clusters map[string]bool // named by anybody
}

// visit checks m and everything packed inside of it against the rules that Envoy's protos state, and notes references.
func (v *walk) visit(where string, m proto.Message) {
	if c, ok := m.(interface{ ValidateAll() error }); ok {
		if err := c.ValidateAll(); err != nil {
			v.t.Errorf("%s: an Envoy would refuse it: %v", where, err)
		}
	}
	v.message(where, m.ProtoReflect())
}

func (v *walk) message(where string, m protoreflect.Message) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			v.t.Errorf("%s: %v", where, err)
			return
		}
		v.visit(where, inner)
		return
	}
	note := func(to map[string]bool, field string) {
		if f := m.Descriptor().Fields().ByName(protoreflect.Name(field)); f != nil && m.Has(f) && f.Kind() == protoreflect.StringKind {
			to[m.Get(f).String()] = true
		}
	}
	switch m.Descriptor().Name() {
	case "Rds":
		note(v.tables, "route_config_name")
	case "EdsClusterConfig":
		note(v.ends, "service_name")
	case "RouteAction", "TcpProxy", "RequestMirrorPolicy":
		note(v.clusters, "cluster")
	case "ClusterWeight":
		note(v.clusters, "name")
	}
	m.Range(func(f protoreflect.FieldDescriptor, val protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				val.Map().Range(func(_ protoreflect.MapKey, mv protoreflect.Value) bool { v.message(where, mv.Message()); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range val.List().Len() {
				v.message(where, val.List().Get(i).Message())
			}
		default:
			v.message(where, val.Message())
		}
		return true
	})
}

// sound checks everything that a client is sent, following references as it would.
func (w *world) sound(t testing.TB, c *derive.Context, client sight.Client) {
	t.Helper()
	v := &walk{t: t, tables: map[string]bool{}, ends: map[string]bool{}, clusters: map[string]bool{}}
	have := map[string]bool{}
	for _, r := range w.all(c, envoy.TypeCluster, client) {
		m := unpack(t, r).(*clusterv3.Cluster)
		if m.Name != r.Name {
			t.Errorf("cluster %s is sent as %s", m.Name, r.Name)
		}
		have[m.Name] = true
		v.visit("cluster "+r.Name, m)
		soundExchange(t, "cluster "+r.Name, len(m.Filters) > 0, m.TransportSocket)
		for _, s := range m.TransportSocketMatches {
			soundExchange(t, "cluster "+r.Name, len(m.Filters) > 0, s.TransportSocket)
		}
	}
	for _, r := range w.all(c, envoy.TypeListener, client) {
		m := unpack(t, r).(*listenerv3.Listener)
		if m.Name != r.Name {
			t.Errorf("listener %s is sent as %s", m.Name, r.Name)
		}
		v.visit("listener "+r.Name, m)
		for _, ch := range m.FilterChains {
			speaks := slices.ContainsFunc(ch.Filters, func(f *listenerv3.Filter) bool { return f.Name == "istio.metadata_exchange" })
			soundExchange(t, "listener "+r.Name+", chain "+ch.Name, speaks, ch.TransportSocket)
		}
	}
	for name := range v.tables {
		r := w.get(c, envoy.TypeRoute, client, name)
		m := unpack(t, r).(*routev3.RouteConfiguration)
		v.visit("routes "+name, m)
		soundTable(t, m)
	}
	for name := range v.ends {
		v.visit("endpoints "+name, unpack(t, w.get(c, envoy.TypeEndpoint, client, name)).(*endpointv3.ClusterLoadAssignment))
	}
	if client.Traits.OnDemand {
		return // it asks for what it meets
	}
	for name := range v.clusters {
		if !have[name] {
			t.Logf("%s: cluster %s is named, and not there", client.Workload, name)
		}
	}
}

// soundExchange fails if a transport agrees on istio-peer-exchange where nobody speaks it: then a peer's preamble becomes
// the application's first bytes.
func soundExchange(t testing.TB, where string, speaks bool, s *corev3.TransportSocket) {
	t.Helper()
	if b, err := proto.Marshal(s); err != nil || bytes.Contains(b, []byte("istio-peer-exchange")) && !speaks {
		t.Errorf("%s agrees on istio-peer-exchange without its filter (%v)", where, err)
	}
}

// soundTable looks for what an Envoy refuses in a route table and its proto does not say.
func soundTable(t testing.TB, m *routev3.RouteConfiguration) {
	t.Helper()
	names, domains := map[string]bool{}, map[string]bool{}
	for _, h := range m.VirtualHosts {
		if names[h.Name] {
			t.Errorf("table %s: two hosts are called %s", m.Name, h.Name)
		}
		names[h.Name] = true
		for _, d := range h.Domains {
			if domains[d] {
				t.Errorf("table %s: two hosts claim %s", m.Name, d)
			}
			domains[d] = true
		}
	}
}

var _ = []proto.Message{&nds.NameTable{}, &workload.Address{}} // so that Any knows them
