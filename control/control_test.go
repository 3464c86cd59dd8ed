// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/samples/bookshop"
	"github.com/meltemi/meltemi/xds"
)

// A plane is a running control plane over a folder.
type plane struct {
	*Control
	addr   string
	folder string
	stop   func()
}

func start(t testing.TB) *plane {
	t.Helper()
	return startOn(t, filepath.Join(t.TempDir(), "state"), t.TempDir())
}

// restart ends the control plane and starts another one on its state and folder, after meanwhile has been done.
func (p *plane) restart(t testing.TB, meanwhile func()) *plane {
	t.Helper()
	p.stop()
	meanwhile()
	next := startOn(t, p.cfg.State, p.folder)
	<-next.gatherer.Synced()
	return next
}

func startOn(t testing.TB, state, folder string) *plane {
	t.Helper()
	cfg := Defaults()
	cfg.State = state
	cfg.Folders = []string{folder}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.gatherer.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := c.serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	stop := func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return &plane{c, ln.Addr().String(), folder, stop}
}

func TestAskedToEndBeforeItServes(t *testing.T) {
	cfg := Defaults()
	cfg.State = filepath.Join(t.TempDir(), "state")
	cfg.Folders = []string{t.TempDir()}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // who is first is chance
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.serve(ctx, ln); err != nil {
			t.Fatal(err)
		}
		again, err := net.Listen("tcp", ln.Addr().String())
		if err != nil {
			t.Fatalf("its address is not free: %v", err)
		}
		_ = again.Close()
	}
}

func (p *plane) write(t testing.TB, name, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(p.folder, name)); err != nil {
		t.Fatal(err)
	}
}

