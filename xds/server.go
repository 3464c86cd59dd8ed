// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// ServerConfig is how a Server admits and limits its clients. A zero limit means
// the one of ServerDefaults.
type ServerConfig struct {
	// Authenticate says whose stream this is: a SPIFFE ID, or nothing for a stream that may stay
	// anonymous. The context holds the gRPC peer and the metadata. An error ends the stream
	// as Unauthenticated. If nil, nobody is identified.
	Authenticate func(ctx context.Context) (identity string, err error)

	MaxStreams        int     // at once
	StreamsPerSecond  float64 // new ones, once authenticated; beyond it clients are told to come back
	FailuresPerSecond float64 // of one peer address, to authenticate; ten seconds' worth may come at once
	RequestsPerSecond float64 // of one stream; beyond it they are read more slowly
	MaxTypes          int     // of one stream
	MaxNames          int     // of one stream, over all types
	MaxName           int     // bytes of one name
	MaxMessage        int     // bytes of one request
	FirstRequest      time.Duration

	Log *slog.Logger // nil discards
}

// ServerDefaults is the configuration of a server nobody has tuned.
func ServerDefaults() ServerConfig {
	return ServerConfig{
		MaxStreams:        50_000,
		StreamsPerSecond:  100, // about what istiod admits; a herd is spread by its own backoff
		FailuresPerSecond: 10,
		RequestsPerSecond: 1_000,
		MaxTypes:          64,
		MaxNames:          200_000,
		MaxName:           4 << 10,
		MaxMessage:        16 << 20, // the names and versions of a large mesh, after reconnecting
		FirstRequest:      30 * time.Second,
	}
}

// A Server serves Feeds to xDS clients. It implements the aggregated discovery
// service, and the streams of the secret discovery service.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	hub      Hub
	cfg      ServerConfig
	opening  *bucket
	failing  *limiter
	streams  atomic.Int64
	serial   atomic.Uint64
	stopping context.Context
	stop     context.CancelFunc
}

// NewServer makes a Server of hub's Feeds. It opens nothing; see Register.
func NewServer(hub Hub, cfg ServerConfig) *Server {
	d := ServerDefaults()
	orDefault(&cfg.MaxStreams, d.MaxStreams)
	orDefault(&cfg.StreamsPerSecond, d.StreamsPerSecond)
	orDefault(&cfg.FailuresPerSecond, d.FailuresPerSecond)
	orDefault(&cfg.RequestsPerSecond, d.RequestsPerSecond)
	orDefault(&cfg.MaxTypes, d.MaxTypes)
	orDefault(&cfg.MaxNames, d.MaxNames)
	orDefault(&cfg.MaxName, d.MaxName)
	orDefault(&cfg.MaxMessage, d.MaxMessage)
	orDefault(&cfg.FirstRequest, d.FirstRequest)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		hub: hub, cfg: cfg, opening: newBucket(cfg.StreamsPerSecond),
		failing: newLimiter(cfg.FailuresPerSecond, 10*cfg.FailuresPerSecond),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Options are what a grpc.Server that carries s should be made with: its size
// limit, and keepalive that finds dead proxies and tolerates those that ping every 15 s.
func (s *Server) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.cfg.MaxMessage),
		grpc.MaxConcurrentStreams(100_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second, PermitWithoutStream: true}),
	}
}

// Register adds the aggregated discovery service to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// RegisterSecrets adds the secret discovery service to r: what an agent serves
// on a unix socket beside its proxy. One stream is a Client like any other.
func (s *Server) RegisterSecrets(r grpc.ServiceRegistrar) {
	secretv3.RegisterSecretDiscoveryServiceServer(r, secrets{s: s})
}

// Streams is how many are open.
func (s *Server) Streams() int { return int(s.streams.Load()) }

// Close ends all streams as Unavailable, now and later; clients go elsewhere or come back.
func (s *Server) Close() { s.stop() }

// StreamAggregatedResources serves state-of-the-world.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g.Context(), &sotw{grpc: g})
}

