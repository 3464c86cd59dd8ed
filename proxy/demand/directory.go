// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
)

// Subscriptions is who asks the control plane: an xds.Subscriber, or a keep.Keeper before one.
type Subscriptions interface {
	Subscribe(typeURL string, names ...string)
	Unsubscribe(typeURL string, names ...string)
}

// A Store holds listeners, route tables and clusters: a config.Store.
type Store interface {
	Want(config.Need) config.Refs
	Drop(config.Need)
	Lacks(config.Need) (what string, err error)
}

// Config is how a Directory works. Begin with Defaults.
type Config struct {
	Subscriptions Subscriptions
	Store         Store
	Network       string // of the proxy; addresses are asked for as network/ip

	// Wait is how long a first connection is held for the control plane's answer.
	Wait time.Duration
	// Grace is how long a lost control plane counts as there, so that first connections are held for it: one that
	// is started again, with what makes proxies find it, takes seconds.
	Grace time.Duration
	// Idle is how long a destination of the mesh is kept unused, Unknown any other.
	Idle, Unknown time.Duration

	MaxDestinations int // of the mesh, and under way
	MaxUnknown      int
	MaxWaiting      int // destinations under way for whose answer connections wait
	// ScanRate and ScanBurst bound questions about addresses outside the mesh's
	// known ones, per second: who scans a network does not reach the control plane.
	ScanRate, ScanBurst int

	// Changed, if set, is told when a destination was added or has gone. It must not block.
	Changed func()
	Log     *slog.Logger // nil discards
}

// Defaults is the configuration of a Directory nobody has tuned; Subscriptions
// and Store are still to be given.
func Defaults() Config {
	return Config{
		Wait: 2 * time.Second, Grace: 10 * time.Second,
		Idle: 10 * time.Minute, Unknown: 30 * time.Second,
		MaxDestinations: 20_000, MaxUnknown: 1_000, MaxWaiting: 1_024,
		ScanRate: 200, ScanBurst: 1_000,
	}
}

// ErrNoService is what Resolve returns for a name that means nothing here.
var ErrNoService = errors.New("the mesh has no service of this name that is visible here")

// A Directory knows the destinations that the workload uses, and finds out about
// new ones. Lookup and its likes may be called from any goroutine; none of its
// methods but SetTemplate and SetKnown from a callback of the store.
type Directory struct {
	cfg      Config
	byAddr   shards[netip.AddrPort]
	byHost   shards[hostPort]
	template atomic.Pointer[template]
	known    atomic.Pointer[Known]
	clock    atomic.Int64  // nanoseconds; moves once a second
	refresh  chan struct{} // the template has changed

	mu        sync.Mutex
	entries   map[target]*entry
	busy      map[*entry]struct{} // those that wait for something to arrive
	questions map[string]*question
	facts     map[string]*fact // by resource name
	names     map[string]*fact // by name and aliases
	managers  map[string]*manager
	retired   []*Destination // replaced, and perhaps still used
	unknown   int            // entries in force that are not known
	link      link
	scans     bucket
	stats     Stats
	swept     time.Time
}

