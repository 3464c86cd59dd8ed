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

// kind is an environment that says of which kind a terminal is.
var kind = []string{"TERM=xterm-256color"}

const leaveScreen = "\x1b[?1049l"

// onTerminal runs a screen on a terminal; end returns what Run did.
func onTerminal(t *testing.T, x viewtest.Terminal, quit func()) (s *Screen, end func() error) {
	t.Helper()
	s = NewScreen(x.Program, true, kind)
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
	before := x.Modes(t)
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
	// Ctrl-C as it always was, as xterm and kitty tell it when asked for details, and on a Cyrillic layout.
	for _, key := range []string{"x", "q", "\x03", "\x1b[27;5;99~", "\x1b[99;5u", "\x1b[1089::99;5u"} {
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
	if x.Modes(t) != before {
		t.Error("the terminal's modes are others")
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
	s := NewScreen(x.Program, false, kind)
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

// A terminal whose reader is stuck holds up nothing: not the news, not the keys, not the end.
func TestTerminalThatIsNotRead(t *testing.T) {
	for name, open := range map[string]func(*testing.T, viewtest.Terminal) *os.File{
		"and waits":         func(_ *testing.T, x viewtest.Terminal) *os.File { return x.Program },
		"and does not wait": withoutWaiting,
	} {
		t.Run(name, func(t *testing.T) {
			x := viewtest.New(t, 200, 60)
			x.Program = open(t, x)
			quits := make(chan struct{}, 10)
			s, end := onTerminal(t, x, func() { quits <- struct{}{} })
			x.Fill(t)
			awaitStuck(t, s)
			for range 1000 {
				s.Say(events[0])
				s.Show(picture())
			}
			if _, err := io.WriteString(x.User, "\x03"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-quits:
			case <-time.After(10 * time.Second):
				t.Error("Ctrl-C is not heard")
			}
			began := time.Now()
			if err := end(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s to end", took)
			}
			const last = "all is removed" // what is said at the end must not wait either
			said := make(chan error, 1)
			go func() {
				_, err := io.WriteString(x.Program, last)
				said <- err
			}()
			select {
			case err := <-said:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the terminal takes no text after the end")
			}
			sees := watchTerminal(x) // who looks again finds the screen left
			sees.await(t, last)
			if text := sees.text(); !strings.Contains(text[:strings.Index(text, last)], leaveScreen) {
				t.Errorf("the other screen is not left before the end: %q", text)
			}
		})
	}
}

// withoutWaiting is the terminal after another program has made its writes fail where they would wait.
func withoutWaiting(t *testing.T, x viewtest.Terminal) *os.File {
	t.Helper()
	fd, err := unix.Open(x.Program.Name(), unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), x.Program.Name())
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return f
}

// awaitStuck makes news until the screen takes none up, which it does only while it waits to write.
func awaitStuck(t *testing.T, s *Screen) {
	t.Helper()
	waits := 0
	within(t, "a screen that waits", func() bool {
		if len(s.dirty) > 0 {
			waits++
			return waits > 20
		}
		waits = 0
		s.Say(events[0])
		return false
	})
}

func TestDrawable(t *testing.T) {
	x := viewtest.New(t, 80, 24)
	if !Drawable(x.Program) {
		t.Error("a terminal is not drawable")
	}
	deaf, err := os.OpenFile(x.Program.Name(), os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if Drawable(deaf) {
		t.Error("a terminal that no keys can be read from is drawable")
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
