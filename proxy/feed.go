// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/dns"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/demand"
	"github.com/meltemi/meltemi/wire/nds"
	"github.com/meltemi/meltemi/xds"
)

// typeNames is the DNS name table.
const typeNames = "type.googleapis.com/istio.networking.nds.v1.NameTable"

// newClient makes the xDS client with its first subscriptions. It opens nothing.
func (p *Proxy) newClient() error {
	node, err := p.cfg.Node.node()
	if err != nil {
		panic("proxy: " + err.Error()) // all values are strings
	}
	log := p.cfg.Logs.Logger("xds")
	transport := certs.Credentials(p.controlTLS)
	if p.cfg.Plaintext {
		transport = insecure.NewCredentials()
	}
	handler, err := p.newKeeper()
	if err != nil {
		return err
	}
	p.client = xds.NewClient(xds.ClientConfig{
		Target: p.cfg.Control,
		Options: []grpc.DialOption{
			grpc.WithTransportCredentials(transport),
			grpc.WithContextDialer(p.dialControl),
		},
		Node: node, SotW: p.cfg.SotW, Log: log,
		Connected: func(up bool, err error) {
			if err != nil {
				log.Warn("the control plane cannot be reached; what is known stays in force", "control", p.cfg.Control, "error", err)
			}
			if up {
				p.reachedOnce.Do(func() { close(p.reached) })
			}
			if p.demand != nil {
				p.demand.Connected(up, err)
			}
		},
	}, handler)
	p.asks = p.client
	if p.keeper != nil {
		p.asks = p.keeper.Follow(p.client)
	}
	p.asks.Subscribe(config.TypeCluster)
	p.asks.Subscribe(config.TypeListener)
	if p.dns != nil || p.demand != nil {
		p.asks.Subscribe(typeNames)
	}
	return nil
}

// dialControl reaches the control plane without being captured.
func (p *Proxy) dialControl(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Control: netio.Control(netio.SocketOptions{Mark: p.cfg.Mark})}
	return d.DialContext(ctx, "tcp", addr)
}

func (p *Proxy) controlTLS() (*tls.Config, error) {
	roots, err := p.controlRoots()
	if err != nil {
		return nil, err
	}
	return certs.ControlPlaneConfig(roots, p.identity), nil
}

func (p *Proxy) controlRoots() (*x509.CertPool, error) {
	b, err := os.ReadFile(p.cfg.RootFile)
	if err != nil {
		return nil, fmt.Errorf("the control plane's root certificate: %w", err)
	}
	return certs.ParseRoots(b)
}

