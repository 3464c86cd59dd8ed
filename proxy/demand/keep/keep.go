// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/meltemi/meltemi/xds"
)

// Config is how a Keeper works. Begin with Defaults.
type Config struct {
	Dir   string // where the file is; made if it does not exist
	Owner string // whose file it is: somebody else's is not read
	// Types are kept, and brought back in this order.
	Types []string
	// Notes are kept, too; nil: none.
	Notes func() []string

	Quiet    time.Duration // how long nothing must have changed before it is written
	Most     time.Duration // how long a change waits at most
	MaxBytes int64         // of the file
	MaxAge   time.Duration // beyond which a file is of no use

	Log *slog.Logger // nil discards
}

// Defaults is the configuration of a Keeper nobody has tuned; Types are still to be given.
func Defaults(dir, owner string) Config {
	return Config{
		Dir: dir, Owner: owner, Quiet: 2 * time.Second, Most: 30 * time.Second,
		MaxBytes: 64 << 20, MaxAge: 24 * time.Hour, // no certificate lives longer
	}
}

// Subscriptions is who asks the control plane: an xds.Subscriber.
type Subscriptions interface {
	Subscribe(typeURL string, names ...string)
	Unsubscribe(typeURL string, names ...string)
}

// A Keeper is a Handler that remembers what another one took.
type Keeper struct {
	cfg   Config
	next  xds.Handler
	dirty chan struct{}

	applying sync.Mutex // one update at a time, from the stream or the file; taken before mu

	mu     sync.Mutex
	shelf  map[string]*shelf // by type
	digest [digestSize]byte  // of the file as it is
}

// A shelf is what is known of a type.
type shelf struct {
	has      map[string]xds.Resource
	wanted   map[string]bool // asked for by name
	wildcard bool
	fresh    bool            // the control plane has answered
	restored map[string]bool // from the file, not confirmed yet
}

var _ xds.Handler = (*Keeper)(nil)