// New returns a Directory that knows nothing. Run does its housekeeping.
func New(cfg Config) (*Directory, error) {
	if cfg.Subscriptions == nil || cfg.Store == nil {
		return nil, errors.New("demand: Subscriptions or Store is not set")
	}
	if cfg.Wait <= 0 || cfg.Idle <= 0 || cfg.Unknown <= 0 || cfg.MaxDestinations <= 0 || cfg.MaxUnknown <= 0 || cfg.MaxWaiting <= 0 {
		return nil, errors.New("demand: begin with Defaults: a time or a limit is not set")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	d := &Directory{
		cfg: cfg, refresh: make(chan struct{}, 1),
		entries: map[target]*entry{}, busy: map[*entry]struct{}{}, questions: map[string]*question{},
		facts: map[string]*fact{}, names: map[string]*fact{}, managers: map[string]*manager{},
		scans: newBucket(cfg.ScanRate, cfg.ScanBurst),
	}
	d.byAddr.hash, d.byHost.hash = hashAddr, hashHost(maphash.MakeSeed())
	now := time.Now()
	d.link.since, d.swept = now, now
	d.clock.Store(now.UnixNano())
	return d, nil
}

// SetTemplate sets what destinations are made of: the chain of the outbound
// listener that is OnDemand; nil while there is none. Destinations follow it.
func (d *Directory) SetTemplate(chain *config.FilterChain) {
	was := d.template.Load()
	if chain == nil || was != nil && was.chain == chain {
		return // without a listener nothing can be called; what is known stays
	}
	d.template.Store(newTemplate(chain))
	select {
	case d.refresh <- struct{}{}:
	default:
	}
}

// Default returns the chain for destinations that are nobody's; nil while there
// is no template.
func (d *Directory) Default() *config.FilterChain {
	if t := d.template.Load(); t != nil {
		return t.unknown
	}
	return nil
}

// SetKnown sets which addresses and names belong to the mesh, whoever uses them.
func (d *Directory) SetKnown(k *Known) { d.known.Store(k) }

// Lookup returns where a captured connection to dst goes. The caller calls Done
// when the connection is over.
//
// A destination that is used costs one map lookup. A new one is held while the
// control plane is asked, at most Config.Wait, or until one that was just lost is
// back and has been asked, at most Config.Grace more. An error is a *fault.Fault: the
// destination may be the mesh's, and what is needed to reach it has not arrived.
func (d *Directory) Lookup(ctx context.Context, dst netip.AddrPort) (*Destination, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	if e := d.byAddr.get(dst); e != nil {
		if found := e.acquire(); found != nil {
			return found, nil
		}
	}
	return d.find(ctx, target{addr: dst})
}

// LookupHost is Lookup for a destination by name, as the workload's namespace
// means it: of a forward proxy, or of a Host header or SNI where the address is nobody's.
func (d *Directory) LookupHost(ctx context.Context, host string, port uint16) (*Destination, error) {
	if e := d.byHost.get(hostPort{host, port}); e != nil {
		if found := e.acquire(); found != nil {
			return found, nil
		}
	}
	return d.find(ctx, target{host: string(mesh.NormalHost(host)), port: port})
}

// Resolve returns the service that a complete host name means to the workload,
// or ErrNoService, or a fault.
func (d *Directory) Resolve(ctx context.Context, host string) (*Service, error) {
	found, err := d.LookupHost(ctx, host, 0)
	if err != nil {
		return nil, err
	}
	defer found.Done()
	if found.Service == nil {
		return nil, ErrNoService
	}
	return found.Service, nil
}

// find is Lookup for what is not in force.
func (d *Directory) find(ctx context.Context, t target) (*Destination, error) {
	begun := time.Now()
	d.mu.Lock()
	d.clock.Store(begun.UnixNano())
	e, f := d.entryLocked(t)
	var found *Destination
	if f == nil {
		found, f = e.outcome(d)
	}
	if found != nil || f != nil {
		if e != nil {
			e.called = begun
		}
		d.countLocked(f)
		d.mu.Unlock()
		return d.answer(t, found, f)
	}
	e.waiting++
	ready, left := e.ready, d.leftLocked(e)
	var gone error
	for over := false; found == nil && f == nil && !over; left = d.leftLocked(e) {
		d.mu.Unlock()
		held := time.NewTimer(left)
		select {
		case <-ready:
			over = true
		case <-held.C:
		case <-ctx.Done():
			gone, over = ctx.Err(), true
		}
		held.Stop()
		d.mu.Lock()
		found, f = e.outcome(d)
	}
	e.waiting--
	if found == nil && f == nil {
		f = d.lateLocked(e)
	}
	d.stats.held(time.Since(begun))
	d.countLocked(f)
	d.mu.Unlock()
	if gone != nil && found == nil {
		f = &fault.Fault{Side: fault.Client, Kind: fault.ClientGone, Object: "destination " + t.String(), Err: gone}
		return nil, f
	}
	return d.answer(t, found, f)
}

// entryLocked returns the entry for t, made if there is room for it.
func (d *Directory) entryLocked(t target) (*entry, *fault.Fault) {
	if e := d.entries[t]; e != nil {
		return e, nil
	}
	if f := d.admitLocked(t); f != nil {
		return nil, f
	}
	return d.enterLocked(t), nil
}

// outcome is what is clear about e already: a destination, or why there is none
// and waiting would not help; else neither.
func (e *entry) outcome(d *Directory) (*Destination, *fault.Fault) {
	if found := e.acquire(); found != nil {
		return found, nil
	}
	return nil, d.hopelessLocked(e)
}

// answer turns a fault into the default where t is certainly not the mesh's.
func (d *Directory) answer(t target, found *Destination, f *fault.Fault) (*Destination, error) {
	if f == nil {
		return found, nil
	}
	tmpl := d.template.Load()
	if tmpl == nil || f.Err == errRefused || d.within(t) {
		return nil, f
	}
	return &Destination{TCP: tmpl.unknown}, nil
}
