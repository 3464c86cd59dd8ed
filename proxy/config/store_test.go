// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/xds"
)

// play does all steps of a golden case.
func play(t testing.TB, w *world, name string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			w.step(t, f)
		}
	}
	return a
}

func fileOf(a *txtar.Archive, name string) txtar.File {
	i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })
	return a.Files[i]
}

func TestUnchangedResourcesKeepTheirIdentity(t *testing.T) {
	w := newWorld(t)
	a := play(t, w, "sidecar")
	before := w.Snapshot()
	snapshots, cluster := w.snapshots, w.cfg.Clusters.Ref("outbound|80||a.b.svc.cluster.local").Load()
	for _, name := range []string{"1-clusters.yaml", "2-endpoints.yaml", "3-listeners.yaml", "4-routes.yaml"} {
		if rejected := w.step(t, fileOf(a, name)); len(rejected) > 0 {
			t.Fatal(rejected)
		}
	}
	if w.Snapshot() != before || w.snapshots != snapshots {
		t.Error("the same resources again must not make a snapshot")
	}
	if w.cfg.Clusters.Ref("outbound|80||a.b.svc.cluster.local").Load() != cluster {
		t.Error("the same cluster again must not make a new one")
	}

	// One chain changes: the others, and the other listeners, stay the same values.
	f := fileOf(a, "3-listeners.yaml")
	f.Data = []byte(strings.Replace(string(f.Data), "transport_protocol: raw_buffer}\n    filters: *inbound", "transport_protocol: raw_buffer, source_ports: [7]}\n    filters: *inbound", 1))
	if rejected := w.step(t, f); len(rejected) > 0 {
		t.Fatal(rejected)
	}
	after := w.Snapshot()
	if after == before || after.Serial != before.Serial+1 {
		t.Fatal("a changed listener must make a snapshot")
	}
	for _, l := range after.Listeners {
		old := before.Listener(l.Name)
		if l.Name != "virtualInbound" {
			if l != old {
				t.Errorf("listener %s must be kept", l.Name)
			}
			continue
		}
		if l == old || l.Chains[0] != old.Chains[0] || l.Chains[1] == old.Chains[1] || !l.SameSocket(old) {
			t.Error("of virtualInbound, the first chain must be kept and the second not")
		}
	}

	// A route table changes: whoever holds the reference sees it, without a snapshot.
	ref := after.Listener("0.0.0.0_80").Chains[0].HTTP.Routes
	table := ref.Load()
	f = fileOf(a, "4-routes.yaml")
	f.Data = []byte(strings.ReplaceAll(string(f.Data), "PassthroughCluster", "BlackHoleCluster"))
	w.step(t, f)
	if ref.Load() == table || w.Snapshot() != after {
		t.Error("a route table changes in place")
	}
	next := ref.Load()
	d := next.Match(&message.Request{Method: "GET", Authority: "other", Path: "/"}, &route.Facts{})
	if got := next.Refs[d.Cluster].Name(); got != "BlackHoleCluster" {
		t.Errorf("other hosts go to %s", got)
	}
	if d := next.Match(&message.Request{Method: "GET", Authority: "a.b:80", Path: "/"}, &route.Facts{}); len(next.Settings[d.Slot]) != 1 ||
		d.Route.Source != "/apis/networking.istio.io/v1/namespaces/b/virtual-service/a" {
		t.Errorf("settings %v, source %q", next.Settings[d.Slot], d.Route.Source)
	}
}

func TestEqualTransportsAreOneConfiguration(t *testing.T) {
	w := newWorld(t)
	a := play(t, w, "sidecar")
	spec := w.cfg.Clusters.Ref("outbound|80||a.b.svc.cluster.local").Load().Spec()
	f := fileOf(a, "1-clusters.yaml")
	f.Data = []byte(strings.ReplaceAll(string(f.Data), "connect_timeout: 10s", "connect_timeout: 11s"))
	w.step(t, f)
	next := w.cfg.Clusters.Ref("outbound|80||a.b.svc.cluster.local").Load().Spec()
	if next == spec || next.Hash == spec.Hash || next.ConnHash != spec.ConnHash || next.Transports[0].TLS != spec.Transports[0].TLS {
		t.Error("a change that does not concern connections must leave their TLS configuration alone")
	}
	w.Apply(xds.Update{TypeURL: TypeCluster, Removed: []string{spec.Name}})
	w.now = w.now.Add(clusterGrace) // a table names it to the end
	w.tick()
	w.reader.Transports.Forget(w.liveClusters())
	if n := w.reader.Transports.Remembered(); n != 0 {
		t.Errorf("%d contexts are remembered", n)
	}
}

