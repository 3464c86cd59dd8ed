// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/proxy"
	"github.com/meltemi/meltemi/telemetry/logs"
	"github.com/meltemi/meltemi/test/mesh"
)

const nodeID = "sidecar~127.0.0.1~guest.default~default.svc.cluster.local"

// A plane is the foreign control plane with our proxy under it.
type plane struct {
	t     *testing.T
	addr  netip.AddrPort
	cache cache.SnapshotCache
	stop  func()
	proxy *proxy.Proxy
	// resources by type and name, as they are to be; push makes them so.
	resources map[string]map[string]types.Resource
	version   int

	mu    sync.Mutex
	nacks []string
	acks  map[string]int // by type
}

// bothWays runs a test in delta and in state of the world.
func bothWays(t *testing.T, test func(*testing.T, *plane)) {
	for name, sotw := range map[string]bool{"delta": false, "state of the world": true} {
		t.Run(name, func(t *testing.T) { test(t, start(t, sotw)) })
	}
}

func start(t *testing.T, sotw bool) *plane {
	t.Helper()
	p := &plane{
		t: t, addr: freeporttest.Addr(t), cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil),
		resources: make(map[string]map[string]types.Resource), acks: make(map[string]int),
	}
	p.serve()
	t.Cleanup(func() { p.stop() })

	cfg := proxy.Defaults()
	cfg.Control, cfg.Plaintext, cfg.SotW = p.addr.String(), true, sotw
	cfg.Admin, cfg.Metrics, cfg.Health, cfg.DNS = netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}
	cfg.Node.Name, cfg.Node.Namespace, cfg.Node.Addrs = "guest", "default", []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	cfg.Drain = 100 * time.Millisecond
	cfg.Logs = logs.New(os.Stderr, logs.Config{Level: slog.LevelError})
	px, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.proxy = px
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := px.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

// serve starts the stock server, again after stop.
func (p *plane) serve() {
	p.t.Helper()
	ln, err := net.Listen("tcp", p.addr.String())
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, p.cache, server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, r *discoveryv3.DiscoveryRequest) error {
			p.answered(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
			p.answered(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
			return nil
		},
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(ln) }()
	var once sync.Once
	p.stop = func() { once.Do(func() { cancel(); g.Stop(); <-done }) }
}

func (p *plane) answered(typeURL, nonce string, nack interface{ GetMessage() string }) {
	p.mu.Lock()
	defer p.mu.Unlock()
	short := typeURL[strings.LastIndexByte(typeURL, '.')+1:]
	if text := nack.GetMessage(); text != "" {
		p.nacks = append(p.nacks, short+": "+text)
	} else if nonce != "" {
		p.acks[short]++
	}
}

// refusals returns what was refused since the last call.
func (p *plane) refusals() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.nacks
	p.nacks = nil
	return all
}

// put adds or replaces resources: YAML documents, each with its @type.
func (p *plane) put(text string) {
	p.t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var v any
		if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
			p.t.Fatalf("%v in\n%s", err, doc)
		}
		b, err := json.Marshal(v)
		if err != nil {
			p.t.Fatal(err)
		}
		packed := &anypb.Any{}
		if err := protojson.Unmarshal(b, packed); err != nil {
			p.t.Fatalf("%v in\n%s", err, doc)
		}
		r, err := packed.UnmarshalNew()
		if err != nil {
			p.t.Fatal(err)
		}
		of := p.resources[packed.GetTypeUrl()]
		if of == nil {
			of = make(map[string]types.Resource)
			p.resources[packed.GetTypeUrl()] = of
		}
		of[cache.GetResourceName(r)] = r
	}
}

// drop removes resources by type and name.
func (p *plane) drop(typeURL string, names ...string) {
	for _, n := range names {
		delete(p.resources[typeURL], n)
	}
}

// push publishes the resources.
func (p *plane) push() {
	p.t.Helper()
	p.version++
	all := make(map[string][]types.Resource)
	for typeURL, of := range p.resources {
		for _, r := range of {
			all[typeURL] = append(all[typeURL], r)
		}
	}
	s, err := cache.NewSnapshot(fmt.Sprint(p.version), all)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cache.SetSnapshot(context.Background(), nodeID, s); err != nil {
		p.t.Fatal(err)
	}
}

// becomes waits until get is answered with body over c.
func becomes(t *testing.T, c *mesh.Caller, path, body string, header ...string) {
	t.Helper()
	mesh.Eventually(t, path+" is answered "+body, func() error {
		a, err := c.Get(path, header...)
		if err == nil && a.Body != body {
			err = fmt.Errorf("%d %q", a.Status, a.Body)
		}
		if err != nil {
			c.Close()
		}
		return err
	})
}

// app answers with its name.
func app(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, name) }))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return netip.MustParseAddrPort(srv.Listener.Addr().String())
}

const (
	clusterYAML = `"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: %[1]s
type: EDS
connect_timeout: %[2]s
lb_policy: %[3]s
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
`
	listenerYAML = `"@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: %[1]s
address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: %[3]s
      rds: {route_config_name: %[4]s, config_source: {ads: {}, resource_api_version: V3}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`
	tlsYAML = `  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%sTlsContext
      common_tls_context:
        tls_certificate_sds_secret_configs: [{name: %s, sds_config: {ads: {}, resource_api_version: V3}}]
        validation_context_sds_secret_config: {name: %s, sds_config: {ads: {}, resource_api_version: V3}}
`
	routesYAML = `"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: %s
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
`
)

func (p *plane) cluster(name, timeout, policy string) {
	p.t.Helper()
	p.put(fmt.Sprintf(clusterYAML, name, timeout, policy))
}

func (p *plane) endpoints(name string, addrs ...netip.AddrPort) {
	p.t.Helper()
	text := `"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment` + "\ncluster_name: " + name + "\nendpoints:\n- lb_endpoints:\n"
	for _, a := range addrs {
		text += fmt.Sprintf("  - {endpoint: {address: {socket_address: {address: %s, port_value: %d}}}}\n", a.Addr(), a.Port())
	}
	p.put(text)
}

// routes makes a table of lines "match: …, route: …".
func (p *plane) routes(name string, lines ...string) {
	p.t.Helper()
	text := fmt.Sprintf(routesYAML, name)
	for _, l := range lines {
		text += "  - {" + l + "}\n"
	}
	p.put(text)
}
