// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// A feed is what one client is to be sent. Its own goroutine is the one that calls Next: it turns requests and changes
// into updates, one step at a time, and takes no step before the updates of the last one are sent.
type feed struct {
	hub     *Hub
	client  *xds.Client
	kinds   []bound // in the order of pushing
	watcher *derive.Watcher
	wake    chan struct{} // something was asked or acknowledged

	// Of Next.
	topics   []*topic // in the order of pushing; changed by carryOut only, under mu
	queue    []*xds.Update
	changed  bool // the watcher has said so, and no step has been taken since
	nonces   uint64
	trailing map[string]struct{} // clusters still to be removed
	trailed  time.Time           // since when the first of them is waiting

	mu      sync.Mutex
	asks    []*ask              // one per type
	working bool                // a step has begun whose updates are not all queued
	active  time.Time           // when the client last asked or answered
	answers map[string]*answers // by type URL
}

var _ xds.Feed = (*feed)(nil)

func newFeed(h *Hub, c *xds.Client, kinds []bound) *feed {
	return &feed{
		hub: h, client: c, kinds: kinds, watcher: h.g.NewWatcher(), wake: make(chan struct{}, 1),
		trailing: map[string]struct{}{}, answers: map[string]*answers{},
	}
}

// Subscribe notes what is asked; Next answers.
func (f *feed) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	f.mu.Lock()
	f.ask(typeURL).merge(f.find(typeURL), add, remove, wildcard)
	f.active = time.Now()
	f.mu.Unlock()
	f.poke()
}

func (f *feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Close lets go of everything.
func (f *feed) Close() {
	f.watcher.Close()
	f.hub.close(f)
}

// Next returns the next update to be sent.
func (f *feed) Next(ctx context.Context) (*xds.Update, error) {
	for len(f.queue) == 0 {
		if err := f.await(ctx); err != nil {
			return nil, err
		}
		if err := f.step(); err != nil {
			return nil, err
		}
	}
	u := f.queue[0]
	f.queue = f.queue[1:]
	return u, nil
}

// await blocks until there is something to do: at once for what was asked, after a pause for what has changed.
func (f *feed) await(ctx context.Context) error {
	for !f.asked() {
		wait, due := f.trailDue(false)
		if due {
			return nil
		}
		if !f.changed {
			if err := f.sleep(ctx, wait); err != nil {
				return err
			}
		}
		if f.changed {
			return f.settle(ctx)
		}
	}
	return nil
}

// sleep blocks until something happens, or until wait, if there is one, is over.
func (f *feed) sleep(ctx context.Context, wait time.Duration) error {
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.watcher.Ready():
		f.changed = true
	case <-f.wake:
	case <-timer:
	}
	return nil
}

func (f *feed) asked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asks) > 0
}

// settle waits until no version has come for Quiet, at most Max.
func (f *feed) settle(ctx context.Context) error {
	t := time.NewTimer(f.hub.cfg.Quiet)
	defer t.Stop()
	version, began := f.hub.g.Version(), time.Now()
	for !f.asked() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
			continue
		case <-t.C:
		}
		now := f.hub.g.Version()
		left := f.hub.cfg.Max - time.Since(began)
		if now == version || left <= 0 {
			return nil
		}
		version = now
		t.Reset(min(f.hub.cfg.Quiet, left))
	}
	return nil
}

// step carries out what was asked, and queues an update for each type of which something has changed. All of them show
// one version. A query that panics ends this client's stream, not the control plane.
func (f *feed) step() (err error) {
	defer func() {
		if p := recover(); p != nil {
			f.hub.cfg.Log.Error("configuration cannot be computed; this is a defect of the control plane",
				"client", f.client.ID, "panic", p, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "the configuration cannot be computed: %v", p)
		}
	}()
	f.carryOut()
	var updates []*xds.Update
	f.watcher.Collect(func(c *derive.Context, changed []*derive.Hold) {
		for _, h := range changed {
			h.Tag().(tag).changed()
		}
		for _, t := range f.topics {
			if d := t.build(c); d != nil {
				f.follow(t, d)
				if d.Full || len(d.Resources) > 0 || len(d.Removed) > 0 {
					updates = append(updates, &d.Update)
				}
			}
		}
	})
	if u := f.trail(len(updates) > 0); u != nil {
		updates = append(updates, u)
	}
	return f.send(updates)
}

// carryOut changes what the client wants as it asked. Subscribe, which needs to know what is wanted, waits meanwhile.
func (f *feed) carryOut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	asks := f.asks
	f.asks, f.working, f.changed = nil, true, false
	for _, a := range asks {
		f.topic(a.typeURL).ask(a)
	}
}

// ask is what the client asked of a type and is not carried out. Under mu.
func (f *feed) ask(typeURL string) *ask {
	for _, a := range f.asks {
		if a.typeURL == typeURL {
			return a
		}
	}
	a := newAsk(f.find(typeURL), typeURL)
	f.asks = append(f.asks, a)
	return a
}

// find is what the client wants of a type; nil if it never asked.
func (f *feed) find(typeURL string) *topic {
	i := slices.IndexFunc(f.topics, func(t *topic) bool { return t.typeURL == typeURL })
	if i < 0 {
		return nil
	}
	return f.topics[i]
}

