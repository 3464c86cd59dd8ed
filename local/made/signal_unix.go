// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package made

import "syscall"

// signal asks the process, or makes it, to end; with it its group, if it leads one.
func (t Thing) signal(insist bool) {
	sig := syscall.SIGTERM
	if insist {
		sig = syscall.SIGKILL
	}
	if t.Group {
		_ = syscall.Kill(-t.PID, sig)
		return
	}
	if t.Alive() {
		_ = syscall.Kill(t.PID, sig)
	}
}
