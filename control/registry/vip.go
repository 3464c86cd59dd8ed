// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
)

// Services without an address are given one of 240.240.0.0/16, so that a client has
// something to dial that tells services of one port apart. The address follows from
// the service's name alone, unless two names want the same one: then the one with the smaller hash has it
// and the other moves on. The range is cut into groups that never share an address, so that a new service
// can at most move some of its own group; a group that is full leaves the rest without.

const (
	vipFirst  = 240 // 240.240.0.0/16
	vipSecond = 240
	vipSlots  = 254 // of a group; .0 and .255 are not used
)

type (
	vipGroup uint8
	vipHash  uint64
)

func vipSlot(s ServiceKey) vipHash {
	h := fnv.New64a()
	h.Write([]byte(s.String()))
	return vipHash(h.Sum64())
}

func (h vipHash) group() vipGroup { return vipGroup(h >> 56) }
func (h vipHash) slot() int       { return int((h >> 8) % vipSlots) }

func (g vipGroup) addr(slot int) netip.Addr {
	return netip.AddrFrom4([4]byte{vipFirst, vipSecond, byte(g), byte(slot + 1)})
}

func vipGroupOf(a netip.Addr) (vipGroup, bool) {
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return vipGroup(b[2]), b[0] == vipFirst && b[1] == vipSecond
}

// wantVIP lists the services of a declaration that need an address.
func wantVIP(k source.Key, d *Declaration) []ServiceKey {
	if !d.WantsVIP || len(d.Addrs)+len(d.Prefixes) > 0 {
		return nil
	}
	var all []ServiceKey
	for _, h := range d.Hosts {
		all = append(all, ServiceKey{k.Namespace, h})
	}
	return all
}

// vips is a group's share of the given addresses.
type vips struct {
	addr map[ServiceKey]netip.Addr
	at   map[netip.Addr]ServiceKey
}

// assign gives addresses to services of group g; taken says which ones somebody has claimed.
func assign(g vipGroup, services []ServiceKey, taken func(netip.Addr) bool) vips {
	slices.SortFunc(services, func(a, b ServiceKey) int {
		return cmp.Or(cmp.Compare(vipSlot(a), vipSlot(b)), a.Compare(b))
	})
	v := vips{map[ServiceKey]netip.Addr{}, map[netip.Addr]ServiceKey{}}
	for _, s := range slices.Compact(services) {
		first := vipSlot(s).slot()
		for i := range vipSlots {
			a := g.addr((first + i) % vipSlots)
			if _, used := v.at[a]; used || taken(a) {
				continue
			}
			v.addr[s], v.at[a] = a, s
			break
		}
	}
	return v
}

// vipsOf computes a group's addresses.
func (b *builder) vipsOf(c *derive.Context, g vipGroup) vips {
	var services []ServiceKey
	for _, rows := range b.services {
		for _, k := range rows.byGroup.Get(c, g) {
			for _, s := range b.vipHosts.Get(c, k) {
				if vipSlot(s).group() == g {
					services = append(services, s)
				}
			}
		}
	}
	return assign(g, services, func(a netip.Addr) bool {
		for _, rows := range b.services {
			if len(rows.byAddr.Get(c, a)) > 0 {
				return true
			}
		}
		return false
	})
}
