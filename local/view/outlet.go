// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/charmbracelet/x/term"
	"golang.org/x/sys/unix"
)

// An outlet is a terminal whose Write never waits: Bubble Tea draws, hears keys and ends under one lock,
// and would do none of it while a terminal takes no text.
type outlet struct {
	terminal *os.File
	failed   chan error // why nothing can be written any more

	mu      sync.Mutex
	pending []byte        // not yet taken up
	busy    chan struct{} // closed when all is written; nil if it is
}

func newOutlet(f *os.File) *outlet { return &outlet{terminal: f, failed: make(chan error, 1)} }

// Write takes p. It needs no limit: who draws waits for idle first.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending = append(o.pending, p...)
	if o.busy == nil {
		o.busy = make(chan struct{})
		go o.drain(o.busy)
	}
	return len(p), nil
}

func (o *outlet) drain(done chan struct{}) {
	defer close(done)
	for {
		o.mu.Lock()
		p := o.pending
		o.pending = nil
		if len(p) == 0 {
			o.busy = nil
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if err := o.writeAll(p); err != nil {
			select {
			case o.failed <- err:
			default: // the first is enough
			}
		}
	}
}

// writeAll waits for a terminal that has no room, also where another program has made its writes fail instead.
func (o *outlet) writeAll(p []byte) error {
	for {
		n, err := o.terminal.Write(p)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		p = p[n:]
		time.Sleep(fullPause)
	}
}

// idle is closed when all is written.
func (o *outlet) idle() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy != nil {
		return o.busy
	}
	now := make(chan struct{})
	close(now)
	return now
}

// leave waits for what is written to be taken. If it is not, what the terminal holds is dropped, which makes
// room for the rest: leaving the other screen is at its end.
func (o *outlet) leave() {
	if o.taken() {
		return
	}
	fd := o.terminal.Fd()
	discard(int(fd))
	if modes, err := term.GetState(fd); err == nil {
		_ = term.Restore(fd, modes) // wakes who waits to write, which discarding does not
	}
	o.taken()
}

// taken reports whether all is written within leavePatience.
func (o *outlet) taken() bool {
	select {
	case <-o.idle():
		return true
	case <-time.After(leavePatience):
		return false
	}
}
