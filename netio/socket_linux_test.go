// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"bufio"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// netAdmin reports whether this process has CAP_NET_ADMIN, which root in a container often lacks.
func netAdmin() bool {
	var caps [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	return err == nil && caps[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

func TestMarkIsOnTheSocket(t *testing.T) {
	if !netAdmin() {
		t.Skip("SO_MARK needs CAP_NET_ADMIN")
	}
	l := listen(t, anyPort4)
	d := Dialer{Options: SocketOptions{Mark: 0x539}}
	c, err := d.Dial(t.Context(), AddrPortOf(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, _ := c.SyscallConn()
	_ = raw.Control(func(fd uintptr) {
		if m, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || m != 0x539 {
			t.Errorf("mark = %#x, %v", m, err)
		}
	})
}

func TestTransparentListenerBindsForeignAddress(t *testing.T) {
	if !netAdmin() {
		t.Skip("IP_TRANSPARENT needs CAP_NET_ADMIN")
	}
	for _, a := range []string{"203.0.113.7:0", "[2001:db8::7]:0"} {
		addr := netip.MustParseAddrPort(a)
		if _, err := Listen(t.Context(), addr, SocketOptions{}); err == nil {
			t.Errorf("%s could be bound without asking", a)
		}
		l, err := Listen(t.Context(), addr, SocketOptions{Transparent: true})
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		_ = l.Close()
	}
}

func TestProcNetTable(t *testing.T) {
	if !littleEndian() {
		t.Skip("the sample is from a little-endian machine")
	}
	const table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0\n" +
		"   1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0\n" +
		"   2: 0100007F:1F92 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0\n" +
		"   3: 00000000000000000000000001000000:1F93 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 444 1 0\n" +
		"   4: short\n"
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "111",
		"0.0.0.0:8080":   "111",
		"10.0.0.1:8080":  "",
		"10.0.0.1:8081":  "222",
		"127.0.0.1:8082": "", // established, not listening
		"[::1]:8083":     "444",
	} {
		got, _ := findInode(bufio.NewScanner(strings.NewReader(table)), netip.MustParseAddrPort(addr), stateListen)
		if got != want {
			t.Errorf("%s: inode %q, want %q", addr, got, want)
		}
	}
}