func (p *plane) writeBookshop(t testing.TB) {
	t.Helper()
	conf := bookshop.Configuration()
	names, err := fs.Glob(conf, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := fs.ReadFile(conf, n)
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, n, string(b))
	}
	for i, w := range bookshop.Workloads() {
		p.write(t, "workload-"+w.Name()+".yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %s
  labels: {app: %s, version: %s, security.istio.io/tlsMode: istio}
spec:
  address: 10.0.0.%d
  labels: {app: %s, version: %s, security.istio.io/tlsMode: istio}
  serviceAccount: %s
  ports: {http: 9080}
`, w.Name(), w.Service, w.Version, i+10, w.Service, w.Version, w.Account))
	}
}

// A proxy is a client that keeps what it is sent.
type proxy struct {
	mu    sync.Mutex
	state map[string]map[string]proto.Message // type, name
	sub   *xds.Subscriber
	ready chan struct{}
}

func (p *proxy) Apply(u xds.Update) []xds.Rejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.state[u.TypeURL]
	if of == nil {
		of = make(map[string]proto.Message)
		p.state[u.TypeURL] = of
	}
	for _, n := range u.Removed {
		delete(of, n)
	}
	var bad []xds.Rejection
	for _, r := range u.Resources {
		m, err := r.Body.UnmarshalNew()
		if err == nil {
			if v, ok := m.(interface{ ValidateAll() error }); ok {
				err = v.ValidateAll()
			}
		}
		if err != nil {
			bad = append(bad, xds.Rejection{Name: r.Name, Err: err})
			continue
		}
		of[r.Name] = m
	}
	select {
	case p.ready <- struct{}{}:
	default:
	}
	return bad
}

func (p *plane) connect(t testing.TB, nodeType, name, account, ip string, labels map[string]string, meta map[string]string) *proxy {
	t.Helper()
	token, _, err := p.Authority().Tokens().Issue(ca.ForIdentity(mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: mesh.ServiceAccount(account)}), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Authority().RootPEM())
	fields := map[string]any{"NAMESPACE": "default", "SERVICE_ACCOUNT": account}
	for k, v := range meta {
		fields[k] = v
	}
	ls := map[string]any{}
	for k, v := range labels {
		ls[k] = v
	}
	fields["LABELS"] = ls
	md, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	px := &proxy{state: make(map[string]map[string]proto.Message), ready: make(chan struct{}, 1)}
	px.sub = xds.NewClient(xds.ClientConfig{
		Target: p.addr,
		Options: []grpc.DialOption{
			grpc.WithTransportCredentials(certs.Credentials(func() (*tls.Config, error) { return certs.ControlPlaneConfig(roots, nil), nil })),
			grpc.WithPerRPCCredentials(certs.Bearer(func() (string, error) { return token, nil }, false)),
		},
		Node: &corev3.Node{Id: nodeType + "~" + ip + "~" + name + ".default~default.svc.cluster.local", Metadata: md},
		Connected: func(up bool, err error) {
			if err != nil {
				t.Logf("%s: connected %v: %v", name, up, err)
			}
		},
	}, px)
	px.sub.Subscribe(envoy.TypeCluster)
	px.sub.Subscribe(envoy.TypeListener)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = px.sub.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return px
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// await polls until ok holds of what p was sent.
func (p *proxy) await(t testing.TB, what string, ok func(state map[string]map[string]proto.Message) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		done := ok(p.state)
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-p.ready:
		case <-deadline:
			p.mu.Lock()
			defer p.mu.Unlock()
			for typ, of := range p.state {
				names := make([]string, 0, len(of))
				for n := range of {
					names = append(names, n)
				}
				slices.Sort(names)
				t.Logf("%s: %s", typ, strings.Join(names, " "))
			}
			t.Fatalf("timed out: %s", what)
		}
	}
}

func get[M proto.Message](state map[string]map[string]proto.Message, typeURL, name string) (M, bool) {
	m, ok := state[typeURL][name].(M)
	return m, ok
}

func TestASidecarAndAGatewayAreServed(t *testing.T) {
	p := start(t)
	p.writeBookshop(t)
	side := p.connect(t, "sidecar", "productpage-v1", "bookinfo-productpage", "10.0.0.15", map[string]string{"app": "productpage", "version": "v1"}, map[string]string{"WORKLOAD_ENTRY": "productpage-v1"})
	side.sub.Subscribe(envoy.TypeRoute, "9080")
	side.sub.Subscribe(envoy.TypeEndpoint, "outbound|9080|v3|reviews.default.svc.cluster.local")
	side.await(t, "listeners, clusters and routes of a sidecar", func(s map[string]map[string]proto.Message) bool {
		_, a := get[*listenerv3.Listener](s, envoy.TypeListener, "virtualInbound")
		_, b := get[*listenerv3.Listener](s, envoy.TypeListener, "0.0.0.0_9080")
		_, c := get[*clusterv3.Cluster](s, envoy.TypeCluster, "outbound|9080|v3|reviews.default.svc.cluster.local")
		_, d := get[*clusterv3.Cluster](s, envoy.TypeCluster, "inbound|9080||")
		r, e := get[*routev3.RouteConfiguration](s, envoy.TypeRoute, "9080")
		return a && b && c && d && e && strings.Contains(r.String(), "outbound|9080|v3|reviews")
	})
	gw := p.connect(t, "router", "gateway", "gateway", "10.0.0.99", map[string]string{"istio": "ingressgateway"}, nil)
	gw.sub.Subscribe(envoy.TypeRoute, "http.8080")
	gw.await(t, "a gateway's listener and routes", func(s map[string]map[string]proto.Message) bool {
		_, a := get[*listenerv3.Listener](s, envoy.TypeListener, "0.0.0.0_8080")
		r, b := get[*routev3.RouteConfiguration](s, envoy.TypeRoute, "http.8080")
		return a && b && strings.Contains(r.String(), "outbound|9080||productpage")
	})
	if problems := p.Problems(); len(problems) != 0 {
		t.Errorf("the sample has problems: %+v", problems)
	}
	for _, c := range p.hub.Status() {
		for _, ty := range c.Types {
			if len(ty.Rejected) > 0 {
				t.Errorf("%s rejects %+v", c.Node, ty.Rejected)
			}
		}
	}
}

func TestAnEditedRouteReachesTheSidecar(t *testing.T) {
	p := start(t)
	p.writeBookshop(t)
	side := p.connect(t, "sidecar", "productpage-v1", "bookinfo-productpage", "10.0.0.15", map[string]string{"app": "productpage"}, nil)
	side.sub.Subscribe(envoy.TypeRoute, "9080")
	has := func(text string) func(map[string]map[string]proto.Message) bool {
		return func(s map[string]map[string]proto.Message) bool {
			r, ok := get[*routev3.RouteConfiguration](s, envoy.TypeRoute, "9080")
			return ok && strings.Contains(r.String(), text)
		}
	}
	side.await(t, "the first routes", has("v3|reviews"))
	p.write(t, "reviews.yaml", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
`)
	side.await(t, "the delay", has("envoy.filters.http.fault"))
	p.write(t, "reviews.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec: {hosts: [reviews], htp: []}\n")
	eventually(t, "the broken document is reported", func() bool { return len(p.Problems()) > 0 })
	if pr := p.Problems()[0]; !strings.HasSuffix(pr.File, "reviews.yaml") || pr.Line == 0 || !strings.Contains(pr.Message+pr.Field, "htp") {
		t.Errorf("problem %+v: want file, line and the field htp", pr)
	}
	side.mu.Lock()
	defer side.mu.Unlock()
	if !has("envoy.filters.http.fault")(side.state) {
		t.Error("the last good version must stay in force")
	}
}
