// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func ips(ss ...string) (as []netip.Addr) {
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func shop() *Table {
	return NewTable([]Entry{
		{Host: "reviews.default.svc.cluster.local", Addrs: ips("10.96.0.1", "fd00::1"), Kubernetes: true},
		{Host: "ratings.other.svc.cluster.local", Addrs: ips("10.96.0.2"), Kubernetes: true},
		{Host: "db-0.db.default.svc.cluster.local", Addrs: ips("10.1.0.7"), Kubernetes: true},
		{Host: "API.Example.com.", Addrs: ips("240.240.0.1", "240.240.0.2", "240.240.0.3")},
		{Host: "*.wild.example.com", Addrs: ips("240.240.0.9")},
		{Host: "*.deep.wild.example.com", Addrs: ips("240.240.0.10")},
		{Host: "empty.example.com"},
		{Host: "reviews.default.svc.cluster.local", Addrs: ips("9.9.9.9")}, // the first counts
	})
}

func TestLookup(t *testing.T) {
	s := Scope{Namespace: "default", Search: "corp.internal"}
	for _, c := range []struct {
		name  string
		want  []netip.Addr
		alias string
		ok    bool
	}{
		{"reviews.default.svc.cluster.local", ips("10.96.0.1", "fd00::1"), "", true},
		{"Reviews.Default.SVC.cluster.local.", ips("10.96.0.1", "fd00::1"), "", true},
		{"reviews.default.svc", ips("10.96.0.1", "fd00::1"), "", true},
		{"reviews.default", ips("10.96.0.1", "fd00::1"), "", true},
		{"reviews", ips("10.96.0.1", "fd00::1"), "", true},
		{"reviews.", ips("10.96.0.1", "fd00::1"), "", true},
		{"ratings", nil, "", false}, // another namespace
		{"ratings.other", ips("10.96.0.2"), "", true},
		{"db-0.db.default", ips("10.1.0.7"), "", true},
		{"api.example.com", ips("240.240.0.1", "240.240.0.2", "240.240.0.3"), "", true},
		{"api.example", nil, "", false},
		{"a.wild.example.com", ips("240.240.0.9"), "", true},
		{"a.b.wild.example.com", ips("240.240.0.9"), "", true},
		{"x.deep.wild.example.com", ips("240.240.0.10"), "", true},
		{"wild.example.com", nil, "", false},
		{"empty.example.com", nil, "", true},
		{"reviews.corp.internal", ips("10.96.0.1", "fd00::1"), "reviews", true},
		{"api.example.com.corp.internal", ips("240.240.0.1", "240.240.0.2", "240.240.0.3"), "api.example.com", true},
		{"a.wild.example.com.corp.internal", ips("240.240.0.9"), "a.wild.example.com", true},
		{"nobody.corp.internal", nil, "", false},
		{"", nil, "", false},
		{".", nil, "", false},
		{"com", nil, "", false},
	} {
		addrs, alias, ok := shop().Lookup(s, c.name)
		if !slices.Equal(addrs, c.want) || alias != c.alias || ok != c.ok {
			t.Errorf("%q = %v, %q, %v; want %v, %q, %v", c.name, addrs, alias, ok, c.want, c.alias, c.ok)
		}
	}
	if n := shop().Len(); n != 7 {
		t.Errorf("%d names", n)
	}
}

func TestShortNamesAreOnlyForClusterServices(t *testing.T) {
	// An external host that merely looks like a service's name is not found by a shorter one.
	tab := NewTable([]Entry{{Host: "x.default.svc.cluster.local", Addrs: ips("1.1.1.1")}})
	if _, _, ok := tab.Lookup(Scope{Namespace: "default"}, "x"); ok {
		t.Error("found by short name")
	}
}

func TestCandidates(t *testing.T) {
	s := Scope{Namespace: "shop", Domain: "mesh.test"}
	for name, want := range map[string][]string{
		"Cart.":              {"cart", "cart.shop.svc.mesh.test"},
		"cart.other":         {"cart.other", "cart.other.svc.mesh.test"},
		"cart.other.svc":     {"cart.other.svc", "cart.other.svc.mesh.test"},
		"a.b.svc.mesh.test.": {"a.b.svc.mesh.test"},
	} {
		if got := s.Candidates(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := (Scope{}).Candidates("cart"); !slices.Equal(got, []string{"cart"}) {
		t.Errorf("without a namespace: %v", got)
	}
}

func TestParseResolvConf(t *testing.T) {
	got := ParseResolvConf("# by hand\nnameserver 10.0.0.2 # first\nnameserver bad\nnameserver fe80::1%eth0\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nsearch a.example. b.example\noptions ndots:5\nsearch\n")
	want := ResolvConf{
		Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53"), netip.MustParseAddrPort("1.1.1.1:53")},
		Search:  []string{"a.example", "b.example"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := ParseResolvConf("domain corp.internal"); !slices.Equal(got.Search, []string{"corp.internal"}) {
		t.Errorf("domain: %+v", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	t, s := shop(), Scope{Namespace: "default", Search: "corp.internal"}
	b.ReportAllocs()
	for b.Loop() {
		if r, _ := t.find(s, "a.wild.example.com.corp.internal"); r == nil {
			b.Fatal("not found")
		}
	}
}
