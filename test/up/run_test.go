// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/netns"
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

// greets makes this program a server that speaks first, on PORT.
const greets = "MELTEMI_TEST_GREETS"

func greet() {
	l, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, "220 good day\n")
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, "250 "+line)
		}()
	}
}

// calls makes this program a client of such a server, at this address: it prints what it hears.
const calls = "MELTEMI_TEST_CALLS"

func call(addr string) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	r := bufio.NewReader(conn)
	for range 2 {
		line, err := r.ReadString('\n')
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(line)
		_, _ = io.WriteString(conn, "fine\n")
	}
}

// Whoever joins is not asked what it speaks: a server may speak first. And who writes a Service for it afterwards
// has written the only one.
func TestRunOfAServerThatSpeaksFirst(t *testing.T) {
	if err := netns.Permitted(); err != nil {
		t.Skip("nothing can be captured:", err)
	}
	s := start(t, 0, "--traffic", "0")
	s.awaitReady()
	state := filepath.Join(s.dir, ".meltemi")
	run := func(env string, flags ...string) *exec.Cmd {
		own, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{"run", "--dir", state}, flags...)
		c := exec.Command(filepath.Join(programs, "meltemi"), append(args, "--", own)...)
		c.Env = append(os.Environ(), env)
		return c
	}
	server := run(greets+"=1", "--service", "greeter", "--port", "7000")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = endsWithin(t, server, 20*time.Second)
	})
	heard := func() error {
		out, err := run(calls+"=greeter:7000", "--service", "caller").Output()
		if err != nil || string(out) != "220 good day\n250 fine\n" {
			return fmt.Errorf("%v, %q", err, out)
		}
		return nil
	}
	poll(t, "a call to a server that speaks first", heard)

	service := "apiVersion: v1\nkind: Service\nmetadata: {name: greeter}\nspec:\n  selector: {app: greeter}\n  ports:\n  - {name: tcp-greetings, port: 7000, targetPort: http}\n"
	if err := os.WriteFile(filepath.Join(s.dir, "meltemi-bookshop", "greeter.yaml"), []byte(service), 0o644); err != nil {
		t.Fatal(err)
	}
	poll(t, "a status in which all is well, with the Service as it was written", func() error {
		meltemi := func(args ...string) (string, error) {
			out, err := exec.Command(filepath.Join(programs, "meltemi"), append(args, "--dir", state)...).CombinedOutput()
			return string(out), err
		}
		said, err := meltemi("status")
		why, _ := meltemi("explain", "--from", "productpage", "tcp://greeter:7000")
		if err != nil || !strings.Contains(why, "meltemi-bookshop/greeter.yaml:1") {
			return fmt.Errorf("%v: %s\n%s", err, said, why)
		}
		return nil
	})
	poll(t, "a call with a Service of one's own", heard)
}
