// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Born returns when a process began, in the kernel's clock ticks since boot; "" if there is none, or only
// its remains (a zombie).
func Born(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return bornIn(b)
}

// bornIn is Born of a process whose stat is b. One whose first thread is a zombie while others still end is not
// gone: it holds its ports.
func bornIn(b []byte) string {
	// The name, in brackets, may hold anything; fields are counted after its last bracket (proc(5)).
	_, rest, ok := bytes.Cut(b, []byte(") "))
	for ok && bytes.Contains(rest, []byte(") ")) {
		_, rest, ok = bytes.Cut(rest, []byte(") "))
	}
	f := strings.Fields(string(rest))
	const state, threads, starttime = 0, 17, 19 // fields 3, 20 and 22, counted from field 3
	if len(f) <= starttime || f[state] == "X" || f[state] == "Z" && (f[threads] == "0" || f[threads] == "1") {
		return ""
	}
	return f[starttime]
}

// findMarked finds a process by the marker in its environment.
func findMarked(marker string) int {
	if marker == "" {
		return 0
	}
	want := []byte(MarkerVariable + "=" + marker)
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + d.Name() + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				return pid
			}
		}
	}
	return 0
}

// bootID names the running system; what a reboot ends carries it.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
