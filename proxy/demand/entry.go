// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
)

// An entry is one destination: what is in force, and what is on its way.
type entry struct {
	target target
	cur    atomic.Pointer[Destination] // nil until it is ready

	// Guarded by Directory.mu.
	begun   time.Time     // of the entry
	called  time.Time     // last, while it was not ready
	ready   chan struct{} // closed when cur was set first, or err
	asked   []string      // the questions it needs the answers of
	next    *Destination  // holds what it wants of the store, and waits for that; may be nil
	missing string        // what has yet to arrive; "" for nothing
	err     error         // what arrived was refused
	waiting int           // connections that are held
}

// acquire returns the destination in force for one more connection, or nil.
func (e *entry) acquire() *Destination {
	for {
		cur := e.cur.Load()
		if cur == nil {
			return nil
		}
		if cur.acquire() {
			return cur
		}
		if e.cur.Load() == cur {
			return nil // it goes at this moment; whoever holds mu knows more
		}
	}
}

// enterLocked makes the entry for t and sets it on its way.
func (d *Directory) enterLocked(t target) *entry {
	e := &entry{target: t, begun: time.Now(), ready: make(chan struct{})}
	e.called = e.begun
	d.entries[t] = e
	d.advanceLocked(e)
	return e
}

// advanceLocked takes e as far as it can get with what is known: it may be
// called at any time, and changes nothing where nothing has changed.
func (d *Directory) advanceLocked(e *entry) {
	var asked []string
	p, missing := decide(e.target, d.cfg.Network, func(name string) (*fact, bool) {
		asked = append(asked, name)
		q := d.askLocked(name, e)
		return q.fact, q.answered
	})
	for _, name := range e.asked {
		if !slices.Contains(asked, name) {
			d.leaveLocked(name, e)
		}
	}
	e.asked, e.missing, e.err = asked, "", nil
	tmpl := d.template.Load()
	cur := e.cur.Load()
	switch {
	case missing != "":
		e.missing = "what " + missing + " is"
	case tmpl == nil:
		e.missing = "the listener for outbound connections"
	case cur != nil && cur.plan == p && cur.template == tmpl:
		d.discardLocked(e)
		delete(d.busy, e)
		return
	default:
		d.prepareLocked(e, p, tmpl)
		if e.missing, e.err = d.lacksLocked(e.next); e.missing == "" && e.err == nil {
			d.publishLocked(e)
			return
		}
	}
	d.busy[e] = struct{}{}
	if e.err != nil {
		e.resolve()
	}
}

func (e *entry) resolve() {
	select {
	case <-e.ready:
	default:
		close(e.ready)
	}
}

// prepareLocked makes e.next by p, and has the store want what it needs.
func (d *Directory) prepareLocked(e *entry, p plan, tmpl *template) {
	if e.next != nil && e.next.plan == p && e.next.template == tmpl {
		return
	}
	n := &Destination{
		Known: p.known, Protocol: p.protocol, Host: p.host, Namespace: p.namespace, Port: p.port, Service: p.service, Workload: p.workload,
		plan: p, template: tmpl, clock: &d.clock, TCP: tmpl.unknown,
	}
	n.used.Store(d.clock.Load())
	if n.need = p.need(e.target); n.need != (config.Need{}) {
		refs := d.cfg.Store.Want(n.need)
		n.listener = refs.Listener
		if n.need.Cluster != "" {
			n.TCP = tmpl.tcp(tmpl.chain.OnDemand.TCP.For(refs.Cluster))
			n.TCP.TCP.StatPrefix = n.need.Cluster
		}
		if n.need.Route != "" {
			n.HTTP = d.manageLocked(refs.Routes, tmpl)
		}
	}
	if n.early = p.early(); n.early != (config.Need{}) {
		d.cfg.Store.Want(n.early)
	}
	d.discardLocked(e)
	e.next = n
}

// publishLocked puts e.next in force.
func (d *Directory) publishLocked(e *entry) {
	n, old := e.next, e.cur.Load()
	e.next = nil
	if n.early != (config.Need{}) {
		d.cfg.Store.Drop(n.early)
		n.early = config.Need{}
	}
	if old != nil {
		n.used.Store(old.used.Load())
		old.entry = e
		d.retired = append(d.retired, old)
		if !old.Known {
			d.unknown--
		}
	}
	e.cur.Store(n)
	if old == nil {
		if e.target.host == "" {
			d.byAddr.put(e.target.addr, e)
		} else {
			d.byHost.put(hostPort{e.target.host, e.target.port}, e)
		}
	}
	if !n.Known {
		d.unknown++
	}
	delete(d.busy, e)
	e.resolve()
	d.cfg.Changed()
	d.cfg.Log.Debug("destination in force", "target", e.target, "known", n.Known, "host", n.Host, "protocol", n.Protocol, "took", time.Since(e.begun))
}

// discardLocked gives up what was on its way for e.
func (d *Directory) discardLocked(e *entry) {
	if e.next != nil {
		d.releaseLocked(e.next)
		e.next = nil
	}
}

// removeLocked takes e away. It may have nothing in force, or what nobody uses.
func (d *Directory) removeLocked(e *entry) bool {
	if cur := e.cur.Load(); cur != nil {
		if !cur.giveUp() {
			return false
		}
		if e.target.host == "" {
			d.byAddr.remove(e.target.addr)
		} else {
			d.byHost.remove(hostPort{e.target.host, e.target.port})
		}
		e.cur.Store(nil)
		d.releaseLocked(cur)
		if !cur.Known {
			d.unknown--
		}
		d.cfg.Changed()
	}
	d.discardLocked(e)
	delete(d.entries, e.target)
	delete(d.busy, e)
	for _, name := range e.asked {
		d.leaveLocked(name, e)
	}
	return true
}

// releaseLocked takes back what n wanted of the store.
func (d *Directory) releaseLocked(n *Destination) {
	if n.HTTP != nil {
		d.unmanageLocked(n.need.Route)
	}
	for _, need := range [...]config.Need{n.need, n.early} {
		if need != (config.Need{}) {
			d.cfg.Store.Drop(need)
		}
	}
}

// lacksLocked says what n waits for. What is only wanted early is not waited for:
// routes may lead elsewhere.
func (d *Directory) lacksLocked(n *Destination) (string, error) {
	if n.need == (config.Need{}) {
		return "", nil
	}
	return d.cfg.Store.Lacks(n.need)
}

// A manager is the chain for one route table, which destinations of several
// addresses share.
type manager struct {
	chain    *config.FilterChain
	template *template
	users    int
}

func (d *Directory) manageLocked(routes *config.RouteRef, tmpl *template) *config.FilterChain {
	m := d.managers[routes.Name()]
	if m == nil {
		m = &manager{}
		d.managers[routes.Name()] = m
	}
	m.users++
	if m.template != tmpl || m.chain.HTTP.Routes != routes {
		m.chain, m.template = tmpl.http(routes), tmpl
	}
	return m.chain
}

func (d *Directory) unmanageLocked(route string) {
	if m := d.managers[route]; m != nil {
		if m.users--; m.users == 0 {
			delete(d.managers, route)
		}
	}
}
