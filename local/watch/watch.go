// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package watch looks at a running mesh from outside, as anybody could: it scrapes the proxies' metrics and
// asks the control plane what it had to refuse.
//
//	watch.go    Watcher: one look a second, made into a Picture
//	scrape.go   the metrics of one proxy, as counters per edge
//	edges.go    differences of counters over a window, as rates and quantiles
//	control.go  what the control plane says about configuration
package watch

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Target is a proxy to look at.
type Target struct {
	Name string
	URL  string // of its admin server, "http://127.0.0.1:15000"
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A Picture is the mesh at one moment.
type Picture struct {
	At       time.Time
	Edges    []Edge    // by From, To, Version
	Proxies  []Proxy   // by name
	Problems []Problem // configuration that is refused, or that proxies refuse
	Control  string    // what is wrong with the control plane; "" if it answers
}

// A Proxy is one proxy's condition.
type Proxy struct {
	Name string
	Err  string // why it could not be looked at; "" if it could
}

// Config is what a Watcher needs.
type Config struct {
	Monitoring string        // http://host:port of the control plane; "" asks nobody
	Every      time.Duration // between looks
	Window     time.Duration // that rates are taken over
}

// Defaults looks each second and averages over five.
func Defaults(monitoring string) Config {
	return Config{Monitoring: monitoring, Every: time.Second, Window: 5 * time.Second}
}

// A Watcher makes Pictures.
type Watcher struct {
	cfg Config

	looking sync.Mutex // held during a look: targets' counters belong to one look at a time

	mu      sync.Mutex
	targets map[string]*target
	began   time.Time // of the first look
	last    Picture
}

type target struct {
	Target
	client *http.Client
	before map[edgeKey]counters // at the last look; nil before the first
	recent []slice              // what each look in the window added
	err    string
}

// slice is what was counted between two looks.
type slice struct {
	at    time.Time
	added map[edgeKey]counters
}

// New returns a Watcher that looks at nothing yet.
func New(cfg Config) *Watcher {
	return &Watcher{cfg: cfg, targets: map[string]*target{}}
}

// Add begins to look at t; one of the same name is replaced.
func (w *Watcher) Add(t Target) {
	tr := &http.Transport{DialContext: t.Dial, MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.targets[t.Name]; old != nil {
		old.client.CloseIdleConnections()
	}
	w.targets[t.Name] = &target{Target: t, client: &http.Client{Transport: tr, Timeout: 2 * time.Second}}
}

// Remove stops looking at a target.
func (w *Watcher) Remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.targets[name]; t != nil {
		t.client.CloseIdleConnections()
		delete(w.targets, name)
	}
}

// Picture returns the latest one.
func (w *Watcher) Picture() Picture {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Run looks until ctx ends, handing each Picture to show.
func (w *Watcher) Run(ctx context.Context, show func(Picture)) error {
	tick := time.NewTicker(w.cfg.Every)
	defer tick.Stop()
	for {
		p := w.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		show(p)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Look takes one look at everything, all at once.
func (w *Watcher) Look(ctx context.Context) Picture {
	w.looking.Lock()
	defer w.looking.Unlock()
	w.mu.Lock()
	targets := slices.Collect(maps.Values(w.targets))
	p := Picture{At: time.Now()}
	if w.began.IsZero() {
		w.began = p.At
	}
	// Until a whole window has passed, rates are over what has.
	span := min(w.cfg.Window, max(p.At.Sub(w.began), w.cfg.Every))
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, t := range targets {
		wg.Go(func() { t.look(ctx, w.cfg.Window) })
	}
	if w.cfg.Monitoring != "" {
		wg.Go(func() { p.Problems, p.Control = askControl(ctx, w.cfg.Monitoring) })
	}
	wg.Wait()
	slices.SortFunc(targets, func(a, b *target) int { return cmp.Compare(a.Name, b.Name) })
	var all []slice
	for _, t := range targets {
		p.Proxies = append(p.Proxies, Proxy{t.Name, t.err})
		all = append(all, t.recent...)
	}
	p.Edges = edges(all, span)
	w.mu.Lock()
	w.last = p
	w.mu.Unlock()
	return p
}

// look scrapes t and keeps what was added since the last look.
func (t *target) look(ctx context.Context, window time.Duration) {
	now := time.Now()
	counts, err := scrape(ctx, t.client, t.URL)
	if err != nil {
		t.err = err.Error()
		return
	}
	t.err = ""
	if t.before != nil {
		added := map[edgeKey]counters{}
		for k, c := range counts {
			if d := c.minus(t.before[k]); !d.empty() {
				added[k] = d
			}
		}
		t.recent = append(t.recent, slice{at: now, added: added})
	}
	t.before = counts
	t.recent = slices.DeleteFunc(t.recent, func(s slice) bool { return now.Sub(s.at) >= window })
}
