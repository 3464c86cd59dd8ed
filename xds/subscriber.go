// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/anypb"
)

// ClientConfig is where a Subscriber asks, and how. A zero value means the one
// of ClientDefaults.
type ClientConfig struct {
	Target  string            // a gRPC target: "host:port", "unix:path"
	Options []grpc.DialOption // transport credentials, and what authenticates each stream
	Node    *corev3.Node      // who asks
	SotW    bool              // state-of-the-world instead of delta

	MaxMessage int           // bytes of one response
	MinBackoff time.Duration // after a stream that worked
	MaxBackoff time.Duration

	// Connected, if set, is told when a stream has delivered something (true), and
	// why one ended (false). It must not block.
	Connected func(up bool, err error)
	// Name finds the name in a body, which a state-of-the-world response does not
	// give. If nil, it is the body's field 1, as in all of Envoy's resources.
	Name func(body *anypb.Any) (string, error)
	Log  *slog.Logger // nil discards
}

// ClientDefaults is the configuration of a client nobody has tuned.
func ClientDefaults() ClientConfig {
	return ClientConfig{
		MaxMessage: 200 << 20, // a first answer may hold a whole mesh
		MinBackoff: 500 * time.Millisecond,
		MaxBackoff: 30 * time.Second,
		Name:       firstField,
	}
}

// A Subscriber keeps subscriptions at a control plane and hands what arrives to
// a Handler. Subscriptions and what was accepted outlive streams: while the control
// plane is away, everything stays as it is.
type Subscriber struct {
	cfg     ClientConfig
	handler Handler
	wake    chan struct{} // something is to be sent

	mu       sync.Mutex
	topics   map[string]*topic
	order    []*topic // in which types were first subscribed
	applying bool     // subscriptions wait until the acknowledgement is queued
	live     *session // the present stream, or nil
	up       bool
}

// NewClient makes a Subscriber. It opens nothing; see Run.
func NewClient(cfg ClientConfig, h Handler) *Subscriber {
	d := ClientDefaults()
	orDefault(&cfg.MaxMessage, d.MaxMessage)
	orDefault(&cfg.MinBackoff, d.MinBackoff)
	orDefault(&cfg.MaxBackoff, d.MaxBackoff)
	if cfg.Name == nil {
		cfg.Name = d.Name
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Subscriber{cfg: cfg, handler: h, wake: make(chan struct{}, 1), topics: map[string]*topic{}}
}

// Subscribe asks for resources of a type, now and on every stream to come;
// without names, or with "*", for all of them. Asking again for a name has it sent again
// unless it is known. The answer arrives at the Handler: the resource, which may
// bear another name and have the one asked for as an alias, or its removal if there is none.
//
// A state-of-the-world server cannot say that a route configuration or an
// endpoint assignment does not exist; none is delivered then.
func (s *Subscriber) Subscribe(typeURL string, names ...string) {
	s.mu.Lock()
	t := s.topics[typeURL]
	if t == nil {
		t = newTopic(typeURL)
		s.topics[typeURL] = t
		s.order = append(s.order, t)
	}
	t.subscribe(names)
	s.mu.Unlock()
	s.poke()
}

// Unsubscribe takes back what Subscribe asked for; without names, or with "*",
// the wildcard. It may also name resources that came unasked. What it ends is forgotten at once:
// the Handler is not told. A resource may still arrive that was under way.
func (s *Subscriber) Unsubscribe(typeURL string, names ...string) {
	s.mu.Lock()
	if t := s.topics[typeURL]; t != nil {
		t.unsubscribe(names)
	}
	s.mu.Unlock()
	s.poke()
}

// Review replaces what was said of resources of a type that the Handler has taken, but which turned out to be of no use, or
// to be of use after all: failing says why, for all of which that is so now. The responses they came in are answered anew, so
// that the control plane does not believe them to be in force. It may be called from within Apply.
func (s *Subscriber) Review(typeURL string, failing map[string]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[typeURL]
	if t == nil {
		return
	}
	t.failing = failing
	if s.applying {
		return // what is applied is answered in this light, and so is what came before
	}
	for _, u := range t.review() {
		if s.live != nil {
			s.live.again(t, u)
		}
	}
}

// Connected reports whether the present stream has delivered something.
func (s *Subscriber) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up
}

// Run keeps a stream open until ctx ends, then returns nil. It returns an error
// only for a configuration with which no stream can ever be opened.
func (s *Subscriber) Run(ctx context.Context) error {
	wait := s.cfg.MinBackoff
	for {
		conn, err := grpc.NewClient(s.cfg.Target, s.options()...)
		if err != nil {
			return fmt.Errorf("xds client for %q: %w", s.cfg.Target, err)
		}
		good, err := s.stream(ctx, conn)
		_ = conn.Close() // a new stream gets a new connection: it may reach another control plane
		if ctx.Err() != nil {
			s.setUp(false, nil)
			return nil
		}
		s.setUp(false, err)
		if good {
			wait = s.cfg.MinBackoff
		}
		pause := jitter(wait, s.cfg.MaxBackoff)
		s.cfg.Log.Warn("xds stream ended; the configuration stays as it is", "target", s.cfg.Target, "error", err, "retry_in", pause)
		if !sleep(ctx, pause) {
			return nil
		}
		wait = min(2*wait, s.cfg.MaxBackoff)
	}
}

func (s *Subscriber) options() []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(s.cfg.MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// A complete table of thousands of hosts is megabytes: it is to come in one piece, not in pieces of 64 KiB with a
		// round trip between two of them.
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
	}, s.cfg.Options...)
}

func (s *Subscriber) setUp(up bool, err error) {
	s.mu.Lock()
	changed := s.up != up
	s.up = up
	s.mu.Unlock()
	if s.cfg.Connected != nil && (changed || err != nil) {
		s.cfg.Connected(up, err)
	}
}

func (s *Subscriber) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// jitter is a time between half of d and one and a half, so that a herd of proxies spreads.
func jitter(d, most time.Duration) time.Duration {
	return min(d/2+rand.N(d), most)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// window is how many bytes the server may send before we say that we have read them.
const window = 4 << 20
