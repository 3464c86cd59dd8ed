// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/xds"
)

// ours is the part of our proxy that reads configuration, and nothing that opens a port.
type ours struct {
	store  *config.Store
	client *xds.Subscriber

	mu     sync.Mutex
	asked  config.Wanted
	failed []string
}

func (o *ours) Apply(u xds.Update) []xds.Rejection {
	bad := o.store.Apply(u)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range bad {
		o.failed = append(o.failed, u.TypeURL+" "+r.Name+": "+r.Err.Error())
	}
	return bad
}

// wanted follows what the configuration names.
func (o *ours) wanted(w config.Wanted) {
	o.mu.Lock()
	was := o.asked
	o.asked = w
	o.mu.Unlock()
	for typeURL, names := range map[string][2][]string{
		config.TypeEndpoint: {w.Endpoints, was.Endpoints}, config.TypeRoute: {w.Routes, was.Routes}, config.TypeSecret: {w.Secrets, was.Secrets},
	} {
		if more := slices.DeleteFunc(slices.Clone(names[0]), func(n string) bool { return slices.Contains(names[1], n) }); len(more) > 0 {
			o.client.Subscribe(typeURL, more...)
		}
	}
}

// join connects it as n would be.
func (p *Plane) join(n Node) *ours {
	p.t.Helper()
	id := mesh.Identity{TrustDomain: mesh.DefaultTrustDomain, Namespace: n.Namespace, ServiceAccount: n.Account}
	token, _, err := p.Authority().Tokens().Issue(ca.ForIdentity(id), time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Authority().RootPEM())
	o := &ours{}
	registry := telemetry.NewRegistry(telemetry.Config{})
	clusters := upstream.NewSet(upstream.Config{Resolver: net.DefaultResolver})
	self := &filter.Peer{ID: n.id()}
	o.store, err = config.NewStore(config.Config{
		Clusters: clusters, Identity: &certs.Source{}, Registry: registry, Self: self, Metrics: stock.NewMetrics(self, "test", registry),
		OnSnapshot: func(*config.Snapshot) {}, OnWanted: o.wanted,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	labels, fields := map[string]any{}, map[string]any{"NAMESPACE": string(n.Namespace), "SERVICE_ACCOUNT": string(n.Account), "INSTANCE_IPS": n.Addr.String()}
	for k, v := range n.Labels {
		labels[k] = v
	}
	for k, v := range n.Meta {
		fields[k] = v
	}
	fields["LABELS"] = labels
	md, err := structpb.NewStruct(fields)
	if err != nil {
		p.t.Fatal(err)
	}
	node := &corev3.Node{Id: n.id(), Metadata: md, UserAgentName: "meltemi"}
	for _, k := range stock.Table() {
		node.Extensions = append(node.Extensions, &corev3.Extension{Name: k.Name, Category: k.Category})
	}
	o.client = xds.NewClient(xds.ClientConfig{
		Target: p.Addr.String(), Node: node, SotW: n.SotW,
		Options: []grpc.DialOption{
			grpc.WithTransportCredentials(certs.Credentials(func() (*tls.Config, error) { return certs.ControlPlaneConfig(roots, nil), nil })),
			grpc.WithPerRPCCredentials(certs.Bearer(func() (string, error) { return token, nil }, false)),
		},
	}, o)
	o.client.Subscribe(config.TypeCluster)
	o.client.Subscribe(config.TypeListener)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = o.client.Run(ctx) })
	p.t.Cleanup(func() { cancel(); wg.Wait(); o.store.Close(); clusters.Close() })
	return o
}

// answered reports whether n has asked for everything that it was pointed to, and answered it.
func (p *Plane) answered(n Node, o *ours) bool {
	e := Envoy{Node: n, plane: p}
	s := e.status()
	if s == nil {
		return false
	}
	o.mu.Lock()
	want := map[string]int{config.TypeCluster: 0, config.TypeListener: 0}
	for typeURL, names := range map[string][]string{config.TypeEndpoint: o.asked.Endpoints, config.TypeRoute: o.asked.Routes} {
		if len(names) > 0 {
			want[typeURL] = len(names)
		}
	}
	o.mu.Unlock()
	for _, t := range s.Types {
		if names, ok := want[t.TypeURL]; ok && t.Names >= names && t.Waiting == 0 && (t.Acked != "" || t.LastNack != nil) {
			delete(want, t.TypeURL)
		}
	}
	return len(want) == 0
}

// refusals are what our proxies do not do yet, and say so; an Envoy does it.
var refusals = []string{
	"original_src is not supported",      // the client's address towards the application (TPROXY)
	"outlier_detection is not supported", // statuses that count as errors (outlierDetectionHttpErrorCodes)
}

// Our own proxies read whatever Envoys are sent, and what only they are sent: nothing that one end writes is lost on the
// other.
func TestOurProxyReadsGoldenMeshes(t *testing.T) {
	archives, err := filepath.Glob("../../control/envoy/testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archives", err)
	}
	dir := t.TempDir()
	certificates(t, dir)
	for i, path := range archives {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		if strings.HasPrefix(name, "bookinfo") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p, nodes := golden(t, path, dir)
			for _, n := range nodes {
				n.SotW = i%2 == 0
				o := p.join(n)
				until(t, n.id()+" has everything", func() bool { return p.answered(n, o) })
				o.mu.Lock()
				for _, f := range o.failed {
					if !slices.ContainsFunc(refusals, func(r string) bool { return strings.Contains(f, r) }) {
						t.Errorf("%s refuses %s", n.id(), f)
					}
				}
				o.mu.Unlock()
			}
		})
	}
}
