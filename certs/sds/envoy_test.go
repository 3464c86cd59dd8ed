// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/xds"
)

// bootstrap tells an Envoy where its configuration and its secrets are.
const bootstrap = `
node: {id: "sidecar~127.0.0.1~web.ns~ns.svc.cluster.local", cluster: web}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  ads_config:
    api_type: %s
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: ads}}]
static_resources:
  clusters:
  - name: ads
    type: STATIC
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: ads, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
  - name: sds
    type: STATIC
    typed_extension_protocol_options: *h2
    load_assignment: {cluster_name: sds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
`

// listener terminates mutual TLS with the secrets of the socket and answers by route "r".
const listener = `
name: l
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: s
      rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}}
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        tls_certificate_sds_secret_configs: [{name: default, sds_config: &sds {api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}, resource_api_version: V3}}]
        validation_context_sds_secret_config: {name: ROOTCA, sds_config: *sds}
`

func decode[T proto.Message](t *testing.T, text string, m T) T {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(j, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// table is a Hub of a few resources of which new versions can be put in.
type table struct {
	mu    sync.Mutex
	items map[string]map[string]xds.Resource
	feeds map[*tableFeed]bool
	nacks []string
}

type tableFeed struct {
	*table
	want  map[string]map[string]bool
	all   map[string]bool
	queue chan *xds.Update
	n     int
}

func (b *table) put(t *testing.T, name string, m proto.Message) {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.items[a.TypeUrl] == nil {
		b.items[a.TypeUrl] = map[string]xds.Resource{}
	}
	r := xds.Resource{Name: name, Body: a}
	b.items[a.TypeUrl][name] = r
	for f := range b.feeds {
		if f.all[a.TypeUrl] || f.want[a.TypeUrl][name] {
			f.push(&xds.Update{TypeURL: a.TypeUrl, Resources: []xds.Resource{r}})
		}
	}
}

func (b *table) Open(context.Context, *xds.Client) (xds.Feed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &tableFeed{table: b, want: map[string]map[string]bool{}, all: map[string]bool{}, queue: make(chan *xds.Update, 100)}
	b.feeds[f] = true
	return f, nil
}

func (f *tableFeed) push(u *xds.Update) {
	f.n++
	u.Nonce, u.Version = strconv.Itoa(f.n), strconv.Itoa(f.n)
	f.queue <- u
}

func (f *tableFeed) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &xds.Update{TypeURL: typeURL, Full: f.want[typeURL] == nil}
	if f.want[typeURL] == nil {
		f.want[typeURL] = map[string]bool{}
	}
	for _, n := range remove {
		delete(f.want[typeURL], n)
	}
	for _, n := range add {
		f.want[typeURL][n] = true
		if r, ok := f.items[typeURL][n]; ok {
			u.Resources = append(u.Resources, r)
		}
	}
	if wildcard && !f.all[typeURL] {
		for _, r := range f.items[typeURL] {
			u.Resources = append(u.Resources, r)
		}
	}
	f.all[typeURL] = wildcard
	if u.Full || len(u.Resources) > 0 {
		f.push(u)
	}
	if strings.HasSuffix(typeURL, ".Cluster") && u.Full { // clusters that warm wait for endpoints, changed or not
		again := &xds.Update{TypeURL: strings.Replace(typeURL, "cluster.v3.Cluster", "endpoint.v3.ClusterLoadAssignment", 1)}
		for n := range f.want[again.TypeURL] {
			again.Resources = append(again.Resources, f.items[again.TypeURL][n])
		}
		if len(again.Resources) > 0 {
			f.push(again)
		}
	}
}

func (f *tableFeed) Next(ctx context.Context) (*xds.Update, error) {
	select {
	case u := <-f.queue:
		return u, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *tableFeed) Ack(string, string) {}

func (f *tableFeed) Nack(typeURL, _, detail string) {
	f.mu.Lock()
	f.nacks = append(f.nacks, typeURL+": "+detail)
	f.mu.Unlock()
}

func (b *table) rejections() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nacks
}

func (f *tableFeed) Close() {
	f.mu.Lock()
	delete(f.feeds, f)
	f.mu.Unlock()
}

// serve runs srv on l until stop is called.
func serve(t *testing.T, l net.Listener, srv *xds.Server) (stop func()) {
	g := grpc.NewServer(srv.Options()...)
	srv.Register(g)
	srv.RegisterSecrets(g)
	go g.Serve(l)
	stop = sync.OnceFunc(func() { srv.Close(); g.Stop() })
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A real Envoy takes listener, routes, cluster and endpoints from our server, its certificate from
// our socket; it follows changes, rotations, and a restart of the control plane.
func TestARealEnvoy(t *testing.T) {
	binary := os.Getenv("MELTEMI_TEST_ENVOY")
	if binary == "" {
		t.Skip("MELTEMI_TEST_ENVOY names no Envoy")
	}
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) { runEnvoy(t, binary, api) })
	}
}

