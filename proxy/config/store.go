// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
	"github.com/meltemi/meltemi/xds"
)

// The types of resources that a Store takes.
const (
	TypeListener = strict.Prefix + "envoy.config.listener.v3.Listener"
	TypeCluster  = strict.Prefix + "envoy.config.cluster.v3.Cluster"
	TypeRoute    = strict.Prefix + "envoy.config.route.v3.RouteConfiguration"
	TypeEndpoint = strict.Prefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeSecret   = strict.Prefix + "envoy.extensions.transport_sockets.tls.v3.Secret"
)

// Config is what a Store works with. Clusters, Registry, Metrics and Self must be set.
type Config struct {
	// Clusters is told of clusters and endpoints.
	Clusters *upstream.Set
	// Identity is the workload's own certificate: the secrets "default" and
	// "ROOTCA". Nil: none, and what asks for it is refused.
	Identity *certs.Source

	// For filters.
	Registry *telemetry.Registry
	Metrics  *stock.Metrics
	Self     *filter.Peer
	Peers    *filter.Peers                 // nil: a new one
	Lookup   func(netip.Addr) *filter.Peer // nil: no workload is known by its address
	Formats  accesslog.Options

	ReadFile func(path string) ([]byte, error) // nil: os.ReadFile
	Now      func() time.Time                  // nil: time.Now

	// OnSnapshot and OnWanted are told of what is new, from within Apply or when
	// a time is over, never two calls at once. They may not call Apply.
	OnSnapshot func(*Snapshot)
	OnWanted   func(Wanted)

	// Node is what config_dump says of the proxy; may be empty.
	Node Node
}

// Node is who the proxy is towards its control plane.
type Node struct {
	ID, Cluster string
	Metadata    map[string]any
}

// A Store holds the resources a control plane has sent, by type and name, and
// what was made of them. It is an xds.Handler.
//
// A resource that is refused leaves the one before it in force and touches
// nothing else, unless what was to take its address over. One that is taken may have to warm: a listener waits for its
// routes and secrets, a cluster for its endpoints, while the old version serves.
type Store struct {
	cfg      Config
	builder  builder
	snapshot atomic.Pointer[Snapshot]

	applying sync.Mutex // held during Apply and its callbacks; taken before mu

	mu        sync.Mutex // guards what is below
	listeners map[string]*listenerEntry
	unopened  map[string]*failure // listeners in force whose sockets could not be opened
	clusters  map[string]*clusterEntry
	endpoints map[string]*record // by EDS service name
	routes    map[string]*routeEntry
	secrets   map[string]*record
	demanded  map[string]int       // clusters that are wanted on demand, and how often
	absent    map[string]bool      // clusters that were asked for by name and do not exist
	leaving   map[string]time.Time // clusters that nothing names any more, since when
	named     map[string]bool      // clusters to be asked for by name
	wanted    Wanted
	timer     *time.Timer
	closed    bool
	reader    decode.Clusters
}

var _ xds.Handler = (*Store)(nil)

// A record is a resource as it came, for config_dump.
type record struct {
	raw     *anypb.Any // nil: it never came, or was found not to exist
	version string
	updated time.Time
	static  bool
	empty   bool     // of endpoints: there are none
	failed  *failure // of the latest update, if it was refused
}

type failure struct {
	raw     *anypb.Any
	version string
	at      time.Time
	err     error
}

// NewStore returns an empty store. Close ends its timers.
func NewStore(cfg Config) (*Store, error) {
	switch {
	case cfg.Clusters == nil:
		return nil, errors.New("config: Clusters is not set")
	case cfg.Registry == nil || cfg.Metrics == nil || cfg.Self == nil:
		return nil, errors.New("config: Registry, Metrics or Self is not set")
	}
	if cfg.Peers == nil {
		cfg.Peers = &filter.Peers{}
	}
	if cfg.ReadFile == nil {
		cfg.ReadFile = os.ReadFile
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Store{
		cfg: cfg, listeners: map[string]*listenerEntry{}, clusters: map[string]*clusterEntry{},
		endpoints: map[string]*record{}, routes: map[string]*routeEntry{}, secrets: map[string]*record{},
		demanded: map[string]int{}, absent: map[string]bool{}, leaving: map[string]time.Time{},
	}
	keeper := secrets.NewKeeper(cfg.Identity, cfg.ReadFile)
	s.builder = builder{cfg: &s.cfg, keeper: keeper, routeRef: func(name string) *RouteRef { return s.routeLocked(name).ref }}
	s.reader = decode.Clusters{Transports: decode.Transports{Keeper: keeper}, Preamble: s.builder.preamble}
	s.snapshot.Store(&Snapshot{byName: map[string]*Listener{}})
	return s, nil
}

// Close ends the store's timers. Nothing changes any more.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// Warming returns the names of listeners of which no version has been in force yet, as they wait for routes or secrets.
// What has become of the others OnSnapshot has been told.
func (s *Store) Warming() (names []string) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.listeners {
		if e.active == nil && e.warming != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Snapshot returns what is in force; never nil.
func (s *Store) Snapshot() *Snapshot { return s.snapshot.Load() }

// Wanted returns what must be subscribed to.
func (s *Store) Wanted() Wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// SetUnopened says which listeners could not be opened, and why, for config_dump.
func (s *Store) SetUnopened(failing map[string]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*failure, len(failing))
	for name, err := range failing {
		f := &failure{at: s.cfg.Now(), err: err}
		if e := s.listeners[name]; e != nil {
			f.raw, f.version = e.activeRec.raw, e.activeRec.version
		}
		if was := s.unopened[name]; was != nil && was.err.Error() == err.Error() {
			f.at = was.at
		}
		next[name] = f
	}
	s.unopened = next
}

// Route returns the reference to the route table of that name, which need not
// exist. It does not make the store want it; see Want.
func (s *Store) Route(name string) *RouteRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routeLocked(name).ref
}