// DeltaAggregatedResources serves delta.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g.Context(), &delta{grpc: g})
}

// secrets is the Server in the role of a secret discovery service, whose requests
// may leave the type out.
type secrets struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	s *Server
}

func (x secrets) StreamSecrets(g secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	return x.s.serve(g.Context(), &sotw{grpc: g, onlyType: typeSecret})
}

func (x secrets) DeltaSecrets(g secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	return x.s.serve(g.Context(), &delta{grpc: g, onlyType: typeSecret})
}

// A request is what both dialects' requests say.
type request struct {
	node    *corev3.Node
	typeURL string
	nonce   string
	nack    bool
	detail  string // why, if nack

	version     string            // state-of-the-world: accepted last
	names       []string          // state-of-the-world: all that is wanted
	add, remove []string          // delta: the change
	initial     map[string]string // delta: versions held, by name
}

// A dialect is one of the protocol's two variants, bound to a gRPC stream.
type dialect interface {
	recv() (*request, error)
	// again reports whether r says something new of a response that was answered before.
	again(w *watch, r *request) bool
	// want applies r to w and says what the Feed is to be told, if anything.
	want(w *watch, r *request) (change, bool)
	// render makes the response for u; nil if the client needs none.
	render(w *watch, u *Update, nonce string) any
	send(response any) error
}

// A conn is one admitted stream.
type conn struct {
	srv     *Server
	dialect dialect
	client  *Client
	feed    Feed

	first chan *request // from the receiver, before there is a feed
	ready chan struct{} // closed when there is one

	mu      sync.Mutex // held while calling feed, except for Next
	closed  bool
	watches map[string]*watch
	nonces  uint64
}

// serve is the life of a stream: authenticate, admit, open, then receive and send until either ends.
func (s *Server) serve(ctx context.Context, d dialect) error {
	identity, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Add(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stopping, func() { cancel(errStopping()) })()

	c := &conn{srv: s, dialect: d, watches: map[string]*watch{}, first: make(chan *request), ready: make(chan struct{})}
	go func() { cancel(c.receive(ctx)) }()
	first, err := c.firstRequest(ctx)
	if err != nil || first == nil {
		return err // nil: the client left without a word
	}
	c.client = &Client{
		Node: first.node, Identity: identity, RemoteAddr: remote(ctx), ConnectedAt: time.Now(),
		ID: first.node.GetId() + "-" + strconv.FormatUint(s.serial.Add(1), 10),
	}
	_, c.client.Delta = d.(*delta)
	if err := checkIdentity(c.client); err != nil {
		return err
	}
	c.feed, err = s.hub.Open(ctx, c.client)
	if err != nil {
		return asStatus(err, "the control plane cannot serve this proxy yet")
	}
	defer c.close()
	s.cfg.Log.Debug("xds stream opened", "client", c.client.ID, "delta", c.client.Delta, "peer", c.client.RemoteAddr)
	close(c.ready)
	return c.transmit(ctx)
}

