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

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/term"
	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/local/watch"
)

// Screen is a Face on a terminal. It draws on the terminal's other screen and takes "q" for a wish to end;
// Ctrl-C stays the signal that it is everywhere.
//
// It waits for no answer of the terminal: there are some that never answer.
type Screen struct {
	terminal *os.File
	env      []string
	style    style
	dirty    chan struct{} // holds a token when there is something new to draw

	mu      sync.Mutex
	header  Header
	picture watch.Picture
	events  []Event
	width   int
	height  int
	close   func() // ends Run, and waits for it; nil before it runs
}

var _ Face = (*Screen)(nil)

// NewScreen draws on terminal, in colors or without. The environment env says of which kind it is.
func NewScreen(terminal *os.File, colors bool, env []string) *Screen {
	s := &Screen{terminal: terminal, env: env, style: plainStyle(), dirty: make(chan struct{}, 1), width: defaultWidth, height: defaultHeight}
	if colors {
		s.style = colorStyle()
	}
	return s
}

// Drawable reports whether f is a terminal to draw on: one that keys can be read from, and that we are not in
// the background of, which would stop us for it.
func Drawable(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || !term.IsTerminal(f.Fd()) {
		return false
	}
	front, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err != nil || front == unix.Getpgrp()
}

// Of terminals that do not know their size.
const (
	defaultWidth  = 100
	defaultHeight = 24
)

const (
	// leavePatience is how long a terminal that takes no text is waited for, before and after what it did not
	// take is dropped.
	leavePatience = 200 * time.Millisecond
	// closePatience is how long Close waits for Run.
	closePatience = time.Second
	// sizePause is how often the size is looked at: not every terminal tells when it changes, or that it is gone.
	sizePause = 200 * time.Millisecond
	// fullPause is how often a terminal that has no room, and says so, is tried.
	fullPause = 10 * time.Millisecond
	// framesPerSecond bounds how often the terminal is written to.
	framesPerSecond = 20
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

// Run draws until ctx ends, or the terminal is gone, which is an error.
func (s *Screen) Run(ctx context.Context, quit func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	s.mu.Lock()
	s.close = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(closePatience):
		}
	}
	s.mu.Unlock()
	if _, err := s.measure(); err != nil {
		return gone(err)
	}
	out := newOutlet(s.terminal)
	// Bubble Tea is not told that out is a terminal: its size is ours to look at.
	p := tea.NewProgram(&model{screen: s, quit: quit, frame: s.frame()}, tea.WithoutSignalHandler(),
		tea.WithInput(s.terminal), tea.WithOutput(out), tea.WithWindowSize(s.width, s.height), tea.WithFPS(framesPerSecond),
		tea.WithEnvironment(s.env), tea.WithColorProfile(colorprofile.ANSI))
	fed := make(chan error, 1)
	go func() {
		fed <- s.feed(ctx, p, out)
		cancel()
	}()
	// With our context it would close what its reader of keys reads, without waiting for it.
	defer context.AfterFunc(ctx, p.Quit)()
	_, err := p.Run()
	asked := ctx.Err() != nil
	cancel()
	out.leave()
	if lost := <-fed; lost != nil {
		return gone(lost)
	}
	if asked {
		return nil
	}
	return gone(err)
}

func gone(err error) error { return fmt.Errorf("the terminal is gone: %w", err) }

// feed tells p of what is new, whenever the terminal has taken all that was drawn.
func (s *Screen) feed(ctx context.Context, p *tea.Program, out *outlet) error {
	tick := time.NewTicker(sizePause)
	defer tick.Stop()
	for {
		var news tea.Msg
		select {
		case <-ctx.Done():
			return nil
		case err := <-out.failed:
			return err
		case <-s.dirty:
		case <-tick.C:
			other, err := s.measure()
			if err != nil {
				return err
			}
			if !other {
				continue
			}
			news = tea.WindowSizeMsg{Width: s.width, Height: s.height}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-out.idle():
		}
		if news != nil {
			p.Send(news)
		}
		p.Send(redraw{})
	}
}

// measure looks at the terminal's size, and says whether it is another.
func (s *Screen) measure() (other bool, err error) {
	width, height, err := term.GetSize(s.terminal.Fd())
	if err != nil {
		return false, err
	}
	if width <= 0 || height <= 0 {
		width, height = defaultWidth, defaultHeight
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	other = width != s.width || height != s.height
	s.width, s.height = width, height
	return other, nil
}

// Close gives the terminal back as it was.
func (s *Screen) Close() {
	s.mu.Lock()
	f := s.close
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// A redraw tells the model that there is something new.
type redraw struct{}

// A model is a Screen as Bubble Tea knows it. Its frame is another only after a redraw: until then the terminal
// may take nothing.
type model struct {
	screen *Screen
	quit   func()
	frame  string
}

func (m *model) Init() tea.Cmd { return nil }

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case redraw:
		m.frame = m.screen.frame()
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "Q":
			m.quit() // the end comes with the context, when all has been taken down
		case "ctrl+c":
			m.screen.interrupt(m.quit)
		}
	}
	return m, nil
}

func (m *model) View() tea.View {
	v := tea.NewView(m.frame)
	v.AltScreen = true
	v.KeyboardEnhancements.ReportAlternateKeys = true // Ctrl-C is Ctrl-C on layouts without a "c"
	return v
}

// interrupt does what the terminal would do, which gives us keys alone.
func (s *Screen) interrupt(quit func()) {
	if _, err := unix.IoctlGetInt(int(s.terminal.Fd()), unix.TIOCGPGRP); err != nil {
		quit() // it is not our controlling terminal: it signals nobody
		return
	}
	_ = unix.Kill(0, unix.SIGINT)
}

// frame is what the screen shows.
func (s *Screen) frame() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	lines := s.linesLocked(events)
	for len(lines) > s.height && len(events) > 1 { // the oldest news goes first
		events = events[1:]
		lines = s.linesLocked(events)
	}
	return strings.Join(lines[:min(len(lines), s.height)], "\n")
}

func (s *Screen) linesLocked(events []Event) []string {
	return strings.Split(strings.TrimRight(render(s.header, s.picture, events, s.width, s.style), "\n"), "\n")
}
