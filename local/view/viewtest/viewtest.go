// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package viewtest has terminals for tests: what a program draws on one is read from its other end, and
// what is written there it takes for typed. It answers no question that a program asks a terminal.
package viewtest

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

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
	term := Terminal{User: user, Program: program}
	term.Resize(t, width, height)
	return term
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
