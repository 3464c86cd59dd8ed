// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// Lines is a Face of lines.
type Lines struct {
	out    io.Writer
	every  time.Duration // between two reports of traffic
	failed chan error    // why nobody reads us any more

	mu       sync.Mutex
	reported time.Time
	problems string
}

var _ Face = (*Lines)(nil)

// NewLines reports traffic each time that every has passed.
func NewLines(out io.Writer, every time.Duration) *Lines {
	return &Lines{out: out, every: every, failed: make(chan error, 1)}
}

// Begin says where things are.
func (l *Lines) Begin(h Header) {
	note := "edit and save: it is in force at once"
	if h.Scratch {
		note = "a copy"
	}
	l.print(fmt.Sprintf("page    %s\nconfig  %s  (%s)\nstate   %s\ncapture %s", h.Page, h.Config, note, h.State, h.How))
}

// Say prints e.
func (l *Lines) Say(e Event) { l.print(cut(eventLine(e), 1000)) }

// Show prints problems when they change, and traffic now and then.
func (l *Lines) Show(p watch.Picture) {
	var problems strings.Builder
	for _, x := range p.Problems {
		fmt.Fprintf(&problems, "%s: %s\n", x.Severity, cut(x.String(), 1000))
	}
	l.mu.Lock()
	changed := problems.String() != l.problems
	l.problems = problems.String()
	due := p.At.Sub(l.reported) >= l.every && len(p.Edges) > 0
	if due {
		l.reported = p.At
	}
	l.mu.Unlock()
	switch {
	case changed && problems.Len() > 0:
		l.print(strings.TrimSuffix(problems.String(), "\n"))
	case changed:
		l.print("all configuration is in force again")
	}
	if due {
		var b strings.Builder
		renderEdges(&b, p.Edges, 200, plainStyle())
		l.print(strings.TrimRight(b.String(), "\n"))
	}
}

// Run waits for ctx to end, or for nobody to read: lines are printed as they come.
func (l *Lines) Run(ctx context.Context, _ func()) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-l.failed:
		return fmt.Errorf("nobody reads the output any more: %w", err)
	}
}

// Close has nothing to give back.
func (l *Lines) Close() {}

func (l *Lines) print(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.out, s); err != nil {
		select {
		case l.failed <- err:
		default: // the first is enough
		}
	}
}
