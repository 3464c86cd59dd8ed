// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package proxy is the data plane: a sidecar or a gateway.
//
//	proxy.go    Config, Defaults, New: the whole proxy on one screen; Run
//	node.go     who the proxy is, towards control plane, peers and telemetry
//	feed.go     configuration in: resources to the store, names to the DNS server
//	restore.go  what was in use, kept on disk for a start without control plane
//	serve.go    connections in: which chain conducts them
//	ondemand.go connections to destinations that are learned of as they are called
//	tcp.go      counting and logging of connections that are not HTTP
//	adminview.go what the admin pages show
//
// A request goes listen › l7 (or l4) › route › filter › upstream; configuration
// comes xds › config › one pointer swap. The two meet in Snapshot and upstream.Set
// alone.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/dns"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/admin"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/demand"
	"github.com/meltemi/meltemi/proxy/demand/keep"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/l4"
	"github.com/meltemi/meltemi/proxy/l7"
	"github.com/meltemi/meltemi/proxy/listen"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
	"github.com/meltemi/meltemi/telemetry/logs"
	"github.com/meltemi/meltemi/xds"
)

// Config is how a proxy is set up. Begin with Defaults.
type Config struct {
	Node Node

	// Control is where xDS and the certificate service are: "host:port"; "" for
	// a proxy that lives from Static alone.
	Control string
	// RootFile holds the roots of the control plane's certificate, TokenFile the
	// join token; both are read anew for every connection.
	RootFile, TokenFile string
	// Plaintext speaks to Control without TLS, as to istiod's port 15010 or to a
	// control plane on this very machine. Its certificate service is not asked then:
	// certificates come as secrets, or not at all.
	Plaintext bool
	// Static is an Envoy bootstrap whose static resources are in force from the start.
	Static       string
	CertLifetime time.Duration // asked for; 0 leaves it to the authority
	// State is a folder where what is in use is kept, secrets apart, for a start
	// while the control plane is away; "": nothing is.
	State string
	SotW  bool // state-of-the-world instead of delta

	// Addresses of our own; an invalid one is not opened.
	Admin, Metrics, Health, DNS netip.AddrPort
	// Resolvers are asked for names that the mesh does not know; ResolverSearch is
	// the first search domain of the workload.
	Resolvers      []netip.AddrPort
	ResolverSearch string

	// Mark is set on every connection of ours (SO_MARK), so that capture lets it pass.
	Mark uint32
	// Drain is how long connections may go on when the proxy ends, or when their
	// chain is gone.
	Drain    time.Duration
	MaxConns int64
	Logs     *logs.Logs
	Version  string
}

// Defaults is the configuration of a proxy nobody has tuned.
func Defaults() Config {
	return Config{
		Admin:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), mesh.PortAdmin),
		Metrics: netip.AddrPortFrom(netip.IPv4Unspecified(), mesh.PortMetrics),
		Health:  netip.AddrPortFrom(netip.IPv4Unspecified(), mesh.PortHealth),
		Drain:   45 * time.Second, // Envoy's --drain-time-s as Istio sets it
		Version: "dev",
	}
}

// A Proxy is a data plane.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	identity *certs.Source
	clusters *upstream.Set
	registry *telemetry.Registry
	store    *config.Store
	files    *accesslog.Files
	l7       *l7.Server
	l4       *l4.Relay
	manager  *listen.Manager
	dns      *dns.Server        // nil: none
	demand   *demand.Directory  // nil: the whole configuration comes unasked
	client   *xds.Subscriber    // nil: no control plane
	keeper   *keep.Keeper       // nil: nothing is kept on disk
	asks     keep.Subscriptions // of client; the keeper listens

	draining atomic.Bool
	quit     chan struct{}
	quitOnce sync.Once

	opening sync.Mutex // held during open; taken before mu

	mu         sync.Mutex
	subscribed config.Wanted
	configured bool             // the first listeners have come
	served     bool             // and all of them were open, once
	pending    *config.Snapshot // to be reconciled
	unopened   error            // why a listener is not open that should be
	poke       chan struct{}

	reached     chan struct{} // closed when the control plane has answered
	reachedOnce sync.Once
}

