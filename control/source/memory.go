// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"sync"
)

// Memory is a Source whose objects this process puts itself: workloads that register, and tests.
// The zero value is not ready; use NewMemory.
type Memory struct {
	name string

	mu      sync.Mutex
	objects map[Key]Put
	pending Batch // not yet applied
	wake    chan struct{}
}

var _ Source = (*Memory)(nil)

// NewMemory returns an empty source.
func NewMemory(name string) *Memory {
	return &Memory{name: name, objects: map[Key]Put{}, wake: make(chan struct{}, 1)}
}

// Name implements [Source].
func (m *Memory) Name() string { return m.name }

// Put adds objects or new versions of them; all of them become visible at once.
func (m *Memory) Put(entries ...Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		put := Put{Entry: e}
		m.objects[e.ObjectKey()] = put
		m.pending.Put = append(m.pending.Put, put)
	}
	m.signal()
}

// Delete removes objects; those that are not there are no error.
func (m *Memory) Delete(keys ...Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.objects, k)
	}
	// What was put before and is now gone must not come back when the batch is applied.
	var rest []Put
	for _, p := range m.pending.Put {
		if _, ok := m.objects[p.Entry.ObjectKey()]; ok {
			rest = append(rest, p)
		}
	}
	m.pending.Put = rest
	m.pending.Delete = append(m.pending.Delete, keys...)
	m.signal()
}

func (m *Memory) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run implements [Source].
func (m *Memory) Run(ctx context.Context, sink Sink) error {
	m.mu.Lock()
	first := Batch{}
	for _, p := range m.objects {
		first.Put = append(first.Put, p)
	}
	m.pending = Batch{}
	m.mu.Unlock()
	sink.Apply(first)
	sink.Synced()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
		m.mu.Lock()
		next := m.pending
		m.pending = Batch{}
		m.mu.Unlock()
		if len(next.Put)+len(next.Delete) > 0 {
			sink.Apply(next)
		}
	}
}
