// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/local/view/viewtest"
	"github.com/meltemi/meltemi/local/watch"
)

// onTerminal runs a screen on a terminal; end returns what Run did.
func onTerminal(t *testing.T, x viewtest.Terminal, quit func()) (s *Screen, end func() error) {
	t.Helper()
	s = NewScreen(x.Program, true)
	s.Begin(header)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, quit) }()
	var once sync.Once
	var err error
	end = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(10 * time.Second):
				t.Error("the screen does not end")
			}
		})
		return err
	}
	t.Cleanup(func() { _ = end() })
	return s, end
}

// A seen collects what a terminal is sent.
type seen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func watchTerminal(x viewtest.Terminal) *seen {
	s := &seen{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := x.User.Read(b)
			s.mu.Lock()
			s.b.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *seen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *seen) await(t *testing.T, text string) {
	t.Helper()
	within(t, text, func() bool { return strings.Contains(s.text(), text) })
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come: %q", what)
		}
	}
}

func TestScreen(t *testing.T) {
	x := viewtest.New(t, 120, 40)
	before, err := unix.IoctlGetTermios(int(x.Program.Fd()), getTermios)
	if err != nil {
		t.Fatal(err)
	}
	sees := watchTerminal(x)
	quits := make(chan struct{}, 10)
	s, end := onTerminal(t, x, func() { quits <- struct{}{} })
	sees.await(t, header.Page)
	for range 20 {
		s.Say(events[0])
	}
	s.Say(Event{noon, "the last", false})
	s.Show(picture())
	sees.await(t, "the last")
	sees.await(t, "reviews.yaml:31")
	if got := s.frame(); strings.Count(got, "ready in") != maxEvents-1 {
		t.Errorf("%s", got)
	}
	for _, key := range []string{"x", "q", "\x03"} {
		if _, err := io.WriteString(x.User, key); err != nil {
			t.Fatal(err)
		}
		if key != "x" {
			<-quits
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	sees.await(t, leaveScreen)
	for _, question := range []string{"\x1b]", "\x1b[6n", "\x1b[c"} {
		if strings.Contains(sees.text(), question) {
			t.Errorf("the terminal was asked %q", question)
		}
	}
	after, err := unix.IoctlGetTermios(int(x.Program.Fd()), getTermios)
	if err != nil || *after != *before {
		t.Errorf("the terminal's modes are others: %v", err)
	}
	if len(quits) != 0 {
		t.Error("an x was taken for a wish to end")
	}
}

func TestScreenFits(t *testing.T) {
	x := viewtest.New(t, 60, 12)
	sees := watchTerminal(x)
	s, _ := onTerminal(t, x, func() {})
	s.Show(picture())
	for range 10 {
		s.Say(events[0])
	}
	sees.await(t, header.Page)
	fits := func(height int) func() bool {
		return func() bool { return strings.Count(s.frame(), "\n") <= height-1 }
	}
	within(t, "12 rows", fits(12))
	x.Resize(t, 30, 5)
	within(t, "5 rows", fits(5))
	x.Resize(t, 0, 0) // it does not know
	within(t, "the usual size", func() bool { return strings.Contains(s.frame(), "reviews.yaml:31") })
	p := picture()
	p.Problems, p.Proxies, p.Control = nil, nil, ""
	s.Show(p)
	x.Resize(t, 60, 12)
	s.Say(Event{noon, "the newest", true})
	within(t, "the newest", func() bool { return fits(12)() && strings.Contains(s.frame(), "the newest") })
}

func TestTerminalThatIsGone(t *testing.T) {
	x := viewtest.New(t, 80, 24)
	s := NewScreen(x.Program, false)
	sees := watchTerminal(x)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context(), func() {}) }()
	s.Show(watch.Picture{})
	sees.await(t, "no traffic")
	if err := x.User.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "terminal is gone") {
		t.Errorf("got %v", err)
	}
}

func TestTerminalThatIsNotRead(t *testing.T) {
	x := viewtest.New(t, 200, 60)
	s, end := onTerminal(t, x, func() {})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 300 { // much more than a terminal holds
		s.Show(picture())
		<-tick.C
	}
	began := time.Now()
	if err := end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to end", took)
	}
}

func TestDrawable(t *testing.T) {
	x := viewtest.New(t, 80, 24)
	if !Drawable(x.Program) {
		t.Error("a terminal is not drawable")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if Drawable(f) {
		t.Error("a file is drawable")
	}
}
