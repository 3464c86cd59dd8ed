// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Born returns when a process began; "" if there is none, or only its remains (a zombie).
func Born(pid int) string {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	const zombie = 5 // SZOMB of sys/proc.h
	if err != nil || k.Proc.P_pid != int32(pid) || k.Proc.P_stat == zombie {
		return ""
	}
	return fmt.Sprintf("%d.%06d", k.Proc.P_starttime.Sec, k.Proc.P_starttime.Usec)
}

// findMarked finds nothing: other processes' environments are not ours to read here.
func findMarked(string) int { return 0 }

func bootID() string {
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return ""
	}
	return fmt.Sprint(tv.Sec)
}
