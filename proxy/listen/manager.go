// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// A Handler conducts a connection whose chain has been chosen, and returns when
// it is over; the caller closes conn.
type Handler func(conn net.Conn, facts *filter.Conn, tie *Tie)

// Config is what a Manager needs.
type Config struct {
	// Serve gets each connection with the chain that concerns it.
	Serve Handler
	// Unmatched is told of connections that no chain takes (flag NR), or whose TLS failed.
	Unmatched func(l *config.Listener, facts *filter.Conn, why error)
	// Listen opens a socket; nil: netio.Listen.
	Listen func(ctx context.Context, addr netip.AddrPort, opt netio.SocketOptions) (net.Listener, error)
	Log    *slog.Logger
	// DrainTime is how long connections of a chain that is gone may go on
	// (Envoy --drain-time-s, 45 s with Istio).
	DrainTime time.Duration
	// MaxConns bounds open connections (overload.global_downstream_max_connections); 0: no bound.
	MaxConns int64
}

// A Manager holds the sockets and connections of one proxy.
type Manager struct {
	cfg   Config
	state atomic.Pointer[state]

	active atomic.Int64
	lastID atomic.Uint64
	wg     sync.WaitGroup

	mu      sync.Mutex
	sockets map[string]*socket // by listener name
	lives   map[*config.FilterChain]*life
	// silent are connections without a chain yet: for all we know their clients
	// have sent nothing, and may not for long.
	silent map[net.Conn]struct{}
	alive  map[*config.FilterChain]bool // the chains of the snapshot in force
	closed bool
	// drained are the directions whose listeners stay closed, whatever snapshots come.
	drained struct{ inbound, all bool }

	unopened map[string]error // by listener name, since the last Reconcile
}

// state is what accepting needs of a snapshot.
type state struct {
	snapshot *config.Snapshot
	byAddr   map[netip.AddrPort]*config.Listener // for hand-off
	byName   map[string]*config.Listener
}

// New returns a Manager without sockets; Reconcile opens them.
func New(cfg Config) *Manager {
	if cfg.Listen == nil {
		cfg.Listen = func(ctx context.Context, addr netip.AddrPort, opt netio.SocketOptions) (net.Listener, error) {
			return netio.Listen(ctx, addr, opt)
		}
	}
	if cfg.Unmatched == nil {
		cfg.Unmatched = func(*config.Listener, *filter.Conn, error) {}
	}
	m := &Manager{cfg: cfg, sockets: make(map[string]*socket), lives: make(map[*config.FilterChain]*life), silent: make(map[net.Conn]struct{})}
	m.state.Store(&state{snapshot: &config.Snapshot{}})
	return m
}

// Reconcile makes next current: it opens what is new before it closes what is
// gone, keeps ports whose address stays, whoever has it now, and drains only connections whose
// chain is no longer there and has no successor. The error joins one per listener that could not be
// opened; the others serve, and so does what such a listener had open before. What Drain has closed stays
// closed, which is no error.
func (m *Manager) Reconcile(ctx context.Context, next *config.Snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("listen: the proxy is shutting down")
	}
	was, failed := m.state.Load(), m.unopened
	m.unopened = map[string]error{}
	m.state.Store(newState(next))
	left := m.leavingLocked()
	wanted := make(map[string]bool)
	for _, l := range next.Listeners {
		if !l.Bind {
			continue
		}
		if m.drainedLocked(l) {
			if o := was.byName[l.Name]; o == nil || !o.SameSocket(l) || failed[l.Name] != nil {
				m.cfg.Log.Info("a listener is not opened, because the proxy was drained", "listener", l.Name)
			}
			continue
		}
		wanted[l.Name] = true
		if err := m.put(ctx, l, &left); err != nil {
			m.unopened[l.Name] = err
		}
	}
	for _, p := range left {
		if s := p.owner.Load(); !wanted[s.name] || m.sockets[s.name] != s {
			p.close()
		}
	}
	for name, s := range m.sockets {
		err := m.unopened[name]
		switch {
		case !wanted[name], err != nil && len(s.ports) == 0:
			delete(m.sockets, name)
		case err != nil:
			m.unopened[name] = fmt.Errorf("%w; until then it listens on %s as before", err, s.where())
		}
	}
	m.drainGoneLocked(next)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m.unopened)) {
		errs = append(errs, fmt.Errorf("listener %s: %w", name, m.unopened[name]))
	}
	return errors.Join(errs...)
}

// Unopened are the listeners that should be open since the last Reconcile and are not, with the reasons. It is not written to.
func (m *Manager) Unopened() map[string]error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unopened
}

func newState(snap *config.Snapshot) *state {
	s := &state{snapshot: snap, byAddr: make(map[netip.AddrPort]*config.Listener), byName: make(map[string]*config.Listener, len(snap.Listeners))}
	for _, l := range snap.Listeners {
		s.byName[l.Name] = l
		for _, a := range l.Addrs {
			if a.IP.IsValid() {
				s.byAddr[a.IP] = l
			}
		}
	}
	return s
}

