// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package control is the control plane: it reads what people wrote and what runs,
// and tells every proxy what concerns it.
//
//	control.go  Config, Defaults, New: the whole pipeline on one screen; Run
//	debug.go    the monitoring port: status, problems, places
//
// Outside worlds report through sources; front ends turn objects into facts and
// wishes; back ends turn those into resources; push sends what each proxy asked
// for and keeps what it acknowledged. Everything between is derived: nothing is
// remembered that a change would have to patch.
package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/control/envoy"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/istioapi"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/file"
	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/xds"
)

// Config is how a control plane is set up. Begin with Defaults.
type Config struct {
	// State is the folder that keeps the root of trust, the join tokens and the last good version of each object.
	State string
	// Folders hold the configuration: YAML, watched. Of two that hold one object
	// the earlier wins.
	Folders []string
	// XDS are the addresses of xDS and the certificate service, over TLS.
	XDS []netip.AddrPort
	// Monitoring serves status and metrics to this machine; invalid: none.
	Monitoring netip.AddrPort
	// CertLifetime of workloads; 0: 24 h.
	CertLifetime time.Duration
	// ServingNames are further names of the server's certificate.
	ServingNames []string
	Mesh         intent.Settings
	Log          func(component string) *slog.Logger
}

// Defaults is the configuration of a control plane nobody has tuned.
func Defaults() Config {
	return Config{
		XDS:        []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:15012")},
		Monitoring: netip.MustParseAddrPort("127.0.0.1:15014"),
		Mesh:       intent.Defaults(),
		Log:        func(string) *slog.Logger { return slog.New(slog.DiscardHandler) },
	}
}

// A Control is a control plane.
type Control struct {
	cfg       Config
	graph     *derive.Graph
	gatherer  *source.Gatherer
	objects   *source.Objects
	wishes    *intent.Wishes
	statuses  *istioapi.Statuses
	authority *ca.Authority
	hub       *push.Hub
	server    *xds.Server
	metrics   *telemetry.Registry
}

// RootFile is where the root certificate of a state folder is published for
// proxies to pin.
func RootFile(state string) string { return filepath.Join(state, ca.PublicFile) }

// New checks cfg and builds the pipeline. It opens the state folder, and no socket.
func New(cfg Config) (*Control, error) {
	if len(cfg.XDS) == 0 {
		return nil, errors.New("control plane: no address to serve proxies on")
	}
	authority, err := ca.Open(ca.Config{
		Dir: cfg.State, TrustDomain: cfg.Mesh.TrustDomain, Lifetime: cfg.CertLifetime, ServingNames: cfg.ServingNames, Log: cfg.Log("ca"),
	})
	if err != nil {
		return nil, err
	}
	admit := istioapi.Admit(cfg.Mesh)
	sources, err := fileSources(cfg.State, cfg.Folders, admit)
	if err != nil {
		return nil, err
	}

	g := derive.NewGraph()
	gatherer := source.Gather(g, admit, istioapi.StandIn, sources...)
	objects := gatherer.Objects()
	facts := registry.Build(g, objects, registry.Config{Domain: cfg.Mesh.Domain, ExportTo: cfg.Mesh.ServiceExportTo}, istioapi.Entries(g, objects, cfg.Mesh))
	wishes := intent.Merge(g, cfg.Mesh, facts, istioapi.Front(g, objects, cfg.Mesh))
	backend := envoy.New(g, facts, wishes)

	c := &Control{
		cfg: cfg, graph: g, gatherer: gatherer, objects: objects, wishes: wishes, authority: authority, metrics: telemetry.NewRegistry(telemetry.Config{}),
		statuses: istioapi.Review(g, objects, cfg.Mesh, facts, wishes),
	}
	c.hub = push.New(g, push.Config{Ready: c.ready, Log: cfg.Log("push"), Blames: func(r *xds.Resource, row derive.Origin) bool {
		k, ok := row.Key.(source.Key)
		return !ok || envoy.Blames(r, k)
	}, Refers: envoy.Refers}, forProxies(g, backend, cfg.Mesh.HTTP10))
	c.server = xds.NewServer(c.hub, xds.ServerConfig{Authenticate: authority.Authenticate, Log: cfg.Log("xds")})
	c.metrics.Collect(c.count)
	return c, nil
}