// topic finds or makes what the client wants of a type. A type that its backend does not have is empty. Under mu.
func (f *feed) topic(typeURL string) *topic {
	if t := f.find(typeURL); t != nil {
		return t
	}
	i := slices.IndexFunc(f.kinds, func(k bound) bool { return k.typeURL == typeURL })
	t := &topic{bound: bound{typeURL: typeURL}, rank: len(f.kinds), watcher: f.watcher, items: map[string]*item{}}
	if i >= 0 {
		t.bound, t.rank = f.kinds[i], i
	}
	if typeURL == typeEndpoint {
		t.spares = f.spares
	}
	f.topics = append(f.topics, t)
	slices.SortStableFunc(f.topics, func(a, b *topic) int { return cmp.Compare(a.rank, b.rank) })
	f.answers[typeURL] = &answers{typeURL: typeURL, rejected: map[string]Rejection{}}
	return t
}

// follow does what d, an update of t, makes necessary: clusters that are gone are kept for later. And an Envoy whose
// cluster is new or changed, or who has asked for its clusters anew, waits for endpoints even if these have not changed.
func (f *feed) follow(t *topic, d *draft) {
	if t.typeURL != typeCluster {
		return
	}
	for _, r := range d.Resources {
		delete(f.trailing, r.Name)
	}
	for _, n := range d.Removed {
		delete(f.trailing, n)
	}
	if len(d.later) > 0 && len(f.trailing) == 0 {
		f.trailed = time.Now()
	}
	for _, n := range d.later {
		f.trailing[n] = struct{}{}
	}
	i := slices.IndexFunc(f.topics, func(t *topic) bool { return t.typeURL == typeEndpoint })
	if i < 0 {
		return
	}
	if d.Full {
		f.topics[i].forceAll()
		return
	}
	for _, r := range d.Resources {
		f.topics[i].force(r.Name)
	}
}

// spares reports whether a cluster that is about to go keeps its endpoints: until what names it has changed, requests
// still go there. If it comes back, follow has its endpoints sent, and trail if it goes.
func (f *feed) spares(name string) bool {
	_, going := f.trailing[name]
	return going
}

// trailDue reports whether removed clusters may be taken from the client now, or else in how long to look
// again. busy: something else is about to be sent.
func (f *feed) trailDue(busy bool) (wait time.Duration, due bool) {
	if len(f.trailing) == 0 {
		return 0, false
	}
	cfg := &f.hub.cfg
	f.mu.Lock()
	defer f.mu.Unlock()
	left := cfg.RemoveMax - time.Since(f.trailed)
	if left <= 0 {
		return 0, true
	}
	for _, a := range f.answers {
		busy = busy || len(a.waiting) > 0
	}
	if busy || f.trailAsked() {
		return left, false // an answer wakes us, or the end of a subscription
	}
	quiet := cfg.RemoveAfter - time.Since(f.active)
	return min(left, quiet), quiet <= 0
}

// trailAsked reports whether the client asks by name for a cluster that is about to go: its routes still name it, or it would
// not.
func (f *feed) trailAsked() bool {
	i := slices.IndexFunc(f.topics, func(t *topic) bool { return t.typeURL == typeCluster })
	if i < 0 {
		return false
	}
	for n := range f.trailing {
		if f.topics[i].items[n] != nil {
			return true
		}
	}
	return false
}

// trail is the update that takes removed clusters from the client, if it is time.
func (f *feed) trail(busy bool) *xds.Update {
	if _, due := f.trailDue(busy); !due {
		return nil
	}
	u := &xds.Update{TypeURL: typeCluster, Version: f.version(f.hub.g.Version()), Removed: slices.Sorted(maps.Keys(f.trailing))}
	clear(f.trailing)
	if i := slices.IndexFunc(f.topics, func(t *topic) bool { return t.typeURL == typeEndpoint }); i >= 0 {
		for _, n := range u.Removed {
			f.changed = f.topics[i].forceSpared(n) || f.changed
		}
	}
	return u
}

func (f *feed) version(v derive.Version) string { return strconv.FormatUint(uint64(v), 10) }

// send queues updates, and expects an answer to each. A client that gives none is not sent more and more: nobody could
// tell what of it is in force.
func (f *feed) send(updates []*xds.Update) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, u := range updates {
		f.nonces++
		u.Nonce = fmt.Sprintf("%s-%d", u.Version, f.nonces)
		f.answers[u.TypeURL].expect(u, now)
	}
	for _, t := range f.topics {
		if t.touched {
			t.touched = false
			f.answers[t.typeURL].wants(t)
		}
	}
	f.working = false
	if len(updates) > 0 {
		f.active = now
	}
	f.queue = append(f.queue, updates...)
	f.hub.cfg.Changed()
	for _, a := range f.answers {
		if len(a.waiting) > maxWaiting {
			f.hub.cfg.Log.Warn("a proxy answers none of its updates; its stream is ended, so that it begins anew", "client", f.client.ID, "type", a.typeURL, "unanswered", len(a.waiting))
			return status.Errorf(codes.ResourceExhausted, "%d updates of %s are not answered: begin anew", len(a.waiting), a.typeURL)
		}
	}
	return nil
}
