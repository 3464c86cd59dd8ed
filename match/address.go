// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Prefixes is a set of CIDRs. The zero value contains nothing.
type Prefixes struct {
	list []netip.Prefix // masked, sorted by length, longest first
}

// NewPrefixes returns the set of the given CIDRs.
func NewPrefixes(list ...netip.Prefix) (Prefixes, error) {
	p := Prefixes{list: make([]netip.Prefix, 0, len(list))}
	for _, cidr := range list {
		if !cidr.IsValid() {
			return Prefixes{}, fmt.Errorf("invalid CIDR %v", cidr)
		}
		addr, bits := cidr.Addr(), cidr.Bits()
		if addr.Is4In6() && bits >= 96 {
			addr, bits = addr.Unmap(), bits-96
		}
		p.list = append(p.list, netip.PrefixFrom(addr, bits).Masked())
	}
	slices.SortStableFunc(p.list, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
	return p, nil
}

// Contains says whether addr is in one of the CIDRs. IPv4-mapped addresses are
// compared as IPv4; a zone is ignored.
func (p *Prefixes) Contains(addr netip.Addr) bool {
	addr = Plain(addr)
	for i := range p.list {
		if p.list[i].Contains(addr) {
			return true
		}
	}
	return false
}

// Len returns the number of CIDRs.
func (p *Prefixes) Len() int { return len(p.list) }

// String lists the CIDRs for explain.
func (p *Prefixes) String() string {
	var b strings.Builder
	for i, cidr := range p.list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(cidr.String())
	}
	return b.String()
}

// Plain returns addr as every address matcher sees it: IPv4-mapped IPv6 as
// IPv4, without a zone.
func Plain(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		return addr.Unmap().WithZone("")
	}
	return addr
}

// Ports is a range of ports, Lo ≤ port < Hi.
type Ports struct{ Lo, Hi uint32 }

// Contains says whether port is in the range.
func (p Ports) Contains(port uint16) bool { return p.Lo <= uint32(port) && uint32(port) < p.Hi }

// String describes p for explain.
func (p Ports) String() string {
	if p.Hi == p.Lo+1 {
		return fmt.Sprintf("port %d", p.Lo)
	}
	return fmt.Sprintf("ports [%d, %d)", p.Lo, p.Hi)
}