// firstRequest waits for the request that carries the node.
func (c *conn) firstRequest(ctx context.Context) (*request, error) {
	t := time.NewTimer(c.srv.cfg.FirstRequest)
	defer t.Stop()
	select {
	case r := <-c.first:
		if r.node.GetId() == "" {
			return nil, status.Error(codes.InvalidArgument, "the first request must carry a node with an id")
		}
		return r, nil
	case <-t.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no request arrived within %v", c.srv.cfg.FirstRequest)
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

// receive reads requests until the stream ends. The first one is shown to serve,
// which opens the feed.
func (c *conn) receive(ctx context.Context) error {
	rate := newBucket(c.srv.cfg.RequestsPerSecond)
	for n := 0; ; n++ {
		r, err := c.dialect.recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			select {
			case c.first <- r:
			case <-ctx.Done():
				return nil
			}
			select {
			case <-c.ready:
			case <-ctx.Done():
				return nil
			}
		}
		if err := rate.wait(ctx); err != nil {
			return nil
		}
		if err := c.handle(r); err != nil {
			return err
		}
	}
}

// handle tells the feed what a request means.
func (c *conn) handle(r *request) error {
	if err := c.checkRequest(r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	w := c.watches[r.typeURL]
	if w == nil {
		if len(c.watches) >= c.srv.cfg.MaxTypes {
			return status.Errorf(codes.ResourceExhausted, "more than %d resource types on one stream", c.srv.cfg.MaxTypes)
		}
		w = newWatch(r.typeURL)
		c.watches[r.typeURL] = w
	} else if r.nonce != "" && (w.acknowledged(r.nonce) || c.dialect.again(w, r)) {
		w.answered(r.nonce, r.nack)
		c.report(r)
	}
	ch, tell := c.dialect.want(w, r)
	if w.gone {
		delete(c.watches, r.typeURL)
	}
	if c.size() > c.srv.cfg.MaxNames {
		return tooManyNames(c.srv.cfg.MaxNames)
	}
	if tell {
		c.feed.Subscribe(r.typeURL, ch.add, ch.remove, ch.wildcard)
	}
	return nil
}

// checkRequest refuses what would cost too much even to look at.
func (c *conn) checkRequest(r *request) error {
	cfg := &c.srv.cfg
	if r.typeURL == "" || len(r.typeURL) > cfg.MaxName {
		return status.Error(codes.InvalidArgument, "the request names no resource type, or one that is too long")
	}
	if len(r.names)+len(r.add)+len(r.initial) > cfg.MaxNames || len(r.remove) > cfg.MaxNames {
		return tooManyNames(cfg.MaxNames)
	}
	for _, names := range [][]string{r.names, r.add} {
		for _, n := range names {
			if len(n) > cfg.MaxName {
				return status.Errorf(codes.InvalidArgument, "a resource name of %d bytes; at most %d are allowed", len(n), cfg.MaxName)
			}
		}
	}
	return nil
}

func tooManyNames(limit int) error {
	return status.Errorf(codes.ResourceExhausted, "more than %d resource names on one stream", limit)
}

func (c *conn) report(r *request) {
	if !r.nack {
		c.feed.Ack(r.typeURL, r.nonce)
		return
	}
	c.srv.cfg.Log.Warn("proxy rejects its configuration", "client", c.client.ID, "type", r.typeURL, "detail", r.detail)
	c.feed.Nack(r.typeURL, r.nonce, r.detail)
}

// size is the number of names that the stream makes us hold.
func (c *conn) size() int {
	n := 0
	for _, w := range c.watches {
		n += w.size()
	}
	return n
}

// transmit sends what the feed says, until it or the stream ends.
func (c *conn) transmit(ctx context.Context) error {
	for {
		u, err := c.feed.Next(ctx)
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if err != nil {
			return asStatus(err, "the control plane ended the stream")
		}
		if response := c.prepare(u); response != nil {
			if err := c.dialect.send(response); err != nil {
				return err
			}
		}
	}
}

// prepare makes the response for u, or acknowledges it where the client needs none.
func (c *conn) prepare(u *Update) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	nonce := u.Nonce
	if nonce == "" {
		c.nonces++
		nonce = "n" + strconv.FormatUint(c.nonces, 10)
	}
	if w := c.watches[u.TypeURL]; w != nil {
		if response := c.dialect.render(w, u, nonce); response != nil {
			w.sent(nonce, u.Version) // before it is sent: the answer may be faster than our return
			return response
		}
	}
	c.feed.Ack(u.TypeURL, nonce)
	return nil
}

func (c *conn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.feed.Close()
}

// ended is the status of a stream whose context is done: the reason we gave, or none where the client left.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	if _, ok := status.FromError(cause); ok {
		return cause
	}
	return status.FromContextError(cause).Err()
}

func errStopping() error {
	return status.Error(codes.Unavailable, "the control plane is stopping; try another one")
}

// asStatus passes a gRPC status on and makes Unavailable of other errors.
func asStatus(err error, what string) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.Unavailable, "%s: %v", what, err)
}

func remote(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
