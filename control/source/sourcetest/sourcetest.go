// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package sourcetest is the exam that every source passes.
//
//	func TestFolderIsASource(t *testing.T) {
//		sourcetest.Run(t, func(t *testing.T) sourcetest.Rig {
//			world := newFolder(t)
//			return sourcetest.Rig{Source: file.New(…), Put: world.Write, Delete: world.Remove}
//		})
//	}
package sourcetest

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// A Rig is a source with a world that the exam can change. Put and Delete are called before the
// source runs as well as while it does.
type Rig struct {
	Source source.Source
	// Put makes the world hold the object, in a new version if it does already.
	Put func(source.Entry)
	// Delete removes the object from the world.
	Delete func(source.Key)
}

// Patience is how long the exam waits for what must come.
const Patience = 20 * time.Second

// Run examines the sources that make makes, each with its own world.
func Run(t *testing.T, make func(t *testing.T) Rig) {
	t.Run("reports what is there, then says so", func(t *testing.T) {
		rig := make(t)
		rig.Put(Service("shop", "cart", 80))
		rig.Put(VirtualService("shop", "cart", "cart"))
		r := Start(t, rig.Source)
		r.WaitSynced(t)
		r.Want(t, Service("shop", "cart", 80), VirtualService("shop", "cart", "cart"))
	})
	t.Run("follows changes", func(t *testing.T) {
		rig := make(t)
		rig.Put(Service("shop", "cart", 80))
		r := Start(t, rig.Source)
		r.WaitSynced(t)
		rig.Put(Service("shop", "cart", 81))
		r.Want(t, Service("shop", "cart", 81))
		rig.Put(Service("other", "cart", 80))
		r.Want(t, Service("shop", "cart", 81), Service("other", "cart", 80))
		rig.Delete(Service("shop", "cart", 81).ObjectKey())
		r.Want(t, Service("other", "cart", 80))
		rig.Put(Service("shop", "cart", 82))
		r.Want(t, Service("other", "cart", 80), Service("shop", "cart", 82))
	})
	t.Run("ends when it is told to", func(t *testing.T) {
		rig := make(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := goRun(ctx, rig.Source, NewRecorder())
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		case <-time.After(Patience):
			t.Fatal("Run did not return")
		}
	})
}

func goRun(ctx context.Context, s source.Source, r *Recorder) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r) }()
	return done
}

// Start runs a source until the test ends and records what it reports.
func Start(t *testing.T, s source.Source) *Recorder {
	ctx, cancel := context.WithCancel(context.Background())
	r := NewRecorder()
	done := goRun(ctx, s, r)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("source %s: %v", s.Name(), err)
		}
	})
	return r
}

// A Recorder is a Sink that remembers.
type Recorder struct {
	mu       sync.Mutex
	entries  map[source.Key]source.Put
	problems map[string][]source.Problem
	batches  int
	synced   bool
	changed  chan struct{}
}

var _ source.Sink = (*Recorder)(nil)

// NewRecorder returns an empty Recorder.
func NewRecorder() *Recorder {
	return &Recorder{
		entries: map[source.Key]source.Put{}, problems: map[string][]source.Problem{}, changed: make(chan struct{}),
	}
}

// Apply implements [source.Sink].
func (r *Recorder) Apply(b source.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range b.Delete {
		delete(r.entries, k)
	}
	for _, p := range b.Put {
		if p.Refused != nil {
			continue
		}
		r.entries[p.Entry.ObjectKey()] = p
	}
	for _, p := range b.Report {
		delete(r.problems, p.About)
		if len(p.Problems) > 0 {
			r.problems[p.About] = p.Problems
		}
	}
	r.batches++
	r.signalLocked()
}

// Synced implements [source.Sink].
func (r *Recorder) Synced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced = true
	r.signalLocked()
}

func (r *Recorder) signalLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Wait returns when holds is true of the Recorder, and fails the test if that does not come.
func (r *Recorder) Wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(Patience)
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited for %s; there are %v and problems %v", what, r.Keys(), r.Problems())
		}
	}
}

// WaitSynced waits until the source has synced.
func (r *Recorder) WaitSynced(t *testing.T) {
	t.Helper()
	r.Wait(t, "the source to sync", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.synced
	})
}

// Want waits until the source has reported these objects and no others.
func (r *Recorder) Want(t *testing.T, want ...source.Entry) {
	t.Helper()
	r.Wait(t, "other objects", func() bool {
		got := r.Entries()
		if len(got) != len(want) {
			return false
		}
		for _, w := range want {
			if !slices.ContainsFunc(got, func(g source.Entry) bool { return sameEntry(g, w) }) {
				return false
			}
		}
		return true
	})
}

// Entries are the objects reported, by key.
func (r *Recorder) Entries() []source.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []source.Entry
	for _, p := range r.entries {
		all = append(all, p.Entry)
	}
	slices.SortFunc(all, func(a, b source.Entry) int { return a.ObjectKey().Compare(b.ObjectKey()) })
	return all
}

// Keys are the keys of the objects reported.
func (r *Recorder) Keys() []source.Key {
	var all []source.Key
	for _, e := range r.Entries() {
		all = append(all, e.ObjectKey())
	}
	return all
}

// Places are those of an object.
func (r *Recorder) Places(k source.Key) *source.Places {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[k].Places
}

// Problems are all that are reported now, in order.
func (r *Recorder) Problems() []source.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []source.Problem
	for _, ps := range r.problems {
		all = append(all, ps...)
	}
	slices.SortFunc(all, source.Problem.Compare)
	return all
}

// Batches is how often Apply was called.
func (r *Recorder) Batches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.batches
}

// sameEntry compares key and specification.
func sameEntry(a, b source.Entry) bool {
	if a.ObjectKey() != b.ObjectKey() {
		return false
	}
	switch a := a.(type) {
	case *source.Object[source.Service]:
		b, ok := b.(*source.Object[source.Service])
		return ok && reflect.DeepEqual(a.Spec, b.Spec)
	case *source.Object[*source.VirtualService]:
		b, ok := b.(*source.Object[*source.VirtualService])
		return ok && proto.Equal(a.Spec, b.Spec)
	}
	return false
}

// Service is a service with one HTTP port.
func Service(ns mesh.Namespace, name string, port int) *source.Object[source.Service] {
	return &source.Object[source.Service]{
		Key: source.Key{Kind: source.KindService, Namespace: ns, Name: name},
		Spec: source.Service{
			Selector: mesh.Labels{mesh.LabelApp: name},
			Ports:    []source.ServicePort{{Name: "http", Port: port}},
		},
	}
}

// VirtualService is a VirtualService that sends everything for its own name to a host.
func VirtualService(ns mesh.Namespace, name, to string) *source.Object[*source.VirtualService] {
	return &source.Object[*source.VirtualService]{
		Key: source.Key{Kind: source.KindVirtualService, Namespace: ns, Name: name},
		Spec: &source.VirtualService{
			Hosts: []string{name},
			Http: []*networking.HTTPRoute{{
				Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: to}}},
			}},
		},
	}
}
