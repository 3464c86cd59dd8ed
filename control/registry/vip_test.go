// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/meltemi/meltemi/mesh"
)

func free(netip.Addr) bool { return false }

func inGroup(g vipGroup, n int) []ServiceKey {
	var all []ServiceKey
	for i := 0; len(all) < n; i++ {
		if s := (ServiceKey{"ns", mesh.Hostname(fmt.Sprintf("h%d.example.com", i))}); vipSlot(s).group() == g {
			all = append(all, s)
		}
	}
	return all
}

func TestAddressesAreDistinctAndDoNotDependOnOrder(t *testing.T) {
	services := inGroup(7, 200)
	first := assign(7, slices.Clone(services), free)
	slices.Reverse(services)
	second := assign(7, append(services, services[0]), free) // one twice
	seen := map[netip.Addr]ServiceKey{}
	for _, s := range services {
		a := first.addr[s]
		if a != second.addr[s] {
			t.Errorf("%v has %v, or in another order %v", s, a, second.addr[s])
		}
		if other, dup := seen[a]; dup {
			t.Errorf("%v and %v both have %v", s, other, a)
		}
		seen[a] = s
		if g, ok := vipGroupOf(a); !ok || g != 7 || first.at[a] != s {
			t.Errorf("%v has %v, which is not of its group or not found again", s, a)
		}
	}
}

func TestAddressesThatSomebodyClaimedAreLeftAlone(t *testing.T) {
	s := inGroup(7, 1)
	own := assign(7, s, free).addr[s[0]]
	other := assign(7, s, func(a netip.Addr) bool { return a == own }).addr[s[0]]
	if other == own || !other.IsValid() {
		t.Errorf("got %v although %v is taken", other, own)
	}
}

func TestNewServiceMovesFew(t *testing.T) {
	services := inGroup(7, 40)
	before := assign(7, slices.Clone(services[1:]), free)
	after := assign(7, slices.Clone(services), free)
	moved := 0
	for _, s := range services[1:] {
		if before.addr[s] != after.addr[s] {
			moved++
		}
	}
	if moved > 3 {
		t.Errorf("one new service moved %d of 39", moved)
	}
}

func TestFullGroupLeavesTheRestWithout(t *testing.T) {
	v := assign(7, inGroup(7, vipSlots+5), free)
	if len(v.addr) != vipSlots || len(v.at) != vipSlots {
		t.Errorf("%d services have %d addresses, want %d", len(v.addr), len(v.at), vipSlots)
	}
}

func TestExportTo(t *testing.T) {
	for _, c := range []struct {
		exportTo []string
		own, foe bool
	}{
		{nil, true, true},
		{[]string{"*"}, true, true},
		{[]string{"."}, true, false},
		{[]string{"~"}, false, false},
		{[]string{"foe"}, false, true},
		{[]string{".", "foe"}, true, true},
		{[]string{".", "*"}, true, true},
	} {
		v := ParseExportTo(c.exportTo, "own")
		if v.To("own") != c.own || v.To("foe") != c.foe {
			t.Errorf("exportTo %v: own %v, foe %v; want %v, %v", c.exportTo, v.To("own"), v.To("foe"), c.own, c.foe)
		}
	}
}

func TestCovering(t *testing.T) {
	for h, want := range map[mesh.Hostname][]mesh.Hostname{
		"a.b.c":   {"a.b.c", "*.b.c", "*.c", "*"},
		"*.b.c":   {"*.b.c", "*.c", "*"},
		"*":       {"*"},
		"a":       {"a", "*"},
		"1.2.3.4": {"1.2.3.4", "*.2.3.4", "*.3.4", "*.4", "*"},
	} {
		if got := Covering(h); !slices.Equal(got, want) {
			t.Errorf("Covering(%s) = %v, want %v", h, got, want)
		}
	}
}