func TestRoutesOnDemand(t *testing.T) {
	w := newWorld(t)
	play(t, w, "ondemand")
	od := w.Snapshot().Listener("virtualOutbound").Default.OnDemand
	ref := w.Route("shop:80")
	h, tcp := od.HTTP.For(ref), od.TCP.For(w.cfg.Clusters.Ref("outbound|81||shop"))
	if h.RouteName != "shop:80" || h.Chain != od.HTTP.Chain || od.HTTP.RouteName != "template" || tcp.Pick(7).Name() != "outbound|81||shop" || od.TCP.Pick(7).Name() != "template" {
		t.Error("templates are copied, not changed")
	}
	if n := w.Wanted(); len(n.Routes) != 0 {
		t.Errorf("what is asked for on demand is not wanted by the store: %v", n.Routes)
	}
	if ref.Answered() {
		t.Error("nothing has come yet")
	}
	_, r := resource(t, map[string]any{"@type": "route", "name": "shop:80", "virtual_hosts": []any{map[string]any{"name": "v", "domains": []any{"*"}}}})
	w.Apply(xds.Update{TypeURL: TypeRoute, Resources: []xds.Resource{r}})
	if ref.Load() == nil || !ref.Answered() {
		t.Error("the table has come")
	}
	w.Apply(xds.Update{TypeURL: TypeRoute, Removed: []string{"shop:80", "nobody:80"}})
	if ref.Load() == nil {
		t.Error("a table that came stays until it is forgotten")
	}
	if nobody := w.Route("nobody:80"); !nobody.Answered() || nobody.Load() != nil {
		t.Error("a table that does not exist is answered with nothing")
	}
	if again := w.Want(Need{Route: "shop:80"}).Routes; again != ref || !slices.Contains(w.Wanted().Routes, "shop:80") {
		t.Error("what is wanted on demand is wanted by the store")
	}
	w.Drop(Need{Route: "shop:80"})
	if ref.Load() != nil || w.Route("shop:80") == ref || len(w.Wanted().Routes) != 0 {
		t.Error("what is dropped is gone")
	}
}

func TestALPNFilter(t *testing.T) {
	entry := func(protocol uint64, names ...string) []byte {
		var b []byte
		if protocol > 0 {
			b = protowire.AppendTag(b, 1, protowire.VarintType)
			b = protowire.AppendVarint(b, protocol)
		}
		for _, n := range names {
			b = protowire.AppendTag(b, 2, protowire.BytesType)
			b = protowire.AppendString(b, n)
		}
		out := protowire.AppendTag(nil, 1, protowire.BytesType)
		return protowire.AppendBytes(out, b)
	}
	good := slices.Concat(entry(0, "istio-http/1.0", "istio", "http/1.0"), entry(1, "istio-http/1.1", "istio", "http/1.1"), entry(2, "istio-h2", "istio", "h2"))
	if err := checkALPN(&anypb.Any{Value: good}, nil); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]byte{entry(1, "h2"), entry(9, "x"), {0xff}, {0x10, 1}, {0x0d, 1, 2, 3, 4}} {
		if checkALPN(&anypb.Any{Value: bad}, nil) == nil {
			t.Errorf("%x was accepted", bad)
		}
	}
}

func TestLoadStatic(t *testing.T) {
	w := newWorld(t)
	const bootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          route_config:
            name: local
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: origin}}]}]
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
  - name: origin
    type: STATIC
    load_assignment: {cluster_name: origin, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]}
