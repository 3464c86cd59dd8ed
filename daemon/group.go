// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package daemon is how a long-running program of ours starts, reports and stops.
//
//	group.go   components: started in order, stopped in reverse, the first error wins
//	ready.go   what is still missing before we are ready
//	drain.go   work under way, waited for at the end
//	admin.go   the HTTP side door for operators
//	signal.go  the first signal asks, the second insists
//
// Nothing here reads the environment, flags or signals by itself.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Component is a part of the program that runs until its context ends.
type Component struct {
	Name string
	// Run does the work. Returning nil early means that the work is done; an error ends the whole group.
	Run func(ctx context.Context) error
	// Started, if set, is closed by Run once what comes later in the group may rely on it.
	Started <-chan struct{}
	// Grace is how long Run may take to return after its context ended; 0 means the group's.
	Grace time.Duration
}

// A Group runs components.
type Group struct {
	Log   *slog.Logger
	Grace time.Duration // for components that set none; 0 means DefaultGrace

	components []Component
}

// DefaultGrace is how long a component may take to stop unless told otherwise.
const DefaultGrace = 10 * time.Second

// Add puts a component at the end of the order.
func (g *Group) Add(c Component) { g.components = append(g.components, c) }

// Go adds a component that has nothing but a name and work.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	g.Add(Component{Name: name, Run: run})
}

// running is a component under way.
type running struct {
	Component
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// errAsked says that the end was asked for, not forced by a failure.
var errAsked = errors.New("asked to end")

// Run starts the components in order, each after the one before has started, and waits until ctx ends, one fails,
// or all are done. Then it stops them in reverse order, one after the other. It returns the first
// failure under the name of its component; a component that ends with its context's error has not failed.
func (g *Group) Run(ctx context.Context) error {
	log := g.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var started []*running
	exits := make(chan *running, len(g.components))
	ended := 0
	// until waits for up to be closed or r to end; without r, for all to end.
	until := func(up <-chan struct{}, r *running) error {
		for ended < len(started) {
			select {
			case <-up:
				return nil
			case e := <-exits:
				ended++
				if err := e.failure(); err != nil {
					return err
				}
				if e == r {
					return nil
				}
			case <-ctx.Done():
				return errAsked
			}
		}
		return nil
	}
	run := func() error {
		// Stopping is ours to order: components do not see ctx end, only their own turn.
		base := context.WithoutCancel(ctx)
		for _, c := range g.components {
			if ctx.Err() != nil {
				return errAsked
			}
			log.Debug("starting", "component", c.Name)
			r := start(base, c, exits)
			started = append(started, r)
			if c.Started == nil {
				continue
			}
			if err := until(c.Started, r); err != nil {
				return err
			}
		}
		return until(nil, nil)
	}
	err := run()
	stopErr := g.stop(log, started)
	if err != nil && !errors.Is(err, errAsked) {
		return err
	}
	return stopErr
}

func start(base context.Context, c Component, exits chan<- *running) *running {
	ctx, cancel := context.WithCancel(base)
	r := &running{Component: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		r.err = c.Run(ctx)
		close(r.done)
		exits <- r
	}()
	return r
}

// failure may be asked for once done is closed.
func (r *running) failure() error {
	if r.err == nil || errors.Is(r.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", r.Name, r.err)
}

// stop ends components in reverse order, waiting for each. It returns what failed or overstayed.
func (g *Group) stop(log *slog.Logger, started []*running) error {
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		log.Debug("stopping", "component", r.Name)
		r.cancel()
		grace := r.Grace
		if grace == 0 {
			grace = g.Grace
		}
		if grace == 0 {
			grace = DefaultGrace
		}
		t := time.NewTimer(grace)
		select {
		case <-r.done:
			errs = append(errs, r.failure())
		case <-t.C:
			errs = append(errs, fmt.Errorf("%s: did not stop within %s", r.Name, grace))
		}
		t.Stop()
	}
	return errors.Join(errs...)
}
