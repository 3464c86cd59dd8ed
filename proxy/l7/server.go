// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/observe"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// Config is what a Server needs.
type Config struct {
	Registry *telemetry.Registry
	Files    *accesslog.Files  // where access logs go
	Formats  accesslog.Options // what formats of access logs may know
	Log      *slog.Logger
	// Node names this proxy in traces.
	Node observe.Node
	// DialCluster connects to an endpoint of a cluster, for traces; nil: none are sent.
	DialCluster func(ctx context.Context, cluster string) (net.Conn, error)
	// FaultHeader adds x-meltemi-fault to answers of our own: whose side, what, and
	// what to try. It tells clients about the inside of the mesh.
	FaultHeader bool
	// BufferLimit is how much of a request is kept for another attempt, in bytes,
	// unless the route says otherwise (per_connection_buffer_limit_bytes).
	BufferLimit int64
	// MaxMirrors bounds mirrored requests under way.
	MaxMirrors int64
	// Sweep is how often connections are looked at from outside.
	Sweep time.Duration
}

// Defaults is the configuration of a server nobody has tuned; Registry, Files
// and Log are still to be given.
func Defaults() Config {
	return Config{BufferLimit: 1 << 20, MaxMirrors: 1024, Sweep: 500 * time.Millisecond}
}

// A Server conducts the HTTP exchanges of a proxy, on connections that others
// accept. Its methods may be called from any goroutine.
type Server struct {
	cfg     Config
	sweeper *sweeper
	mirrors atomic.Int64
	date    atomic.Pointer[string]
	stats   *observe.Managers
	tracers *observe.Tracers

	skippedMirrors *telemetry.Counter

	mu    sync.Mutex
	sites map[*config.HTTP]*site
}

// New returns a server; Close ends what it runs in the background.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, sites: map[*config.HTTP]*site{},
		stats:          observe.NewManagers(cfg.Registry),
		tracers:        observe.NewTracers(observe.TracerConfig{Node: cfg.Node, Formats: cfg.Formats, DialCluster: cfg.DialCluster}),
		skippedMirrors: cfg.Registry.Counter("meltemi_mirrored_requests_skipped_total"),
	}
	s.tick(time.Now())
	s.sweeper = newSweeper(cfg.Sweep, s.tick)
	return s
}

// Close ends the server's background work. Connections are to be over.
func (s *Server) Close() {
	s.sweeper.close()
	s.tracers.Close()
}

// tick does what time asks for, besides connections.
func (s *Server) tick(now time.Time) {
	date := now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	if old := s.date.Load(); old == nil || *old != date {
		s.date.Store(&date)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, site := range s.sites {
		if site.users == 0 && now.Sub(site.left) > time.Minute {
			delete(s.sites, h)
		}
	}
}

// ServeConn conducts the exchanges of a connection whose TLS, if any, has been
// terminated. It returns when the connection is over, and has closed it then.
// now gives the settings that exchanges begin with; those of the first call bind
// the codec (see FilterChain.Succeeds). routes gives the table of the moment; nil is that
// of the settings. When drain is closed (nil: never) the connection ends as soon as that
// hurts nobody.
func (s *Server) ServeConn(conn net.Conn, facts *filter.Conn, now func() *config.HTTP, routes *config.RouteRef, drain <-chan struct{}) {
	defer func() { _ = conn.Close() }()
	site, err := s.enter(now())
	if err != nil {
		s.cfg.Log.Error("connection refused: its filter chain cannot be served", "listener", facts.Listener, "error", err)
		return
	}
	c := newConnection(s, site, conn, facts, now, routes, drain)
	defer func() { s.leave(c.seat.Load().site) }()
	site.stats.ConnOpened(facts.ID)
	defer site.stats.ConnClosed(facts.ID)
	s.sweeper.add(c)
	defer s.sweeper.remove(c)
	defer c.recoverPanic(nil)
	held, two := c.version()
	if two {
		c.serveHTTP2(held)
	} else {
		c.serveHTTP1(held)
	}
}

// enter returns the site of h, which is made once.
func (s *Server) enter(h *config.HTTP) (*site, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.sites[h]
	if st == nil {
		var err error
		if st, err = newSite(s, h); err != nil {
			return nil, err
		}
		s.sites[h] = st
	}
	st.users++
	return st, nil
}

func (s *Server) leave(st *site) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.users--; st.users == 0 {
		st.left = time.Now()
	}
}

// recoverPanic keeps a defect that one exchange meets from ending the others. x
// is that exchange, if it had begun: what it took is given back, its storage is not.
func (c *connection) recoverPanic(x *exchange) {
	p := recover()
	if p == nil {
		return
	}
	c.reportDefect(p)
	if x != nil {
		x.abandon()
	}
}

func (c *connection) reportDefect(panicked any) {
	c.server.cfg.Log.Error("defect while serving a connection", "connection", c.facts.ID, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
}

// version finds out which HTTP version the client speaks. It returns the bytes
// it had to read for that; c.net is the connection behind them.
func (c *connection) version() (held []byte, two bool) {
	if p, ok := c.net.(*netio.Peeked); ok {
		held = append(held, p.Buffered()...)
		if _, err := io.ReadFull(p, make([]byte, len(held))); err == nil {
			if raw, ok := p.Raw(); ok {
				c.mu.Lock() // the sweeper looks at it, too
				c.net = raw
				c.mu.Unlock()
			}
		}
	}
	switch c.http().Codec {
	case config.CodecHTTP1:
		return held, false
	case config.CodecHTTP2:
		return held, true
	}
	if c.facts.TLS != nil && c.facts.TLS.NegotiatedProtocol != "" {
		return held, c.facts.TLS.NegotiatedProtocol == "h2"
	}
	return sniff(c.net, held)
}

// prefaceLine is how HTTP/2's preface begins; as a request of HTTP/1 it is none.
const prefaceLine = "PRI * HTTP/2.0"

// sniff reads until it is clear whether the client speaks HTTP/2.
func sniff(conn net.Conn, held []byte) ([]byte, bool) {
	for {
		n := min(len(held), len(prefaceLine))
		if string(held[:n]) != prefaceLine[:n] {
			return held, false
		}
		if n == len(prefaceLine) {
			return held, true
		}
		var buf [len(prefaceLine)]byte
		m, err := conn.Read(buf[n:])
		held = append(held, buf[n:n+m]...)
		if err != nil && !errors.Is(err, io.EOF) || m == 0 {
			return held, false
		}
	}
}