`
	snap, err := w.LoadStatic([]byte(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	l := snap.Listener("127.0.0.1:10000")
	if l == nil || l.Chains[0].HTTP.Routes.Load().Refs[0].Load() == nil {
		t.Fatalf("%+v", snap)
	}
	for want, bad := range map[string]string{
		"has no static_resources":              "admin: {}",
		"connect to the control plane instead": "static_resources: {}\ndynamic_resources: {ads_config: {}}",
		`unknown field "nonsense"`:             "static_resources: {nonsense: 1}",
		`static_resources: Cluster "c": `:      "static_resources: {clusters: [{name: c, type: LOGICAL_DNS}]}",
		`yaml: `:                               "a: b: c",
	} {
		if _, err := newWorld(t).LoadStatic([]byte(bad)); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\u00a0", " "), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	dump, err := w.ConfigDump(false)
	if err != nil {
		t.Fatal(err)
	}
	j, err := protojson.Marshal(dump)
	for _, part := range []string{`staticClusters`, `staticListeners`, `staticRouteConfigs`} {
		if err != nil || !strings.Contains(string(j), part) {
			t.Errorf("%s is not in the dump: %v", part, err)
		}
	}
}

func selfSigned(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kder, _ := x509.MarshalPKCS8PrivateKey(k)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}))
}

// A listener that is in force and could not be opened is shown with the reason, until it is open.
func TestConfigDumpShowsWhatIsNotOpen(t *testing.T) {
	w := newWorld(t)
	play(t, w, "sidecar")
	name := w.Snapshot().Listeners[0].Name
	shown := func() (out map[string]string) {
		out = map[string]string{}
		dump, err := w.ConfigDump(false)
		if err != nil {
			t.Fatal(err)
		}
		var ls adminv3.ListenersConfigDump
		for _, c := range dump.GetConfigs() {
			if c.MessageIs(&ls) && c.UnmarshalTo(&ls) == nil {
				for _, l := range ls.GetDynamicListeners() {
					if l.GetErrorState() != nil {
						out[l.GetName()] = l.GetErrorState().GetDetails()
					}
				}
			}
		}
		return out
	}
	w.SetUnopened(map[string]error{name: errors.New("the port is taken")})
	if got := shown(); len(got) != 1 || got[name] != "the port is taken" {
		t.Errorf("shown are %v", got)
	}
	w.SetUnopened(nil)
	if got := shown(); len(got) != 0 {
		t.Errorf("all are open, and shown are %v", got)
	}
}

func TestConfigDump(t *testing.T) {
	w := newWorld(t)
	play(t, w, "sidecar")
	cert, key := selfSigned(t)
	pair := map[string]any{"certificate_chain": map[string]any{"inline_string": cert}, "private_key": map[string]any{"inline_string": key}}
	_, secret := resource(t, map[string]any{"@type": "secret", "name": "kubernetes://x", "tls_certificate": pair})
	w.Apply(xds.Update{TypeURL: TypeSecret, Version: "s1", Resources: []xds.Resource{secret}})
	// An inline certificate, deep inside a listener that is refused for something else.
	_, bad := resource(t, map[string]any{"@type": "listener", "name": "bad", "address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 1}},
		"filter_chains": []any{map[string]any{"transport_socket": map[string]any{"name": "tls", "typed_config": map[string]any{
			"@type":              "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
			"common_tls_context": map[string]any{"tls_certificates": []any{pair}},
		}}}}})
	if r := w.Apply(xds.Update{TypeURL: TypeListener, Version: "l9", Resources: []xds.Resource{bad}}); len(r) != 1 {
		t.Fatal(r)
	}
	dump, err := w.ConfigDump(true)
	if err != nil {
		t.Fatal(err)
	}
	j, err := protojson.MarshalOptions{Multiline: true}.Marshal(dump)
	if err != nil {
		t.Fatal(err)
	}
	secretText := strings.Split(key, "\n")[1]
	if strings.Contains(string(j), secretText) || !strings.Contains(string(j), `"[redacted]"`) && !strings.Contains(string(j), `"W3JlZGFjdGVkXQ=="`) {
		t.Error("a private key is shown")
	}
	var types []string
	for _, c := range dump.GetConfigs() {
		types = append(types, shortType(c.GetTypeUrl()))
	}
	if got := strings.Join(types, " "); got != "BootstrapConfigDump ClustersConfigDump EndpointsConfigDump ListenersConfigDump RoutesConfigDump SecretsConfigDump" {
		t.Error(got)
	}
	var l adminv3.ListenersConfigDump
	if err := dump.GetConfigs()[3].UnmarshalTo(&l); err != nil {
		t.Fatal(err)
	}
	for _, d := range l.GetDynamicListeners() {
		if d.GetName() == "bad" && (d.GetErrorState().GetDetails() == "" || d.GetErrorState().GetVersionInfo() != "l9" || d.GetActiveState() != nil) ||
			d.GetName() == "virtualInbound" && (d.GetActiveState().GetVersionInfo() != "3-listeners" || d.GetErrorState() != nil) {
			t.Errorf("%v", d)
		}
	}
	if len(l.GetDynamicListeners()) != 4 {
		t.Errorf("%d listeners", len(l.GetDynamicListeners()))
	}
}

func TestUnknownTypesAndNames(t *testing.T) {
	w := newWorld(t)
	body, _ := anypb.New(&adminv3.ConfigDump{})
	for want, u := range map[string]xds.Update{
		`resource type "x" is not supported`:  {TypeURL: "x", Resources: []xds.Resource{{Name: "a", Body: body}}},
		"the resource has no body":            {TypeURL: TypeCluster, Resources: []xds.Resource{{Name: "a"}}},
		"want envoy.config.cluster.v3":        {TypeURL: TypeCluster, Resources: []xds.Resource{{Name: "a", Body: body}}},
		`it came as "a" and calls itself "b"`: {TypeURL: TypeCluster, Resources: []xds.Resource{named(t, "a", "b")}},
		"Cluster.Name":                        {TypeURL: TypeCluster, Resources: []xds.Resource{named(t, "a", "")}},
	} {
		r := w.Apply(u)
		if len(r) != 1 || r[0].Name != "a" || !strings.Contains(r[0].Err.Error(), want) {
			t.Errorf("%v, want %q", r, want)
		}
	}
	if _, err := NewStore(Config{}); err == nil {
		t.Error("a store without clusters")
	}
}

func named(t *testing.T, outer, inner string) xds.Resource {
	_, r := resource(t, map[string]any{"@type": "cluster", "name": inner, "type": "STATIC"})
	r.Name = outer
	return r
}

// corpus is all resources of the golden cases.
func corpus(t testing.TB) map[string][]xds.Resource {
	t.Helper()
	out := map[string][]xds.Resource{}
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(b).Files {
			var u xds.Update
			if !strings.HasSuffix(f.Name, ".yaml") || !strings.HasPrefix(strings.TrimSpace(string(f.Data)), "-") {
				continue
			}
			u = parse(t, f)
			out[u.TypeURL] = append(out[u.TypeURL], u.Resources...)
		}
	}
	return out
}

func parse(t testing.TB, f txtar.File) (u xds.Update) {
	t.Helper()
	for _, v := range yamlList(t, f.Data) {
		url, r := resource(t, v)
		u.TypeURL = url
		u.Resources = append(u.Resources, r)
	}
	return u
}

// FuzzApply changes bytes of real resources. Nothing panics, and a resource that
// is refused harms no other.
func FuzzApply(f *testing.F) {
	all := corpus(f)
	types := sortedKeys(all)
	f.Add(uint64(1), uint64(2), []byte("x"))
	f.Add(uint64(3), uint64(1), []byte{0x0a, 0x7f})
	f.Fuzz(func(t *testing.T, a, b uint64, junk []byte) {
		rng := mathrand.New(mathrand.NewPCG(a, b))
		w := newWorld(t)
		_, good := resource(t, map[string]any{"@type": "cluster", "name": "the-good-one", "type": "STATIC"})
		for range 3 {
			typ := types[rng.IntN(len(types))]
			r := all[typ][rng.IntN(len(all[typ]))]
			r.Body = proto.Clone(r.Body).(*anypb.Any)
			mutate(rng, r.Body, junk)
			u := xds.Update{TypeURL: typ, Version: "f", Resources: []xds.Resource{r}}
			if typ == TypeCluster {
				u.Resources = append(u.Resources, good)
			}
			for _, rej := range w.Apply(u) {
				if rej.Name == "the-good-one" || strings.Contains(rej.Err.Error(), defect) {
					t.Errorf("%s: %v", rej.Name, rej.Err)
				}
			}
			if typ == TypeCluster && w.cfg.Clusters.Ref("the-good-one").Load() == nil {
				t.Error("the good cluster is not there")
			}
		}
		for _, l := range w.Snapshot().Listeners {
			l.ExplainChoice(&ConnFacts{Local: netip.MustParseAddrPort("10.0.0.1:80"), Transport: "raw_buffer"})
		}
		if d, err := w.ConfigDump(true); err != nil {
			t.Error(err)
		} else if _, err := protojson.Marshal(d); err != nil {
			t.Error(err)
		}
		w.Want(Need{Route: "x", Cluster: "y"})
		w.Drop(Need{Route: "x", Cluster: "y"})
	})
}

// mutate changes, cuts or inserts bytes, sometimes inside a nested message.
func mutate(rng *mathrand.Rand, a *anypb.Any, junk []byte) {
	b := slices.Clone(a.GetValue())
	for range rng.IntN(4) {
		if len(b) == 0 {
			break
		}
		i := rng.IntN(len(b))
		switch rng.IntN(4) {
		case 0:
			b[i] = byte(rng.Uint32())
		case 1:
			b[i] ^= 1 << rng.IntN(8)
		case 2:
			b = slices.Delete(b, i, min(i+rng.IntN(4), len(b)))
		case 3:
			b = slices.Insert(b, i, junk...)
		}
	}
	a.Value = b
}

// Whoever reads sees whole snapshots and tables while updates come.
func TestReadersWhileApplying(t *testing.T) {
	w := newWorld(t)
	a := play(t, w, "sidecar")
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			snap := w.Snapshot()
			for _, l := range snap.Listeners {
				if c := l.Choose(&ConnFacts{Local: netip.MustParseAddrPort("10.0.0.1:80"), Transport: "raw_buffer", Protocols: []string{"h2c"}}); c != nil && c.HTTP != nil {
					c.HTTP.Routes.Load().Match(&message.Request{Authority: "a.b", Path: "/"}, &route.Facts{})
				}
			}
			w.Wanted()
			w.Route(fmt.Sprint(n % 10))
			n++
		}
	}()
	for i := range 20 {
		f := fileOf(a, "3-listeners.yaml")
		f.Data = []byte(strings.ReplaceAll(string(f.Data), "idle_timeout: 300s", fmt.Sprintf("idle_timeout: %ds", i+1)))
		w.step(t, f)
		f = fileOf(a, "4-routes.yaml")
		f.Data = []byte(strings.ReplaceAll(string(f.Data), "num_retries: 2", fmt.Sprintf("num_retries: %d", i+3)))
		w.step(t, f)
	}
	close(stop)
	if <-done == 0 {
		t.Error("the reader did not run")
	}
}

func BenchmarkApplyUnchanged(b *testing.B) {
	w := newWorld(b)
	a := play(b, w, "sidecar")
	u := parse(b, fileOf(a, "3-listeners.yaml"))
	b.ReportAllocs()
	for b.Loop() {
		w.Apply(u)
	}
}

// TestAClusterOutlivesTheTablesThatNameIt: control planes say that a cluster is
// gone before they send the table that does without it.
func TestAClusterOutlivesTheTablesThatNameIt(t *testing.T) {
	w := newWorld(t)
	a := play(t, w, "sidecar")
	const name = "outbound|80||a.b.svc.cluster.local"
	ref := w.cfg.Clusters.Ref(name)
	w.Apply(xds.Update{TypeURL: TypeCluster, Removed: []string{name}})
	if ref.Load() == nil {
		t.Fatal("the cluster went while a table named it")
	}
	w.step(t, fileOf(a, "1-clusters.yaml")) // it is back
	w.now = w.now.Add(2 * clusterGrace)
	w.tick()
	if ref.Load() == nil {
		t.Fatal("a cluster that came back was removed")
	}
	w.Apply(xds.Update{TypeURL: TypeCluster, Removed: []string{name}})
	f := fileOf(a, "4-routes.yaml")
	f.Data = []byte(strings.ReplaceAll(string(f.Data), name, "BlackHoleCluster"))
	w.step(t, f)
	if ref.Load() != nil {
		t.Error("the cluster is still there, and no table names it")
	}
}

// FuzzLoadStatic reads files that hold a whole configuration.
func FuzzLoadStatic(f *testing.F) {
	f.Add([]byte("static_resources:\n  clusters:\n  - name: a\n    type: STATIC\n  listeners:\n  - name: l\n    address: {socket_address: {address: 127.0.0.1, port_value: 80}}\n"))
	f.Add([]byte(`{"static_resources":{"secrets":[{"name":"s"}]}}`))
	f.Add([]byte("static_resources: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWorld(t)
		if snap, err := w.LoadStatic(text); err == nil && snap == nil {
			t.Error("neither a snapshot nor an error")
		} else if err != nil && strings.Contains(err.Error(), defect) {
			t.Error(err)
		}
	})
}
