// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv4.h and
// linux/netfilter_ipv6/ip6_tables.h: one number for both families.
const soOriginalDst = 80

func originalDst(c *net.TCPConn) (netip.AddrPort, error) {
	local := AddrPortOf(c.LocalAddr())
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination of %s: %w", local, err)
	}
	var dst netip.AddrPort
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			dst, sockErr = originalDst4(int(fd))
		} else {
			dst, sockErr = originalDst6(int(fd), local.Addr().Zone())
		}
	})
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("original destination of %s: %w", local, err)
	case errors.Is(sockErr, unix.ENOENT), errors.Is(sockErr, unix.ENOPROTOOPT):
		// Connection tracking does not know it, or is not loaded: nothing was redirected.
		return local, nil
	case sockErr != nil:
		return netip.AddrPort{}, fmt.Errorf("original destination of %s: getsockopt SO_ORIGINAL_DST: %w", local, sockErr)
	}
	return dst, nil
}

// originalDst4 reads a sockaddr_in. IPv6Mreq is 20 bytes long: the 16 of the address land in its first field.
func originalDst4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := m.Multiaddr // family (2), port (2, network order), address (4), padding (8)
	port := binary.BigEndian.Uint16(b[2:4])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
}

// originalDst6 reads a sockaddr_in6, which is the first field of IPv6MTUInfo.
func originalDst6(fd int, zone string) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	// Port holds network byte order whatever the machine's own.
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&m.Addr.Port))[:])
	addr := netip.AddrFrom16(m.Addr.Addr)
	if addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(zone)
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}
