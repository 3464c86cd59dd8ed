// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/local/view/viewtest"
)

// Every way to ask for the end ends the whole mesh.
func TestEverySignalEndsEverything(t *testing.T) {
	for name, flags := range ways(t) {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
			t.Run(name+"/"+sig.String(), func(t *testing.T) {
				if signal.Ignored(sig) {
					t.Skip("it is ignored here, as with nohup, and so it is by who we start")
				}
				before := links()
				s := start(t, 0, flags...)
				s.awaitReady()
				// Twice in a row is the same wish: it was sent to us and to our group.
				_ = s.cmd.Process.Signal(sig)
				_ = s.cmd.Process.Signal(sig)
				if code := s.awaitEnd(); code != 0 {
					t.Errorf("exit code %d", code)
				}
				s.leavesNothing(before)
			})
		}
	}
}

// Who asks again does not wait: nothing runs any more, and the next start removes the rest.
func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			before := links()
			s := start(t, 0, flags...)
			s.awaitReady()
			for pid, text := range s.processes(" control --state ") { // it does not end by itself
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(text, err)
				}
			}
			s.interrupt()
			poll(t, "the first is heeded", func() error {
				if !strings.Contains(s.text(), "ending") {
					return errors.New("not yet")
				}
				return nil
			})
			began := time.Now()
			tick := time.NewTicker(150 * time.Millisecond) // more than an echo of the first
			defer tick.Stop()
			<-tick.C
			s.interrupt()
			if code := s.awaitEnd(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s", took)
			}
			poll(t, "all processes gone", func() error {
				if left := s.processes("."); len(left) > 0 {
					return errors.New("some are left")
				}
				return nil
			})
			again := exec.Command(filepath.Join(programs, "meltemi"), append([]string{"up", "--plain", "--for", "1ms"}, flags...)...)
			again.Dir = s.dir
			if out, err := again.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s.leavesNothing(before)
		})
	}
}

// As in "meltemi up --plain | head -1".
func TestOutputThatNobodyReads(t *testing.T) {
	before := links()
	s := &session{t: t, dir: t.TempDir()}
	s.cmd = exec.Command(filepath.Join(programs, "meltemi"), "up", "--plain", "--no-capture")
	s.cmd.Dir = s.dir
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = w, &said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	lines := bufio.NewScanner(r)
	lines.Scan()
	_ = r.Close()
	if err := endsWithin(t, s.cmd, 30*time.Second); err == nil || !strings.Contains(said.String(), "nobody reads") {
		t.Errorf("%v %s", err, said.String())
	}
	s.leavesNothing(before)
}

func endsWithin(t *testing.T, cmd *exec.Cmd, limit time.Duration) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		_ = cmd.Process.Kill()
		t.Errorf("it does not end within %s", limit)
		return <-done
	}
}

const leaveScreen = "\x1b[?1049l"

// A terminalSession is a "meltemi up" on a terminal of its own, which answers no questions.
type terminalSession struct {
	*session
	terminal viewtest.Terminal
	modes    string     // the terminal's, before it started
	reading  sync.Mutex // who holds it lets nobody read the terminal any more
}

func onTerminal(t *testing.T, args ...string) *terminalSession {
	t.Helper()
	x := &terminalSession{session: &session{t: t, dir: t.TempDir()}, terminal: viewtest.New(t, 110, 30)}
	x.modes = x.terminal.Modes(t)
	x.cmd = exec.Command(filepath.Join(programs, "meltemi"), args...)
	x.cmd.Dir = x.dir
	x.cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = x.terminal.Program, x.terminal.Program, x.terminal.Program
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = x.terminal.Program.Close()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := x.terminal.User.Read(b)
			x.reading.Lock()
			x.mu.Lock()
			x.out.Write(b[:n])
			x.mu.Unlock()
			x.reading.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(sync.OnceFunc(func() {
		if t.Failed() {
			t.Logf("the terminal saw:\n%q", x.text())
		}
	}))
	return x
}

func (x *terminalSession) awaitText(text string) {
	x.t.Helper()
	poll(x.t, text, func() error {
		if !strings.Contains(x.text(), text) {
			return errors.New("not yet")
		}
		return nil
	})
}

// The view is there at once, and goes at once, on a terminal that answers nothing.
func TestTheDrawnView(t *testing.T) {
	for name, end := range map[string]func(x *terminalSession){
		"Ctrl-C": func(x *terminalSession) { _, _ = io.WriteString(x.terminal.User, "\x03") },
		"q":      func(x *terminalSession) { _, _ = io.WriteString(x.terminal.User, "q") },
		"closed": func(x *terminalSession) { _ = x.terminal.User.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			before, began := links(), time.Now()
			x := onTerminal(t, "up", "--no-capture")
			x.awaitText("/productpage")
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it is drawn after %s", took)
			}
			x.awaitText("ready in")
			began = time.Now()
			end(x)
			if err := endsWithin(t, x.cmd, 10*time.Second); err != nil && name != "closed" {
				t.Error(err)
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("it ended after %s", took)
			}
			x.leavesNothing(before)
		})
	}
}

// A terminal whose reader is stuck holds up neither the mesh nor its end.
func TestTheDrawnViewThatIsNotRead(t *testing.T) {
	before := links()
	x := onTerminal(t, "up", "--no-capture")
	x.awaitText("ready in")
	x.reading.Lock()
	x.terminal.Fill(t)
	for range 50 { // the view has news of each
		if status, _, err := get(page); err != nil || status != http.StatusOK {
			t.Errorf("the page: %d, %v", status, err)
		}
	}
	_, _ = io.WriteString(x.terminal.User, "\x03")
	if err := endsWithin(t, x.cmd, 10*time.Second); err != nil {
		t.Error(err)
	}
	x.reading.Unlock()
	x.awaitText("all that was made is removed")
	if !strings.Contains(x.text(), leaveScreen) {
		t.Error("the other screen is not left")
	}
	x.leavesNothing(before)
}

// Who asks twice has the terminal as it was, too.
func TestTheDrawnViewEndedAtOnce(t *testing.T) {
	x := onTerminal(t, "up", "--no-capture")
	x.awaitText("ready in")
	if x.terminal.Modes(t) == x.modes {
		t.Error("the view waits for whole lines")
	}
	for pid, text := range x.processes(" control --state ") { // it does not end by itself
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(text, err)
		}
	}
	_, _ = io.WriteString(x.terminal.User, "\x03")
	x.awaitText("to be asked once more")
	tick := time.NewTicker(150 * time.Millisecond) // more than an echo of the first
	defer tick.Stop()
	<-tick.C
	_, _ = io.WriteString(x.terminal.User, "\x03")
	if err := endsWithin(t, x.cmd, 3*time.Second); err == nil {
		t.Error("it ended as if nothing was left")
	}
	x.awaitText(leaveScreen)
	if x.terminal.Modes(t) != x.modes {
		t.Error("the terminal's modes are others")
	}
}

// A terminal that answers nothing holds no command up.
func TestCommandsAskTheTerminalNothing(t *testing.T) {
	began := time.Now()
	x := onTerminal(t, "version")
	if err := endsWithin(t, x.cmd, 10*time.Second); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	x.awaitText("meltemi ")
	if strings.Contains(x.text(), "\x1b") {
		t.Errorf("%q", x.text())
	}
}
