// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"sync"
)

// A Drain counts work under way, so that a program can finish it before it goes. The zero value takes work.
type Drain struct {
	mu     sync.Mutex
	active int
	closed bool
	empty  chan struct{} // closed when active falls to 0 after closed
}

// Begin admits a piece of work; done ends it. It refuses once draining has begun.
func (d *Drain) Begin() (done func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false
	}
	d.active++
	return sync.OnceFunc(d.end), true
}

func (d *Drain) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	if d.active == 0 && d.empty != nil {
		close(d.empty)
		d.empty = nil
	}
}

// Active returns how many pieces of work are under way.
func (d *Drain) Active() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.active
}

// Wait refuses new work and waits for what is under way, or until ctx ends; then it says how much was left.
func (d *Drain) Wait(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	if d.active == 0 {
		d.mu.Unlock()
		return nil
	}
	if d.empty == nil {
		d.empty = make(chan struct{})
	}
	empty := d.empty
	d.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: %d still under way: %w", d.Active(), context.Cause(ctx))
	}
}