// Apply makes an update current, each resource for itself, and returns those
// that are refused.
func (s *Store) Apply(u xds.Update) []xds.Rejection {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	rejected := s.applyLocked(u, false)
	s.finishLocked()
	return rejected
}

func (s *Store) applyLocked(u xds.Update, static bool) []xds.Rejection {
	put, remove := s.handlers(u.TypeURL)
	var rejected []xds.Rejection
	var claims claims
	seen := map[string]bool{}
	for _, name := range u.Removed { // first: what comes may need what they had, such as an address
		if remove != nil {
			remove(name)
		}
	}
	for _, r := range u.Resources {
		name, err := r.Name, error(nil)
		switch {
		case put == nil:
			err = fmt.Errorf("resource type %q is not supported", u.TypeURL)
		case r.Body == nil:
			err = errors.New("the resource has no body")
		default:
			in := incoming{Resource: r, version: u.Version, static: static, at: s.cfg.Now(), claims: &claims}
			name, err = s.guard(&in, seen, put)
		}
		if err != nil {
			rejected = append(rejected, xds.Rejection{Name: name, Err: err})
		}
	}
	return append(rejected, s.refuseTaken(&claims)...)
}

// incoming is a resource on its way in.
type incoming struct {
	xds.Resource
	version string
	at      time.Time
	static  bool
	hosts   [][]byte // the virtual hosts of a route table, not read yet
	claims  *claims  // of the update
}

func (in *incoming) record() record {
	return record{raw: in.Body, version: in.version, updated: in.at, static: in.static}
}

// handlers is the table of resource types.
func (s *Store) handlers(typeURL string) (put func(*incoming) (string, error), remove func(string)) {
	switch typeURL {
	case TypeListener:
		return typed(listenerName, whole, s.putListener, s.failListener), s.removeListener
	case TypeCluster:
		return typed((*clusterv3.Cluster).GetName, whole, s.putCluster, s.failCluster), s.removeCluster
	case TypeRoute:
		return typed((*routev3.RouteConfiguration).GetName, butHosts, s.putRoute, s.failRoute), s.removeRoute
	case TypeEndpoint:
		return typed((*endpointv3.ClusterLoadAssignment).GetClusterName, whole, s.putEndpoints, s.failEndpoints), s.removeEndpoints
	case TypeSecret:
		return typed((*tlsv3.Secret).GetName, whole, s.putSecret, s.failSecret), func(string) {}
	}
	return nil, nil
}

// typed has a body read, hands it to put, and has what goes wrong noted by fail.
func typed[M any, P interface {
	*M
	proto.Message
}](nameOf func(P) string, read func(*incoming, proto.Message) error, put func(P, *incoming) error, fail func(name string, f *failure)) func(*incoming) (string, error) {
	return func(in *incoming) (string, error) {
		m := P(new(M))
		err := read(in, m)
		name := nameOf(m)
		switch {
		case err != nil:
		case name == "":
			err = errors.New("the resource has no name")
		case in.Name != "" && in.Name != name:
			err = fmt.Errorf("it came as %q and calls itself %q", in.Name, name)
		default:
			err = put(m, in)
		}
		if err != nil {
			if in.Name != "" {
				name = in.Name
			}
			if name != "" {
				fail(name, &failure{raw: in.Body, version: in.version, at: in.at, err: err})
			}
		}
		return name, err
	}
}

// whole decodes a body and checks it.
func whole(in *incoming, m proto.Message) error { return strict.Unmarshal(in.Body, m) }

// guard keeps one resource from harming another: a name may come once in an
// update, and a defect of ours ends in a rejection and not in the proxy's end.
func (s *Store) guard(in *incoming, seen map[string]bool, put func(*incoming) (string, error)) (name string, err error) {
	defer func() {
		if r := recover(); r != nil {
			name, err = in.Name, fmt.Errorf("%s: %v", defect, r)
		}
	}()
	if in.Name != "" && seen[in.Name] {
		return in.Name, errors.New("the name is there twice in one update")
	}
	seen[in.Name] = true
	return put(in)
}

const defect = "the resource met a defect of the proxy"
