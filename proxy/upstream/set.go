// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sweepEvery is how often a Set looks at what time asks for.
const sweepEvery = time.Second

// A Resolver looks names up for DNS clusters; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what a Set needs.
type Config struct {
	Resolver Resolver
	Now      func() time.Time // nil: time.Now
	// Mark is set on connections to endpoints (SO_MARK), so that rules which
	// capture the workload's traffic let the proxy's own pass; 0: none.
	Mark uint32
}

// A Set is the live clusters of one proxy. Put, Remove and Assign are called by
// config, one at a time; everything else from anywhere.
type Set struct {
	cfg  Config
	stop context.CancelFunc
	ctx  context.Context
	done chan struct{}

	mu          sync.RWMutex
	refs        map[string]*Ref
	assignments map[string]*Assignment // by service name
	followers   map[string][]*Ref      // the EDS clusters of each service name
}

// A Ref is a cluster's name, resolved once. It is stable for the life of its
// Set whether or not the cluster exists, so a route holds it and never looks up.
type Ref struct {
	name   string
	stats  Stats
	limits limits
	cur    atomic.Pointer[Cluster]
}

// Name returns the cluster's name.
func (r *Ref) Name() string { return r.name }

// Load returns the live cluster, or nil if there is none (flag NC).
func (r *Ref) Load() *Cluster { return r.cur.Load() }

// lock returns the live cluster, locked, or nil if there is none.
func (r *Ref) lock() *Cluster {
	for {
		c := r.Load()
		if c == nil {
			return nil
		}
		c.mu.Lock()
		if !c.closed {
			return c
		}
		c.mu.Unlock() // another one has just taken over
	}
}

// Stats returns the counters of the cluster of this name.
func (r *Ref) Stats() *Stats { return &r.stats }

// NewSet returns an empty set and starts its housekeeping; Close ends it.
func NewSet(cfg Config) *Set {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Set{
		cfg: cfg, ctx: ctx, stop: stop, done: make(chan struct{}),
		refs: make(map[string]*Ref), assignments: make(map[string]*Assignment),
		followers: make(map[string][]*Ref),
	}
	go s.housekeep()
	return s
}

// Close ends all clusters: idle connections close, streams in flight finish.
func (s *Set) Close() {
	s.stop()
	<-s.done
	for _, r := range s.all() {
		if c := r.cur.Swap(nil); c != nil {
			c.retire()
		}
	}
}

// Ref returns the reference for name, making it if there is none.
func (s *Set) Ref(name string) *Ref {
	s.mu.RLock()
	r := s.refs[name]
	s.mu.RUnlock()
	if r != nil {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refLocked(name)
}

func (s *Set) refLocked(name string) *Ref {
	r := s.refs[name]
	if r == nil {
		r = &Ref{name: strings.Clone(name)}
		s.refs[r.name] = r
	}
	return r
}

// Put adds spec or replaces the cluster of its name. An equal Hash is a no-op;
// an equal ConnHash keeps every open connection.
func (s *Set) Put(spec *Spec) {
	s.mu.Lock()
	r := s.refLocked(spec.Name)
	assignment := spec.Endpoints
	if spec.Discovery == EDS {
		assignment = s.assignments[spec.serviceName()]
	}
	s.mu.Unlock()

	old := r.Load()
	if old != nil && old.spec.Hash == spec.Hash {
		return
	}
	next := newCluster(spec, r, s.cfg.Now)
	next.mark = s.cfg.Mark
	s.follow(r, old, next)
	var inherited []*Host
	if old != nil {
		old.mu.Lock() // until next has taken over: nobody is ejected in between, nor returns
		defer old.mu.Unlock()
		if old.spec.ConnHash == spec.ConnHash && old.spec.Discovery == spec.Discovery {
			inherited = next.inheritLocked(old)
		}
	}
	switch spec.Discovery {
	case Static, EDS:
		if assignment == nil {
			assignment = &Assignment{}
		}
		next.assign(assignment, inherited)
	case StrictDNS, LogicalDNS:
		if inherited != nil && old.assignment != nil {
			next.assign(old.assignment, inherited)
		}
		next.followDNS(s.ctx, s.cfg.Resolver)
	}
	r.cur.Store(next)
	if old != nil {
		old.retireLocked(inherited)
	}
}

// follow notes whose endpoints r wants, now that it is next and no longer old; either may be nil.
func (s *Set) follow(r *Ref, old, next *Cluster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil && old.spec.Discovery == EDS {
		name := old.spec.serviceName()
		rest := slices.DeleteFunc(s.followers[name], func(o *Ref) bool { return o == r })
		if s.followers[name] = rest; len(rest) == 0 {
			delete(s.followers, name)
		}
	}
	if next != nil && next.spec.Discovery == EDS {
		name := next.spec.serviceName()
		s.followers[name] = append(s.followers[name], r)
	}
}

// inheritLocked takes over the hosts of old, which is locked; assign drains those
// that are not wanted.
func (c *Cluster) inheritLocked(old *Cluster) []*Host {
	if c.originals != nil {
		for dst, h := range old.originals {
			c.originals[dst] = h
			c.originalsRO.Store(dst, h)
		}
	}
	hosts := old.hostsLocked()
	if c.spec.Outlier == nil {
		c.pardon(hosts)
	}
	return hosts
}

func (s *Spec) serviceName() string {
	if s.ServiceName != "" {
		return s.ServiceName
	}
	return s.Name
}

// Remove ends the cluster called name. Its Ref stays, and loads nil.
func (s *Set) Remove(name string) {
	s.mu.RLock()
	r := s.refs[name]
	s.mu.RUnlock()
	if r == nil {
		return
	}
	if c := r.cur.Swap(nil); c != nil {
		s.follow(r, c, nil)
		c.retire()
	}
}

// Assign sets the endpoints of every EDS cluster with this service name; they
// are kept for clusters that come later. A nil assignment forgets them.
func (s *Set) Assign(serviceName string, a *Assignment) {
	s.mu.Lock()
	if a == nil {
		delete(s.assignments, serviceName)
	} else {
		s.assignments[serviceName] = a
	}
	refs := slices.Clone(s.followers[serviceName])
	s.mu.Unlock()
	if a == nil {
		return
	}
	for _, r := range refs {
		if c := r.Load(); c != nil {
			c.assign(a, nil)
		}
	}
}

func (s *Set) all() []*Ref {
	s.mu.RLock()
	defer s.mu.RUnlock()
	refs := make([]*Ref, 0, len(s.refs))
	for _, r := range s.refs {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b *Ref) int { return strings.Compare(a.name, b.name) })
	return refs
}

// A Status is one cluster as /clusters shows it.
type Status struct {
	Spec  *Spec
	Stats *Stats
	Hosts []*Host
}

// Snapshot lists the live clusters by name.
func (s *Set) Snapshot() []Status {
	var out []Status
	for _, r := range s.all() {
		if c := r.Load(); c != nil {
			c.mu.Lock()
			out = append(out, Status{Spec: c.spec, Stats: c.stats, Hosts: c.hostsLocked()})
			c.mu.Unlock()
		}
	}
	return out
}

func (s *Set) housekeep() {
	defer close(s.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			for _, r := range s.all() {
				if c := r.Load(); c != nil {
					c.sweep(s.cfg.Now())
				}
			}
		}
	}
}
