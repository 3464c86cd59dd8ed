// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseIdentity(t *testing.T) {
	good := "spiffe://cluster.local/ns/shop/sa/cart"
	id, err := ParseIdentity(good)
	if err != nil || id != (Identity{"cluster.local", "shop", "cart"}) || id.String() != good {
		t.Fatalf("ParseIdentity(%q) = %+v, %v", good, id, err)
	}
	bad := map[string]string{
		"":                                     "does not begin",
		"http://a/ns/b/sa/c":                   "does not begin",
		"spiffe:///ns/b/sa/c":                  "no trust domain",
		"spiffe://A/ns/b/sa/c":                 "'A' in its trust domain",
		"spiffe://a:80/ns/b/sa/c":              "trust domain",
		"spiffe://a":                           "has no path",
		"spiffe://a/":                          "want /ns/",
		"spiffe://a/ns/b":                      "ends after the namespace",
		"spiffe://a/ns/b/sb/c":                 "after the namespace",
		"spiffe://a/ns//sa/c":                  "empty namespace",
		"spiffe://a/ns/b/sa/":                  "empty service account",
		"spiffe://a/ns/b/sa/c/d":               "more segments",
		"spiffe://a/ns/b/sa/c?x=1":             "'?' in its service account",
		"spiffe://a/ns/../sa/c":                "forbids",
		"spiffe://a/ns/b%2f/sa/c":              "'%' in its namespace",
		"spiffe://" + strings.Repeat("a", 300): "trust domain of 300 bytes",
		strings.Repeat("a", 3000):              "3000 bytes long",
	}
	for in, want := range bad {
		if id, err := ParseIdentity(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseIdentity(%.50q) = %v, %v; want an error with %q", in, id, err, want)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/cart")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseIdentity(s); err == nil && id.String() != s {
			t.Errorf("%q reads back as %q", s, id)
		}
	})
}

func TestHosts(t *testing.T) {
	for in, want := range map[string]Hostname{
		"reviews": "reviews.default.svc.cluster.local", "Reviews.": "reviews.default.svc.cluster.local",
		"a.b": "a.b", "*": "*", "*.x": "*.x", "2001:db8::1": "2001:db8::1", "": "", "10.0.0.1": "10.0.0.1",
	} {
		if got := ExpandHost(in, "default", ""); got != want {
			t.Errorf("ExpandHost(%q) = %q, want %q", in, got, want)
		}
	}
	if s, ns, ok := SplitServiceHost("a.b.svc.cluster.local", ""); s != "a" || ns != "b" || !ok {
		t.Error("SplitServiceHost:", s, ns, ok)
	}
	for _, h := range []Hostname{"a.b.c.svc.cluster.local", "svc.cluster.local", ".b.svc.cluster.local", "a.b"} {
		if _, _, ok := SplitServiceHost(h, ""); ok {
			t.Errorf("SplitServiceHost(%q) is ok", h)
		}
	}
	subset := []struct {
		a, b Hostname
		want bool
	}{
		{"a.x", "*.x", true}, {"a.b.x", "*.x", true}, {"x", "*.x", false}, {"*.x", "*.x", true}, {"*.y.x", "*.x", true},
		{"*.x", "*.y.x", false}, {"*.x", "a.x", false}, {"a", "*", true}, {"*", "*", true}, {"*.x", "*", true}, {"*", "*.x", false}, {"", "*", false},
	}
	for _, c := range subset {
		if got := c.a.SubsetOf(c.b); got != c.want {
			t.Errorf("%q.SubsetOf(%q) = %v", c.a, c.b, got)
		}
	}
	if !Hostname("*.x").Overlaps("a.x") || Hostname("b").Overlaps("a") {
		t.Error("Overlaps")
	}
}

