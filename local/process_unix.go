// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package local

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func selfProgram() string {
	if runtime.GOOS == "linux" {
		return self
	}
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func (c command) setAttributes(cmd *exec.Cmd) {
	// A group of its own: Ctrl-C in the terminal is for us, and we end our children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !c.foreground}
	if c.user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.user.uid, Gid: c.user.gid, NoSetGroups: false}
		if c.lowPorts {
			allowLowPorts(cmd.SysProcAttr)
		}
	}
}

// signal passes a signal on.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// typed reports whether a signal was typed at the terminal that in is: those go to everybody in its foreground.
func typed(s os.Signal, in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok || s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	front, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && front == unix.Getpgrp()
}

// number is the system's own for a signal.
func number(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return int(n)
	}
	return 0
}

// signalNumber is the signal that ended a process.
func signalNumber(e *exec.ExitError) int {
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return int(ws.Signal())
	}
	return 0
}