// New returns a Keeper before next. It opens nothing.
func New(cfg Config, next xds.Handler) (*Keeper, error) {
	if cfg.Dir == "" || cfg.Owner == "" || len(cfg.Types) == 0 {
		return nil, errors.New("keep: Dir, Owner or Types is not set")
	}
	if cfg.Quiet <= 0 || cfg.Most <= 0 || cfg.MaxBytes <= 0 || cfg.MaxAge <= 0 {
		return nil, errors.New("keep: begin with Defaults: a time or a limit is not set")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Notes == nil {
		cfg.Notes = func() []string { return nil }
	}
	k := &Keeper{cfg: cfg, next: next, dirty: make(chan struct{}, 1), shelf: map[string]*shelf{}}
	for _, t := range cfg.Types {
		k.shelf[t] = &shelf{has: map[string]xds.Resource{}, wanted: map[string]bool{}, restored: map[string]bool{}}
	}
	return k, nil
}

// Touch tells that Notes may have changed. It does not block.
func (k *Keeper) Touch() {
	select {
	case k.dirty <- struct{}{}:
	default:
	}
}

// Apply hands an update on and remembers what was taken of it.
func (k *Keeper) Apply(u xds.Update) []xds.Rejection {
	k.applying.Lock()
	defer k.applying.Unlock()
	k.mu.Lock()
	s := k.shelf[u.TypeURL]
	if s != nil {
		u.Removed = append(slices.Clip(u.Removed), s.outdated(&u)...)
		s.fresh = true
	}
	k.mu.Unlock()
	rejected := k.next.Apply(u)
	if s != nil {
		k.mu.Lock()
		s.take(&u, rejected)
		k.mu.Unlock()
		k.Touch()
	}
	return rejected
}

// outdated lists what came from the file and is not in the control plane's first
// answer. What was asked for by name is answered by name.
func (s *shelf) outdated(u *xds.Update) (gone []string) {
	if s.fresh {
		return nil
	}
	for name := range s.restored {
		there := s.wanted[name] || slices.Contains(u.Removed, name) ||
			slices.ContainsFunc(u.Resources, func(r xds.Resource) bool { return r.Name == name })
		if !there {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	s.restored = nil
	return gone
}

func (s *shelf) take(u *xds.Update, rejected []xds.Rejection) {
	for _, name := range u.Removed {
		delete(s.has, name)
	}
	for _, r := range u.Resources {
		if !slices.ContainsFunc(rejected, func(bad xds.Rejection) bool { return bad.Name == r.Name }) {
			s.has[r.Name] = r
		}
	}
}

// Follow returns to with an ear: what nobody wants any more is not kept.
func (k *Keeper) Follow(to Subscriptions) Subscriptions { return follower{k, to} }

type follower struct {
	k  *Keeper
	to Subscriptions
}

func (f follower) Subscribe(typeURL string, names ...string) {
	f.k.note(typeURL, names, func(s *shelf, name string) { s.wanted[name] = true }, true)
	f.to.Subscribe(typeURL, names...)
}

func (f follower) Unsubscribe(typeURL string, names ...string) {
	f.k.note(typeURL, names, (*shelf).leave, false)
	f.to.Unsubscribe(typeURL, names...)
	f.k.Touch()
}

func (k *Keeper) note(typeURL string, names []string, each func(s *shelf, name string), wildcard bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.shelf[typeURL]
	if s == nil {
		return
	}
	if len(names) == 0 {
		s.wildcard = wildcard
	}
	for _, name := range names {
		if name == "*" {
			s.wildcard = wildcard
		} else {
			each(s, name)
		}
	}
}

// leave forgets a name, and the resource that bears it unless it is wanted by
// another name. Where everything of the type is wanted, the server says what goes.
func (s *shelf) leave(name string) {
	delete(s.wanted, name)
	if s.wildcard {
		return
	}
	for own, r := range s.has {
		if (own == name || slices.Contains(r.Aliases, name)) && !s.wanted[own] &&
			!slices.ContainsFunc(r.Aliases, func(a string) bool { return s.wanted[a] }) {
			delete(s.has, own)
		}
	}
}

// Load reads what an earlier process kept. A file that is not there is no error;
// one that is of no use is, and is left alone until the next one is written.
func (k *Keeper) Load() (*Kept, error) {
	f, err := os.Open(k.path())
	if errors.Is(err, os.ErrNotExist) {
		return &Kept{}, nil
	}
	if err != nil {
		return &Kept{}, fmt.Errorf("what was kept cannot be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	kept, err := read(f, k.cfg.MaxBytes)
	if err == nil {
		err = kept.useful(k.cfg.Owner, time.Now(), k.cfg.MaxAge)
	}
	if err != nil {
		return &Kept{}, fmt.Errorf("%s is ignored: %w", k.path(), err)
	}
	return kept, nil
}

// Restore brings back what was kept, types in order; a type that the control
// plane has answered by now is left alone. It returns how many resources are in force.
func (k *Keeper) Restore(kept *Kept) (n int) {
	for _, typeURL := range k.cfg.Types {
		for _, u := range kept.Updates {
			if u.TypeURL == typeURL {
				n += k.restore(u)
			}
		}
	}
	return n
}

func (k *Keeper) restore(u xds.Update) int {
	k.applying.Lock()
	defer k.applying.Unlock()
	k.mu.Lock()
	s := k.shelf[u.TypeURL]
	fresh := s.fresh
	k.mu.Unlock()
	if fresh {
		return 0
	}
	rejected := k.next.Apply(u)
	for _, r := range rejected {
		k.cfg.Log.Warn("what was kept is refused", "type", u.TypeURL, "name", r.Name, "error", r.Err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.take(&u, rejected)
	for name := range s.has {
		s.restored[name] = true
	}
	return len(u.Resources) - len(rejected)
}

// Run writes what has changed, until ctx ends; then once more.
func (k *Keeper) Run(ctx context.Context) error {
	if err := os.MkdirAll(k.cfg.Dir, 0o700); err != nil {
		k.cfg.Log.Error("nothing is kept for a start without control plane", "error", err)
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			k.save()
			return nil
		case <-k.dirty:
		}
		k.settle(ctx)
		k.save()
	}
}

// settle waits until nothing has changed for a while.
func (k *Keeper) settle(ctx context.Context) {
	most := time.NewTimer(k.cfg.Most)
	defer most.Stop()
	quiet := time.NewTimer(k.cfg.Quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-most.C:
			return
		case <-quiet.C:
			return
		case <-k.dirty:
			quiet.Reset(k.cfg.Quiet)
		}
	}
}

func (k *Keeper) save() {
	b, digest := k.contents().encode()
	k.mu.Lock()
	same := digest == k.digest
	k.mu.Unlock()
	if same {
		return
	}
	if int64(len(b)) > k.cfg.MaxBytes {
		k.cfg.Log.Error("what is in use is too large to be kept", "bytes", len(b), "limit", k.cfg.MaxBytes)
		return
	}
	if err := write(k.path(), b); err != nil {
		k.cfg.Log.Error("what is in use cannot be kept for a start without control plane", "error", err)
		return
	}
	k.mu.Lock()
	k.digest = digest
	k.mu.Unlock()
}

// contents is what is to be written now.
func (k *Keeper) contents() *Kept {
	notes := k.cfg.Notes()
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := &Kept{Owner: k.cfg.Owner, At: time.Now(), Notes: notes}
	for _, typeURL := range k.cfg.Types {
		u := xds.Update{TypeURL: typeURL}
		for _, name := range slices.Sorted(maps.Keys(k.shelf[typeURL].has)) {
			u.Resources = append(u.Resources, k.shelf[typeURL].has[name])
		}
		if len(u.Resources) > 0 {
			kept.Updates = append(kept.Updates, u)
		}
	}
	return kept
}
