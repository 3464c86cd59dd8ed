// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// Config is how a Hub paces its feeds.
type Config struct {
	// Quiet is how long no change must have come before changes are sent; Max is how long a change waits at most.
	// A subscription does not wait.
	Quiet, Max time.Duration
	// RemoveAfter is how long all must have been quiet and acknowledged before removed clusters are
	// taken from a client; RemoveMax is how long that waits at most.
	RemoveAfter, RemoveMax time.Duration
	// Ready says why clients cannot be served yet; nil always serves.
	Ready func() error
	// Changed is called when the status of a client may have changed: often, by any goroutine, and
	// with locks held, so it must not block or call the Hub. nil is nobody.
	Changed func()
	// Blames reports whether a row that was read for a resource has a part in it, so that the row is not in force where the
	// resource is not; nil: every one has.
	Blames func(r *xds.Resource, row derive.Origin) bool
	// Refers reports whether a listener takes its routes from the table of that name; nil: none does.
	Refers func(listener *xds.Resource, table string) bool
	Log    *slog.Logger // nil discards
}

// Defaults is the configuration of a hub nobody has tuned.
func Defaults() Config {
	return Config{
		Quiet:       5 * time.Millisecond,   // a saved file becomes several changes, microseconds apart
		Max:         50 * time.Millisecond,  // half of what a change may take until it is in force
		RemoveAfter: 250 * time.Millisecond, // many round trips, in which a new listener asks for its routes
		RemoveMax:   5 * time.Second,        // a client that does not answer keeps nobody
	}
}

// A Hub opens a feed for each client of the xds server.
type Hub struct {
	g        *derive.Graph
	cfg      Config
	backends []Backend

	mu    sync.Mutex
	feeds map[*feed]struct{}
}

var _ xds.Hub = (*Hub)(nil)

// New makes a Hub that serves each client from the first backend that claims it. Durations that are zero are taken from
// Defaults.
func New(g *derive.Graph, cfg Config, backends ...Backend) *Hub {
	d := Defaults()
	for _, f := range []struct {
		to *time.Duration
		d  time.Duration
	}{{&cfg.Quiet, d.Quiet}, {&cfg.Max, d.Max}, {&cfg.RemoveAfter, d.RemoveAfter}, {&cfg.RemoveMax, d.RemoveMax}} {
		if *f.to == 0 {
			*f.to = f.d
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Blames == nil {
		cfg.Blames = func(*xds.Resource, derive.Origin) bool { return true }
	}
	return &Hub{g: g, cfg: cfg, backends: backends, feeds: map[*feed]struct{}{}}
}

// Open makes the feed of one client.
func (h *Hub) Open(_ context.Context, c *xds.Client) (xds.Feed, error) {
	if h.cfg.Ready != nil {
		if err := h.cfg.Ready(); err != nil {
			return nil, status.Errorf(codes.Unavailable, "the control plane is not ready: %v", err)
		}
	}
	i := slices.IndexFunc(h.backends, func(b Backend) bool { return b.serves(c) })
	if i < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "nothing here serves a node with id %q", c.Node.GetId())
	}
	kinds, err := h.backends[i].bind(c)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "node %q: %v", c.Node.GetId(), err)
	}
	f := newFeed(h, c, kinds)
	h.mu.Lock()
	h.feeds[f] = struct{}{}
	h.mu.Unlock()
	h.cfg.Changed()
	return f, nil
}

func (h *Hub) close(f *feed) {
	h.mu.Lock()
	delete(h.feeds, f)
	h.mu.Unlock()
	h.cfg.Changed()
}

// open lists the feeds, by their clients' ids.
func (h *Hub) open() []*feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	feeds := make([]*feed, 0, len(h.feeds))
	for f := range h.feeds {
		feeds = append(feeds, f)
	}
	slices.SortFunc(feeds, func(a, b *feed) int { return strings.Compare(a.client.ID, b.client.ID) })
	return feeds
}