func TestPortProtocol(t *testing.T) {
	for _, c := range []struct {
		port      int
		name, app string
		udp       bool
		want      Protocol
	}{
		{80, "http", "", false, HTTP}, {80, "HTTP-web", "", false, HTTP}, {80, "http2-x", "", false, HTTP2},
		{80, "grpc", "", false, GRPC}, {80, "grpc-web", "", false, GRPCWeb}, {80, "grpc-web-x", "", false, GRPCWeb},
		{80, "grpc-weber", "", false, GRPCWeb}, {80, "httpx", "", false, Unset}, {80, "web-http", "", false, Unset},
		{80, "tcp-x", "http", false, HTTP}, {80, "", "kubernetes.io/h2c", false, HTTP2}, {80, "", "kubernetes.io/ws", false, HTTP},
		{443, "", "kubernetes.io/wss", false, HTTPS}, {443, "http", "kubernetes.io/other", false, Unset},
		{53, "http", "", true, UDP}, {3306, "", "", false, TCP}, {3306, "mysql", "", false, MySQL}, {3306, "db", "", false, TCP},
		{8080, "", "", false, Unset}, {80, "http_proxy", "", false, HTTPProxy}, {443, "tls-a", "", false, TLS}, {80, "mongo", "", false, Mongo},
	} {
		if got := PortProtocol(c.port, c.name, c.app, c.udp); got != c.want {
			t.Errorf("PortProtocol(%d, %q, %q) = %v, want %v", c.port, c.name, c.app, got, c.want)
		}
	}
	if _, ok := ParseProtocol(""); ok || Unset.String() != "Unset" || Protocol(99).String() != "Protocol(99)" {
		t.Error("the unset protocol has no name")
	}
}

func TestClusterNames(t *testing.T) {
	c := ClusterName{Outbound, 80, "v1", "reviews.default.svc.cluster.local"}
	if c.String() != "outbound|80|v1|reviews.default.svc.cluster.local" || c.SNI() != "outbound_.80_.v1_.reviews.default.svc.cluster.local" {
		t.Error(c.String(), c.SNI())
	}
	for _, s := range []string{c.String(), "inbound|8080||", "inbound-vip|80|http/v1|a.b"} {
		if got, err := ParseClusterName(s); err != nil || got.String() != s {
			t.Errorf("ParseClusterName(%q) = %v, %v", s, got, err)
		}
	}
	if got, err := ParseSNI(c.SNI()); err != nil || got != c {
		t.Error(got, err)
	}
	for _, s := range []string{"", "a|b", "outbound|x||h", "outbound|70000||h", "sideways|80||h", "outbound|80||h|i", "outbound|-1||h"} {
		if got, err := ParseClusterName(s); err == nil {
			t.Errorf("ParseClusterName(%q) = %v, want an error", s, got)
		}
	}
}

func TestNodeID(t *testing.T) {
	n := NodeID{Type: Sidecar, Addr: netip.MustParseAddr("10.0.0.1"), Name: "web-1", Namespace: "shop"}
	if n.String() != "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local" {
		t.Error(n)
	}
	got, err := ParseNodeID("ztunnel~~pod.with.dots.ns~ns.svc.example.org")
	if err != nil || got != (NodeID{Type: Ztunnel, Name: "pod.with.dots", Namespace: "ns", Domain: "ns.svc.example.org"}) {
		t.Error(got, err)
	}
	if got, err := ParseNodeID("router~::1~vm~ns.svc.x"); err != nil || got.Namespace != "ns" || got.Name != "vm" {
		t.Error(got, err)
	}
	for _, s := range []string{"", "sidecar", "envoy~1.2.3.4~a.b~c", "sidecar~x~a.b~c", "sidecar~1.2.3.4~a.b~c~d", "sidecar~1.2.3.4~~c.d"} {
		if got, err := ParseNodeID(s); err == nil {
			t.Errorf("ParseNodeID(%q) = %v, want an error", s, got)
		}
	}
}

func TestLabelsAndLocality(t *testing.T) {
	l := Labels{"app": "web", "version": "v2"}
	if !(Labels{"app": "web"}).Match(l) || !(Labels)(nil).Match(l) || (Labels{"app": "web", "x": ""}).Match(l) || (Labels{"a": "", "b": "", "c": ""}).Match(l) {
		t.Error("Match")
	}
	if CanonicalService(l, "w") != "web" || CanonicalService(nil, "w") != "w" || CanonicalRevision(l) != "v2" || CanonicalRevision(nil) != "latest" {
		t.Error("canonical names")
	}
	if CanonicalService(Labels{LabelApp: "a", LabelKubeName: "b", LabelCanonicalName: "c"}, "w") != "c" {
		t.Error("the canonical name label comes first")
	}
	for in, want := range map[string]Locality{
		"r/z/s": {"r", "z", "s"}, "r.z.s": {"r", "z", "s"}, "r": {Region: "r"}, "r.1/z": {Region: "r.1", Zone: "z"}, "": {},
	} {
		if got := ParseLocality(in); got != want {
			t.Errorf("ParseLocality(%q) = %+v", in, got)
		}
	}
	if s := (Locality{Region: "r", SubZone: "s"}).String(); s != "r//s" {
		t.Error(s)
	}
	if !(Locality{}).IsZero() || (Locality{}).String() != "" {
		t.Error("the empty locality")
	}
}
