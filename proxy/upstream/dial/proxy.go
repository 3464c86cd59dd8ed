// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The first twelve bytes of a version 2 header.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// ProxyHeader returns the PROXY protocol header of a version (1 or 2) that tells
// who connected to where; if one of them is invalid it tells nothing: "UNKNOWN",
// or LOCAL. Source: the PROXY protocol specification, sections 2.1 and 2.2.
func ProxyHeader(version uint8, client, local netip.AddrPort) []byte {
	known := client.IsValid() && local.IsValid()
	src, dst := client.Addr().Unmap().WithZone(""), local.Addr().Unmap().WithZone("")
	if known && src.Is4() != dst.Is4() { // one family for both
		src, dst = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
	}
	if version == 1 {
		return proxyHeader1(known, src, dst, client.Port(), local.Port())
	}
	return proxyHeader2(known, src, dst, client.Port(), local.Port())
}

func proxyHeader1(known bool, src, dst netip.Addr, srcPort, dstPort uint16) []byte {
	if !known {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if src.Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, src, dst, srcPort, dstPort)
}

func proxyHeader2(known bool, src, dst netip.Addr, srcPort, dstPort uint16) []byte {
	b := append(make([]byte, 0, 16+36), signature...)
	if !known {
		return append(b, 0x20, 0x00, 0, 0) // LOCAL, unspecified, no addresses
	}
	family := byte(0x21) // AF_INET6, STREAM
	if src.Is4() {
		family = 0x11
	}
	b = append(b, 0x21, family) // version 2, PROXY
	b = binary.BigEndian.AppendUint16(b, uint16(2*len(src.AsSlice())+4))
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, srcPort)
	return binary.BigEndian.AppendUint16(b, dstPort)
}
