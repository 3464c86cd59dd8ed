// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
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

// bareFor is how long a process may have no environment and yet be about to get one: it does nothing but wait for a
// processor then.
const bareFor = 500 * time.Millisecond

// longestEnviron is how much of an environment is searched.
const longestEnviron = 256 << 10

// findMarked finds a process by the marker in its environment.
func findMarked(marker string) int {
	if marker == "" {
		return 0
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var bare []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		switch has, env := marked(pid, marker); {
		case has:
			return pid
		case !env && hasProgram(pid):
			bare = append(bare, pid)
		}
	}
	// For a moment of execve(2) the environment is not there yet.
	for end := time.Now().Add(bareFor); len(bare) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, pid := range bare {
			if has, _ := marked(pid, marker); has {
				return pid
			}
		}
	}
	return 0
}

// marked reports whether marker is in a process's environment, and whether there is anything in that.
func marked(pid int, marker string) (has, env bool) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false, true
	}
	defer func() { _ = f.Close() }()
	// In one piece, for with execve(2) what has been opened comes to an end.
	b := make([]byte, longestEnviron)
	n, _ := f.Read(b)
	want := []byte(MarkerVariable + "=" + marker)
	for v := range bytes.SplitSeq(b[:n], []byte{0}) {
		if bytes.Equal(v, want) {
			return true, true
		}
	}
	return false, n > 0
}

// hasProgram tells a process from a thread of the kernel, and from remains.
func hasProgram(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil
}

// bootID names the running system; what a reboot ends carries it.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