// fileSources reads folders. The last good version of what they hold is kept in the state folder, for what protects the
// mesh must not be gone because the control plane starts again while somebody's slip of the pen is in a file.
func fileSources(state string, folders []string, admit source.Admit) ([]source.Source, error) {
	good := func(e source.Entry) bool {
		return !slices.ContainsFunc(admit(e), func(p source.Problem) bool { return p.Severity == source.Error })
	}
	var out []source.Source
	for i, folder := range folders {
		cfg := file.Defaults(folder)
		if i > 0 {
			cfg.Name = fmt.Sprintf("file-%d", i+1)
		}
		cfg.Keep, cfg.Good = keepFolder(state, folder), good
		s, err := file.New(cfg)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// keepFolder is where the last good versions of a folder's objects are kept.
func keepFolder(state, folder string) string {
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	sum := sha256.Sum256([]byte(folder))
	return filepath.Join(state, "last-good", hex.EncodeToString(sum[:8]))
}

// forProxies joins the Envoy back end to the hub: everybody who speaks its types.
func forProxies(g *derive.Graph, b *envoy.Backend, http10 bool) push.Backend {
	var kinds []push.Kind[sight.Client]
	for _, k := range b.Kinds() {
		kinds = append(kinds, push.NewKind(g, k.TypeURL, k.Names, k.Get, func(client sight.Client, name string) envoy.Named {
			return envoy.Named{Client: client, Name: name}
		}))
	}
	everybody := func(*xds.Client) bool { return true }
	parse := func(c *xds.Client) (sight.Client, error) {
		client, err := sight.ParseClient(c.Node)
		client.Traits.HTTP10 = client.Traits.HTTP10 || http10
		return client, err
	}
	return push.NewBackend(everybody, parse, kinds...)
}

// ready is nil once every source has reported what was there at the start:
// before, a proxy would be told that what it knows is gone.
func (c *Control) ready() error {
	select {
	case <-c.gatherer.Synced():
		return nil
	default:
		return errors.New("the configuration has not been read yet")
	}
}

// Authority is the certificate authority: who runs a control plane issues join
// tokens through it.
func (c *Control) Authority() *ca.Authority { return c.authority }

// Run serves until ctx ends.
func (c *Control) Run(ctx context.Context) error {
	group := daemon.Group{Log: c.cfg.Log("daemon")}
	group.Go("sources", c.gatherer.Run)
	group.Go("certificate authority", c.authority.Run)
	for _, addr := range c.cfg.XDS {
		ln, err := netio.Listen(ctx, addr, netio.SocketOptions{})
		if err != nil {
			return fmt.Errorf("control plane: %w", err)
		}
		defer func() { _ = ln.Close() }() // where it ends before it begins to serve
		group.Go("xds "+addr.String(), func(ctx context.Context) error { return c.serve(ctx, ln) })
	}
	if c.cfg.Monitoring.IsValid() {
		admin := &daemon.Admin{Addr: c.cfg.Monitoring, Log: c.cfg.Log("monitoring")}
		c.register(admin)
		group.Go("monitoring", admin.Run)
	}
	return group.Run(ctx)
}

// serve answers proxies on one listener until ctx ends.
func (c *Control) serve(ctx context.Context, ln net.Listener) error {
	options := append(c.server.Options(), grpc.Creds(credentials.NewTLS(c.authority.ServerTLS())))
	s := grpc.NewServer(options...)
	c.server.Register(s)
	c.authority.Register(s)
	var err error
	ended := make(chan struct{})
	go func() {
		err = s.Serve(ln)
		close(ended)
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		s.Stop() // streams are endless: waiting for them to end would be waiting for proxies to go
		<-ended  // then the address is free
		return nil
	}
}

// count emits what the control plane counts.
func (c *Control) count(e *telemetry.Emitter) {
	e.Gauge("pilot_xds", float64(c.server.Streams()))
	stats := c.graph.Stats()
	for _, q := range stats.Queries {
		tag := telemetry.Tag{Key: "query", Value: strings.ReplaceAll(q.Name, " ", "_")}
		e.Gauge("meltemi_derive_results", float64(q.Results), tag)
		e.Counter("meltemi_derive_computed_total", float64(q.Computed), tag)
	}
}