func (p *Proxy) token() (string, error) {
	if p.cfg.TokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(p.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("the join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// rotator keeps the workload's certificate fresh.
func (p *Proxy) rotator() (*certs.Rotator, error) {
	ca, err := certs.NewCA(certs.CAConfig{
		Target: p.cfg.Control, Roots: p.controlRoots, Token: p.token, Source: p.identity,
		Options: []grpc.DialOption{grpc.WithContextDialer(p.dialControl)},
	})
	if err != nil {
		return nil, err
	}
	return &certs.Rotator{
		Identity: p.cfg.Node.Identity(), Authority: ca, Source: p.identity, Lifetime: p.cfg.CertLifetime, Log: p.cfg.Logs.Logger("certs"),
	}, nil
}

// Apply brings an update to the room it is for.
func (p *Proxy) Apply(u xds.Update) []xds.Rejection {
	if u.TypeURL == typeNames {
		return p.applyNames(u)
	}
	var to xds.Handler = p.store
	if p.demand != nil {
		to = p.demand.Handler(p.store)
	}
	rejected := to.Apply(u)
	if u.TypeURL == config.TypeListener {
		p.mu.Lock()
		p.configured = true
		p.mu.Unlock()
		// What need not warm listens before it is acknowledged.
		_ = p.open(context.Background()) // it is tried again, and said, by runListeners
	}
	for _, r := range rejected {
		p.log.Warn("a resource is refused; the one before it stays in force", "type", u.TypeURL, "name", r.Name, "error", r.Err)
	}
	return rejected
}

// runClient follows the control plane. It waits for the first certificate, by
// which the stream says who we are.
func (p *Proxy) runClient(ctx context.Context) error {
	if p.certified() {
		if _, err := p.identity.Wait(ctx); err != nil {
			return nil // the proxy ends before it was given one
		}
	}
	return p.client.Run(ctx)
}

// onSnapshot is called by the store, in order; the listeners follow on their own.
func (p *Proxy) onSnapshot(s *config.Snapshot) {
	if p.demand != nil {
		p.demand.SetTemplate(onDemandChain(s))
	}
	p.mu.Lock()
	p.pending = s
	p.mu.Unlock()
	p.poked()
}

// poked has runListeners look whether there is something to open.
func (p *Proxy) poked() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// runListeners opens sockets as snapshots come; at the end it drains them.
func (p *Proxy) runListeners(ctx context.Context) error {
	const first, last = 100 * time.Millisecond, 5 * time.Second
	var again <-chan time.Time
	pause := first
	for {
		select {
		case <-p.poke:
			pause = first
		case <-again: // a port that somebody else had may be free by now
		case <-ctx.Done():
			p.draining.Store(true)
			p.manager.Close(p.cfg.Drain)
			return nil
		}
		err := p.open(ctx)
		again = nil
		if err != nil {
			p.log.Error("a listener could not be opened; trying again", "error", err, "pause", pause)
			again = time.After(pause)
			pause = min(2*pause, last)
		}
	}
}

// open brings the sockets to what the newest snapshot wants. What cannot be opened is said to whoever asks, the control plane
// above all: a listener that does not listen is not in force.
func (p *Proxy) open(ctx context.Context) error {
	p.opening.Lock()
	defer p.opening.Unlock()
	warming := p.store.Warming()
	p.mu.Lock()
	next := p.pending
	if next == nil {
		p.served = p.served || p.configured && len(warming) == 0
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	err := p.manager.Reconcile(ctx, next)
	if ctx.Err() != nil {
		return err // the end is no reason to say anything
	}
	p.mu.Lock()
	p.unopened = err
	p.served = p.served || p.configured && len(warming) == 0
	p.mu.Unlock()
	unopened := p.manager.Unopened()
	p.store.SetUnopened(unopened)
	if p.client != nil {
		p.client.Review(config.TypeListener, unopened)
	}
	return err
}

// onWanted subscribes to what the configuration names.
func (p *Proxy) onWanted(w config.Wanted) {
	if p.client == nil {
		return
	}
	p.mu.Lock()
	prev := p.subscribed
	p.subscribed = w
	p.mu.Unlock()
	for _, t := range []struct {
		typeURL    string
		next, prev []string
	}{
		{config.TypeEndpoint, w.Endpoints, prev.Endpoints}, {config.TypeRoute, w.Routes, prev.Routes}, {config.TypeSecret, w.Secrets, prev.Secrets},
		{config.TypeCluster, w.Clusters, prev.Clusters}, {config.TypeListener, w.Listeners, prev.Listeners},
	} {
		if add := difference(t.next, t.prev); len(add) > 0 {
			p.asks.Subscribe(t.typeURL, add...)
		}
		if gone := difference(t.prev, t.next); len(gone) > 0 {
			p.asks.Unsubscribe(t.typeURL, gone...)
		}
	}
}

func (p *Proxy) loadStatic(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("static configuration: %w", err)
	}
	if _, err := p.store.LoadStatic(b); err != nil {
		return fmt.Errorf("static configuration %s: %w", path, err)
	}
	p.mu.Lock()
	p.configured = true
	p.mu.Unlock()
	p.poked() // if it has no listener, too
	return nil
}

// newDNS makes the DNS server, if one is wanted.
func (p *Proxy) newDNS() error {
	if !p.cfg.DNS.IsValid() {
		return nil
	}
	cfg := dns.Defaults()
	cfg.Listen = []netip.AddrPort{p.cfg.DNS}
	cfg.Scope = dns.Scope{Namespace: string(p.cfg.Node.Namespace), Search: p.cfg.ResolverSearch}
	cfg.Upstream = p.cfg.Resolvers
	cfg.Log = p.cfg.Logs.Logger("dns")
	cfg.Dial = func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
		d := net.Dialer{Control: netio.Control(netio.SocketOptions{Mark: p.cfg.Mark})}
		return d.DialContext(ctx, network, addr.String())
	}
	s, err := dns.New(cfg)
	if err != nil {
		return err
	}
	p.dns = s
	return nil
}

// applyNames gives the DNS server its table.
func (p *Proxy) applyNames(u xds.Update) []xds.Rejection {
	var entries []dns.Entry
	var rejected []xds.Rejection
	for _, r := range u.Resources {
		t := &nds.NameTable{}
		if err := r.Body.UnmarshalTo(t); err != nil {
			rejected = append(rejected, xds.Rejection{Name: r.Name, Err: err})
			continue
		}
		for host, info := range t.GetTable() {
			e := dns.Entry{Host: host, Kubernetes: info.GetRegistry() == "Kubernetes"}
			for _, ip := range info.GetIps() {
				a, err := netip.ParseAddr(ip)
				if err != nil {
					rejected = append(rejected, xds.Rejection{Name: r.Name, Err: fmt.Errorf("host %s: %w", host, err)})
					continue
				}
				e.Addrs = append(e.Addrs, a)
			}
			entries = append(entries, e)
		}
		if p.demand != nil {
			p.demand.SetKnown(demand.KnownFrom(t))
		}
	}
	if len(u.Resources) > 0 && p.dns != nil {
		p.dns.Swap(dns.NewTable(entries))
	}
	return rejected
}

var errNotConfigured = errors.New("the control plane has not sent the first configuration yet")
var errNoCertificate = errors.New("the workload's certificate has not been issued yet")

// Ready is nil when the first configuration is in force.
func (p *Proxy) Ready() error {
	p.mu.Lock()
	configured, served, unopened := p.configured, p.served, p.unopened
	p.mu.Unlock()
	switch {
	case !configured:
		return errNotConfigured
	case unopened != nil:
		return unopened
	case !served:
		return fmt.Errorf("listeners of the first configuration wait for their routes or secrets: %s", strings.Join(p.store.Warming(), ", "))
	case p.certified() && p.identity.Current() == nil:
		return errNoCertificate
	case p.dns != nil && !p.dns.Ready():
		return errors.New("the table of names has not arrived yet")
	}
	return nil
}
