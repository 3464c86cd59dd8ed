// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"context"
	"errors"
	"os"
	"sync"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/meltemi/meltemi/local/watch"
)

// Screen is a Face on a terminal.
type Screen struct {
	terminal *os.File

	mu      sync.Mutex
	model   model
	program *tea.Program // while Run runs
}

var _ Face = (*Screen)(nil)

// NewScreen draws on terminal.
func NewScreen(terminal *os.File) *Screen {
	return &Screen{terminal: terminal, model: model{width: 100, style: colorStyle()}}
}

// The messages are what the model is told.
type (
	pictureMsg watch.Picture
	eventMsg   Event
)

// Begin sets the header.
func (s *Screen) Begin(h Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.model.header = h
}

// Show draws p.
func (s *Screen) Show(p watch.Picture) { s.send(pictureMsg(p)) }

// Say adds e to the events.
func (s *Screen) Say(e Event) { s.send(eventMsg(e)) }

// send tells the program, or before there is one the model it will begin with.
func (s *Screen) send(msg tea.Msg) {
	s.mu.Lock()
	p := s.program
	if p == nil {
		m, _ := s.model.Update(msg)
		s.model = m.(model)
	}
	s.mu.Unlock()
	if p != nil {
		p.Send(msg)
	}
}

// Run draws until ctx ends, on the terminal's other screen.
func (s *Screen) Run(ctx context.Context, quit func()) error {
	s.mu.Lock()
	s.model.quit = quit
	p := tea.NewProgram(s.model, tea.WithContext(ctx), tea.WithInput(s.terminal), tea.WithOutput(s.terminal), tea.WithAltScreen(), tea.WithoutSignalHandler())
	s.program = p
	s.mu.Unlock()
	_, err := p.Run()
	s.mu.Lock()
	s.program = nil
	s.mu.Unlock()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// model is Bubble Tea's state of the screen.
type model struct {
	header  Header
	picture watch.Picture
	events  []Event
	width   int
	style   style
	quit    func()
}

// Init asks for nothing: all comes by messages.
func (m model) Init() tea.Cmd { return nil }

// Update takes in what happened.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case pictureMsg:
		m.picture = watch.Picture(msg)
	case eventMsg:
		m.events = append(m.events[max(0, len(m.events)-maxEvents+1):len(m.events):len(m.events)], Event(msg))
	case tea.WindowSizeMsg:
		m.width = msg.Width
	case tea.KeyMsg:
		switch msg.String() {
		case "q", "ctrl+c":
			m.quit() // the end comes with ctx, when all has been taken down
		}
	}
	return m, nil
}

// View draws.
func (m model) View() string { return render(m.header, m.picture, m.events, m.width, m.style) }
