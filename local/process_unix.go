// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package local

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
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
	}
}

// signalTo passes a signal on.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// signalNumber is the signal that ended a process.
func signalNumber(e *exec.ExitError) int {
	if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return int(ws.Signal())
	}
	return 0
}