func runEnvoy(t *testing.T, binary, api string) {
	issue := issuer(t)
	src := &certs.Source{}
	src.Set(issue())
	backend := func(text string) net.Addr {
		l := listen(t, "tcp", "127.0.0.1:0")
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return l.Addr()
	}
	endpoints := func(a net.Addr) *endpointv3.ClusterLoadAssignment {
		return decode(t, fmt.Sprintf(`{cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}`,
			a.(*net.TCPAddr).Port), &endpointv3.ClusterLoadAssignment{})
	}
	cluster := func(timeout string) *clusterv3.Cluster {
		return decode(t, `{name: c, type: EDS, connect_timeout: `+timeout+`, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}}}`, &clusterv3.Cluster{})
	}
	listenAt := freeporttest.Addr(t).Port()

	hub := &table{items: map[string]map[string]xds.Resource{}, feeds: map[*tableFeed]bool{}}
	hub.put(t, "c", cluster("1s"))
	hub.put(t, "c", endpoints(backend("one")))
	hub.put(t, "r", decode(t, `{name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}`, &routev3.RouteConfiguration{}))
	hub.put(t, "l", decode(t, fmt.Sprintf(listener, listenAt), &listenerv3.Listener{}))

	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	serve(t, listen(t, "unix", socket), xds.NewServer(NewHub(src, nil), xds.ServerConfig{}))
	adsListener := listen(t, "tcp", "127.0.0.1:0")
	stop := serve(t, adsListener, xds.NewServer(hub, xds.ServerConfig{}))

	config := filepath.Join(dir, "envoy.yaml")
	text := fmt.Sprintf(bootstrap, api, adsListener.Addr().(*net.TCPAddr).Port, socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "-c", config, "--disable-hot-restart", "-l", "warning", "--concurrency", "1")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy says:\n%s", log.String())
		}
	})

	// get is one request over a new connection, with the identity of a peer.
	get := func() (body string, serial string) {
		var cs *tls.ConnectionState
		tr := &http.Transport{TLSClientConfig: src.ClientConfig(certs.TLS{}), DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get(fmt.Sprintf("https://127.0.0.1:%d/", listenAt))
		if err != nil {
			return err.Error(), ""
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		cs = resp.TLS
		return b.String(), string(cs.PeerCertificates[0].Raw)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for !ok() {
			select {
			case <-deadline:
				body, _ := get()
				t.Fatalf("never: %s; last answer %q; rejections %q", what, body, hub.rejections())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	answers := func(want string) func() bool { return func() bool { b, _ := get(); return b == want } }
	until("the configuration", answers("one"))
	hub.put(t, "c", endpoints(backend("two")))
	until("an endpoint's move", answers("two"))
	src.Set(issue())
	until("the rotation", func() bool { _, s := get(); return s == string(src.Current().Leaf().Raw) })

	stop()
	hub.put(t, "c", cluster("2s")) // warms, although its endpoints do not change
	if b, _ := get(); b != "two" {
		t.Errorf("during an outage: %q", b)
	}
	serve(t, listen(t, "tcp", adsListener.Addr().String()), xds.NewServer(hub, xds.ServerConfig{}))
	until("the new stream", func() bool { hub.mu.Lock(); defer hub.mu.Unlock(); return len(hub.feeds) == 1 })
	hub.put(t, "c", endpoints(backend("three")))
	until("a change after the outage", answers("three"))
	if bad := hub.rejections(); len(bad) > 0 {
		t.Errorf("rejections: %q", bad)
	}
}
