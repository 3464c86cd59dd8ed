// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counting is a command that counts signals and ends with 3 after the first.
const counting = `n=0; trap 'n=$((n+1))' INT TERM HUP; echo counting; while [ $n = 0 ]; do sleep 0.05; done; sleep 0.3; echo "counted $n"; exit 3`

func TestRunPassesSignalsOnOnce(t *testing.T) {
	s := start(t, 0, "--no-capture", "--traffic", "0")
	s.awaitReady()
	args := []string{"run", "--dir", filepath.Join(s.dir, ".meltemi"), "--service", "hello", "--", "sh", "-c", counting}
	for name, send := range map[string]func(x *terminalSession){
		"typed": func(x *terminalSession) { _, _ = io.WriteString(x.terminal.User, "\x03") },
		"TERM":  func(x *terminalSession) { _ = x.cmd.Process.Signal(syscall.SIGTERM) },
		"HUP":   func(x *terminalSession) { _ = x.cmd.Process.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			x := onTerminal(t, args...)
			x.awaitText("counting")
			send(x)
			var exit *exec.ExitError
			if err := endsWithin(t, x.cmd, 20*time.Second); !errors.As(err, &exit) || exit.ExitCode() != 3 {
				t.Errorf("%v", err)
			}
			x.awaitText("counted 1")
		})
	}
}

func TestRunOfNoCommandDoesNotJoin(t *testing.T) {
	s := start(t, 0, "--no-capture", "--traffic", "0")
	s.awaitReady()
	for command, code := range map[string]int{"/nonexistent": 127, "no-such-command-here": 127, "/etc/passwd": 126} {
		out, err := exec.Command(filepath.Join(programs, "meltemi"), "run", "--dir", filepath.Join(s.dir, ".meltemi"), "--service", "hello", "--", command).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != code || !strings.Contains(string(out), command) || strings.Contains(string(out), "joined") {
			t.Errorf("%s: %v, %s", command, err, out)
		}
	}
}