// handOff finds the listener that takes a connection to dst: the exact address,
// else the port on the wildcard address of its family, else none.
func (s *state) handOff(dst netip.AddrPort) *config.Listener {
	if l := s.byAddr[dst]; l != nil {
		return l
	}
	wildcard := netip.IPv4Unspecified()
	if dst.Addr().Is6() {
		wildcard = netip.IPv6Unspecified()
	}
	return s.byAddr[netip.AddrPortFrom(wildcard, dst.Port())]
}

// HandOff finds the listener of snap that takes over a connection to dst; nil: none.
func HandOff(snap *config.Snapshot, dst netip.AddrPort) *config.Listener {
	return newState(snap).handOff(dst)
}

// drainGoneLocked tells the connections of chains that neither next nor an open socket has to end,
// and ends them itself when the drain time is over.
func (m *Manager) drainGoneLocked(next *config.Snapshot) {
	alive := make(map[*config.FilterChain]bool)
	keep := func(l *config.Listener) {
		for _, c := range l.Chains {
			alive[c] = true
		}
		if l.Default != nil {
			alive[l.Default] = true
		}
	}
	for _, l := range next.Listeners {
		keep(l)
	}
	for _, s := range m.sockets { // what next has could perhaps not be opened
		keep(s.current.Load())
	}
	m.alive = alive
	for chain, life := range m.lives { // those that are added meanwhile are alive
		if !alive[chain] {
			m.moveLocked(chain, life)
			m.drainLocked(chain, life)
		}
	}
}

func (m *Manager) drainLocked(chain *config.FilterChain, l *life) {
	if l.over {
		return
	}
	l.over = true
	for t := range l.ties {
		close(t.drain)
	}
	if len(l.ties) == 0 {
		if m.lives[chain] == l {
			delete(m.lives, chain)
		}
		return
	}
	time.AfterFunc(m.cfg.DrainTime, func() { m.end(chain, l) })
}

// end closes what a chain that is gone has left.
func (m *Manager) end(chain *config.FilterChain, l *life) {
	m.mu.Lock()
	conns := make([]net.Conn, 0, len(l.ties))
	for t := range l.ties {
		conns = append(conns, t.conn)
	}
	if m.lives[chain] == l {
		delete(m.lives, chain)
	}
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// enter notes a connection that has no chain yet. It reports false if the
// Manager is closed.
func (m *Manager) enter(conn net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.silent[conn] = struct{}{}
	return true
}

// quit forgets what enter noted.
func (m *Manager) quit(conn net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.silent, conn)
}

// Drain stops taking connections for good, of inbound listeners only or of all, and asks
// the open ones to end (admin /drain_listeners, shutdown).
func (m *Manager) Drain(inboundOnly bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drained.inbound = true
	m.drained.all = m.drained.all || !inboundOnly
	for _, l := range m.state.Load().snapshot.Listeners {
		if !m.drainedLocked(l) {
			continue
		}
		chains := append(slices.Clone(l.Chains), l.Default)
		if s := m.sockets[l.Name]; s != nil {
			s.refused.Store(true)
			s.close()
			delete(m.sockets, l.Name)
			was := s.current.Load() // l, or what is open in its stead
			chains = append(append(chains, was.Chains...), was.Default)
		}
		for _, c := range chains {
			if life := m.lives[c]; c != nil && life != nil {
				m.drainLocked(c, life)
			}
		}
	}
}

func (m *Manager) drainedLocked(l *config.Listener) bool {
	return m.drained.all || m.drained.inbound && l.Direction == filter.Inbound
}

// closingTime is how long Close waits for those who conducted the connections
// that it has closed. It is less than a daemon's grace on top of the drain time.
const closingTime = 3 * time.Second

// Close drains everything, waits up to grace for connections to end, then closes
// them, and waits a moment for their handlers. The Manager cannot be used again.
func (m *Manager) Close(grace time.Duration) {
	m.mu.Lock()
	m.closed = true
	for _, s := range m.sockets {
		s.close()
	}
	for chain, l := range m.lives {
		m.drainLocked(chain, l)
	}
	for conn := range m.silent { // nothing of theirs is under way
		_ = conn.Close()
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-time.After(grace):
	}
	m.mu.Lock()
	left := maps.Clone(m.lives)
	m.mu.Unlock()
	for chain, l := range left {
		m.end(chain, l)
	}
	select {
	case <-done:
	case <-time.After(closingTime):
		m.cfg.Log.Error("connections were closed, but what serves them does not end; leaving it behind", "connections", m.active.Load(), "listeners", m.listenersOf(left))
	}
}

// listenersOf counts the connections of lives that have not ended, by listener.
func (m *Manager) listenersOf(lives map[*config.FilterChain]*life) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int)
	for _, l := range lives {
		for t := range l.ties {
			out[t.listener]++
		}
	}
	return out
}

// Active returns the number of open connections.
func (m *Manager) Active() int64 { return m.active.Load() }

// Addrs returns where the listener called name really listens (a configured
// port of 0 is resolved).
func (m *Manager) Addrs(name string) []net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []net.Addr
	if s := m.sockets[name]; s != nil {
		for _, p := range s.ports {
			out = append(out, p.ln.Addr())
		}
	}
	return out
}