// New checks cfg and puts the rooms together. It opens no socket.
func New(cfg Config) (*Proxy, error) {
	if cfg.Control == "" && cfg.Static == "" {
		return nil, errors.New("proxy: name a control plane or a static configuration")
	}
	if cfg.Logs == nil {
		cfg.Logs = logs.New(os.Stderr, logs.Config{Level: slog.LevelWarn})
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Logs.Logger("proxy"), started: time.Now(),
		identity: &certs.Source{}, registry: telemetry.NewRegistry(telemetry.Config{}),
		files: accesslog.NewFiles(time.Second),
		quit:  make(chan struct{}), poke: make(chan struct{}, 1), reached: make(chan struct{}),
	}
	p.clusters = upstream.NewSet(upstream.Config{Resolver: net.DefaultResolver, Mark: cfg.Mark})
	p.registry.Collect(admin.ClusterStats(p.clusters))
	formats := accesslog.Options{Hostname: cfg.Node.Name}
	self := cfg.Node.peer()
	var err error
	p.store, err = config.NewStore(config.Config{
		Clusters: p.clusters, Identity: p.ownIdentity(), Registry: p.registry,
		Metrics: stock.NewMetrics(self, cfg.Version, p.registry), Self: self, Formats: formats,
		OnSnapshot: p.onSnapshot, OnWanted: p.onWanted, Node: cfg.Node.dump(),
	})
	if err != nil {
		return nil, err
	}
	http := l7.Defaults()
	http.Registry, http.Files, http.Formats, http.Log = p.registry, p.files, formats, cfg.Logs.Logger("http")
	http.Node = l7.Node{ID: cfg.Node.id(), Cluster: cfg.Node.cluster()}
	http.DialCluster = p.dialCluster
	p.l7 = l7.New(http)
	p.l4 = l4.New(newConnLog(p.files, formats, p.log), &filter.Peers{})
	p.manager = listen.New(listen.Config{
		Serve: p.serve, Unmatched: p.unmatched, Log: cfg.Logs.Logger("listen"), DrainTime: cfg.Drain, MaxConns: cfg.MaxConns,
	})
	if err := p.newDNS(); err != nil {
		return nil, err
	}
	if err := p.newDemand(); err != nil {
		return nil, err
	}
	if cfg.Control != "" {
		if err := p.newClient(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// certified says whether a control plane gives the proxy its certificate.
func (p *Proxy) certified() bool { return p.cfg.Control != "" && !p.cfg.Plaintext }

// ownIdentity is nil for a proxy that nobody gives a certificate.
func (p *Proxy) ownIdentity() *certs.Source {
	if !p.certified() {
		return nil
	}
	return p.identity
}

// Run serves until ctx ends or somebody asks the proxy to quit; then it drains.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.cfg.Static != "" {
		if err := p.loadStatic(p.cfg.Static); err != nil {
			return err
		}
	}
	group := daemon.Group{Log: p.log, Grace: p.cfg.Drain + 5*time.Second}
	group.Go("quit", func(ctx context.Context) error {
		select {
		case <-p.quit:
			cancel()
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	})
	if err := p.addSideDoors(ctx, &group); err != nil {
		return err
	}
	group.Go("listeners", p.runListeners)
	if p.dns != nil {
		group.Go("dns", p.dns.Run)
	}
	if p.demand != nil {
		group.Go("demand", p.demand.Run)
	}
	if p.certified() {
		rotator, err := p.rotator()
		if err != nil {
			return err
		}
		group.Go("certificate", rotator.Run)
	}
	if p.client != nil {
		group.Go("xds", p.runClient)
		if p.keeper != nil {
			group.Go("state", p.keeper.Run)
			group.Go("restore", p.restore)
		}
	}
	err := group.Run(ctx)
	p.store.Close()
	p.l7.Close()
	p.clusters.Close()
	p.files.Close()
	return err
}

// addSideDoors adds the admin pages, metrics and health.
func (p *Proxy) addSideDoors(ctx context.Context, group *daemon.Group) error {
	for _, d := range []struct {
		name string
		addr netip.AddrPort
		add  func(*daemon.Admin)
	}{
		{"admin", p.cfg.Admin, func(a *daemon.Admin) {
			admin.Register(a, admin.Config{
				Proxy: adminView{p}, Registry: p.registry, Clusters: p.clusters, Logs: p.cfg.Logs, Version: p.cfg.Version, Started: p.started,
			})
		}},
		{"metrics", p.cfg.Metrics, func(a *daemon.Admin) { admin.Metrics(a, p.registry) }},
		{"health", p.cfg.Health, func(a *daemon.Admin) { admin.Health(a, adminView{p}) }},
	} {
		if !d.addr.IsValid() {
			continue
		}
		ln, err := netio.Listen(ctx, d.addr, netio.SocketOptions{})
		if err != nil {
			return fmt.Errorf("proxy %s: %w", d.name, err)
		}
		a := &daemon.Admin{Listener: ln, Log: p.log}
		d.add(a)
		group.Go(d.name, a.Run)
	}
	return nil
}

// Quit ends Run.
func (p *Proxy) Quit() { p.quitOnce.Do(func() { close(p.quit) }) }

// Addrs returns where the listener called name really listens.
func (p *Proxy) Addrs(name string) []net.Addr { return p.manager.Addrs(name) }

// Clusters returns the live clusters.
func (p *Proxy) Clusters() *upstream.Set { return p.clusters }

// Snapshot returns the configuration in force.
func (p *Proxy) Snapshot() *config.Snapshot { return p.store.Snapshot() }
