// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropCode unmaps the pages of the program's code and constants; those that are
// still used come back from the page cache, at a minor fault each. Doing without is no
// failure: it only costs memory.
func dropCode() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for _, s := range clean(f, exe) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.start, s.end-s.start, unix.MADV_DONTNEED)
	}
}

// A span is a range of our own addresses.
type span struct{ start, end uintptr }

// clean lists the mappings of the file exe, in the format of /proc/PID/smaps, that
// nobody can write to and that hold nothing but what is in the file.
func clean(smaps io.Reader, exe string) []span {
	var spans []span
	var at span
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) > 0 && !strings.HasSuffix(f[0], ":"): // a new mapping
			at = mapping(f, exe)
		case len(f) > 1 && f[0] == "Anonymous:":
			if f[1] == "0" && at.end > at.start {
				spans = append(spans, at)
			}
		}
	}
	return spans
}

// mapping reads the line that begins a mapping; the span is empty if it is not
// one of exe, or may be written to.
func mapping(f []string, exe string) span {
	if len(f) < 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
		return span{}
	}
	from, to, _ := strings.Cut(f[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil {
		return span{}
	}
	return span{uintptr(start), uintptr(end)}
}
