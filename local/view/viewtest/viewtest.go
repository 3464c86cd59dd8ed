// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package viewtest has terminals for tests: what a program draws on one is read from its other end, and
// what is written there it takes for typed. It answers no question that a program asks a terminal.
package viewtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/charmbracelet/x/term"
	"golang.org/x/sys/unix"
)

// A Terminal is a pseudo-terminal.
type Terminal struct {
	User    *os.File // what people see and type
	Program *os.File // what programs have for a terminal
}

// New returns a terminal of that size.
func New(t *testing.T, width, height uint16) Terminal {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("terminals for tests are made on Linux alone")
	}
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { _ = user.Close() })
	conn, err := user.SyscallConn() // Fd would make reads block for good
	if err != nil {
		t.Fatal(err)
	}
	var number int
	controlErr := conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unlockTerminal, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), terminalNumber)
		}
	})
	if err != nil || controlErr != nil {
		t.Fatal(err, controlErr)
	}
	program, err := os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(number)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	x := Terminal{User: user, Program: program}
	x.Resize(t, width, height)
	return x
}

// TIOCSPTLCK and TIOCGPTN of Linux, which other systems do not have.
const (
	unlockTerminal = 0x40045431
	terminalNumber = 0x80045430
)

// Resize gives the terminal another size.
func (x Terminal) Resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(x.Program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

// Fill writes to the terminal until it takes no more: whoever draws on it waits for a reader.
func (x Terminal) Fill(t *testing.T) {
	t.Helper()
	fd, err := unix.Open(x.Program.Name(), unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	// fill reports whether the terminal took something, in pieces of that size.
	fill := func(size int) bool {
		for n := 0; ; n++ {
			_, err := unix.Write(fd, bytes.Repeat([]byte("."), size))
			if errors.Is(err, unix.EAGAIN) {
				return n > 0
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for full := 0; full < 10; <-tick.C { // what it holds is moved on, in steps, to where it is read
		full++
		if fill(1024) || fill(1) { // a single character may fit where more do not
			full = 0
		}
		if time.Now().After(deadline) {
			t.Fatal("the terminal takes ever more")
		}
	}
}

// Modes tell, for comparing, how the terminal treats keys and text.
func (x Terminal) Modes(t *testing.T) string {
	t.Helper()
	conn, err := x.User.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var modes *term.State
	controlErr := conn.Control(func(fd uintptr) { modes, err = term.GetState(fd) })
	if err != nil || controlErr != nil {
		t.Fatal(err, controlErr)
	}
	return fmt.Sprint(*modes)
}
