// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

const (
	maxCommand  = 120
	stateListen = "0A" // TCP_LISTEN in /proc/net/tcp
	stateUDP    = "07" // an unconnected socket in /proc/net/udp
)

func portOwner(proto string, addr netip.AddrPort) (Owner, bool) {
	state := stateListen
	if proto == "udp" {
		state = stateUDP
	}
	for _, table := range []string{proto, proto + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			continue
		}
		inode, ok := findInode(bufio.NewScanner(f), addr, state)
		_ = f.Close()
		if !ok {
			continue
		}
		if o, ok := inodeOwner(inode); ok {
			return o, true
		}
	}
	return Owner{}, false
}

// findInode looks through the lines of /proc/net/{tcp,udp}[6] for a socket in state bound to addr
// or to a wildcard of its port. Columns: 1 local address, 3 state, 9 inode.
func findInode(lines *bufio.Scanner, addr netip.AddrPort, state string) (string, bool) {
	for lines.Scan() {
		col := strings.Fields(lines.Text())
		if len(col) < 10 || col[3] != state {
			continue
		}
		local, ok := parseHexAddr(col[1])
		if !ok || local.Port() != addr.Port() {
			continue
		}
		if local.Addr() == addr.Addr().Unmap() || local.Addr().IsUnspecified() || addr.Addr().IsUnspecified() {
			return col[9], true
		}
	}
	return "", false
}

// parseHexAddr reads "0100007F:1F90": the address as 32-bit words in the machine's byte order, the
// port as a number.
func parseHexAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if littleEndian() {
		for w := range slices.Chunk(b, 4) {
			slices.Reverse(w)
		}
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok
}

func littleEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}

// inodeOwner searches the open files of all processes for the socket.
func inodeOwner(inode string) (Owner, bool) {
	want := "socket:[" + inode + "]"
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return Owner{}, false
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(filepath.Join("/proc", d.Name(), "fd"))
		if err != nil {
			continue // gone, or not ours to see
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join("/proc", d.Name(), "fd", fd.Name()))
			if err == nil && link == want {
				return Owner{PID: pid, Command: commandOf(pid)}, true
			}
		}
	}
	return Owner{}, false
}

func commandOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	b = bytes.TrimSpace(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
	if len(b) > maxCommand {
		b = append(b[:maxCommand:maxCommand], "…"...)
	}
	return strings.ToValidUTF8(string(b), "?")
}
