// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// Screen is a Face on a terminal. It draws on the terminal's other screen and takes "q" for a wish to end;
// Ctrl-C stays the signal that it is everywhere.
//
// It asks the terminal nothing: there are some that never answer.
type Screen struct {
	terminal *os.File
	style    style
	dirty    chan struct{} // holds a token when there is something new to draw

	mu      sync.Mutex
	header  Header
	picture watch.Picture
	events  []Event
	width   int
	height  int
	taken   *tty // while Run has the terminal
}

var _ Face = (*Screen)(nil)

// NewScreen draws on terminal, in colors or without.
func NewScreen(terminal *os.File, colors bool) *Screen {
	s := &Screen{terminal: terminal, style: plainStyle(), dirty: make(chan struct{}, 1), width: defaultWidth, height: defaultHeight}
	if colors {
		s.style = colorStyle()
	}
	return s
}

// Of terminals that do not know their size.
const (
	defaultWidth  = 100
	defaultHeight = 24
)

// Begin sets the header.
func (s *Screen) Begin(h Header) { s.change(func() { s.header = h }) }

// Show draws p.
func (s *Screen) Show(p watch.Picture) { s.change(func() { s.picture = p }) }

// Say adds e to the events.
func (s *Screen) Say(e Event) {
	s.change(func() { s.events = append(s.events[max(0, len(s.events)-maxEvents+1):len(s.events):len(s.events)], e) })
}

// change makes a change that is to be seen. It never waits for the terminal.
func (s *Screen) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.dirty <- struct{}{}:
	default: // it will be drawn with what is waiting
	}
}

// What steers the terminal: the other screen, no cursor, long lines are cut; and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// leavePatience is how long a terminal that takes no text is waited for.
const leavePatience = 200 * time.Millisecond

// Run draws until ctx ends, or the terminal is gone, which is an error.
func (s *Screen) Run(ctx context.Context, quit func()) error {
	t, err := takeTTY(s.terminal)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	s.mu.Lock()
	s.taken = t
	s.mu.Unlock()
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2) // one for each goroutine
	drawing := make(chan struct{})
	go func() {
		defer close(drawing)
		failed <- s.draw(ctx, t)
	}()
	go func() { failed <- s.listen(ctx, t, quit) }()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	cancel()
	select {
	case <-drawing:
	case <-time.After(leavePatience):
		t.discard() // what nobody reads
	}
	return err
}

// draw draws whenever there is something new.
func (s *Screen) draw(ctx context.Context, t *tty) error {
	_, err := t.Write([]byte(enterScreen))
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-s.dirty:
			_, err = t.Write([]byte(s.frame()))
		}
	}
	return fmt.Errorf("the terminal is gone: %w", err)
}

// listen hears keys, and notices a new size.
func (s *Screen) listen(ctx context.Context, t *tty, quit func()) error {
	for ctx.Err() == nil {
		width, height, err := t.size()
		if err != nil {
			return fmt.Errorf("the terminal is gone: %w", err)
		}
		if width <= 0 || height <= 0 {
			width, height = defaultWidth, defaultHeight
		}
		s.mu.Lock()
		same := width == s.width && height == s.height
		s.mu.Unlock()
		if !same {
			s.change(func() { s.width, s.height = width, height })
		}
		if strings.ContainsAny(t.keys(ctx), "qQ\x03") {
			quit() // the end comes with ctx, when all has been taken down
		}
	}
	return nil
}

// Close gives the terminal back as it was.
func (s *Screen) Close() {
	s.mu.Lock()
	t := s.taken
	s.taken = nil
	s.mu.Unlock()
	if t == nil {
		return
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = t.Write([]byte(leaveScreen))
	}()
	select {
	case <-left:
	case <-time.After(leavePatience):
	}
	t.restore()
}

// frame is what to write to have everything on the screen, over what was there.
func (s *Screen) frame() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	lines := s.linesLocked(events)
	for len(lines) > s.height && len(events) > 1 { // the oldest news goes first
		events = events[1:]
		lines = s.linesLocked(events)
	}
	lines = lines[:min(len(lines), s.height)]
	// Lines are erased before they are written: after one that fills its row the cursor is still on
	// its last character.
	text := "\x1b[H\x1b[K" + strings.Join(lines, "\r\n\x1b[K")
	if len(lines) < s.height {
		text += "\r\n\x1b[J"
	}
	return text
}

func (s *Screen) linesLocked(events []Event) []string {
	return strings.Split(strings.TrimRight(render(s.header, s.picture, events, s.width, s.style), "\n"), "\n")
}
