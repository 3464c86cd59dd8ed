// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strings"
	"testing"
)

func chain(name string, m ChainMatch) *FilterChain { return &FilterChain{Name: name, Match: m} }

func cidrList(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func listener(t testing.TB, chains ...*FilterChain) *Listener {
	t.Helper()
	tree, err := newChainTree(chains)
	if err != nil {
		t.Fatal(err)
	}
	return &Listener{Chains: chains, tree: tree}
}

// conn describes a connection: local remote transport sni alpn,alpn
func conn(s string) *ConnFacts {
	f := strings.Fields(s)
	c := &ConnFacts{Local: netip.MustParseAddrPort(f[0]), Remote: netip.MustParseAddrPort(f[1]), Transport: f[2]}
	c.DirectRemote = c.Remote
	if len(f) > 3 && f[3] != "-" {
		c.SNI = f[3]
	}
	if len(f) > 4 {
		c.Protocols = strings.Split(f[4], ",")
	}
	return c
}

func choose(l *Listener, c *ConnFacts) string {
	got := l.Choose(c)
	explained, _ := l.ExplainChoice(c)
	switch {
	case got != explained:
		return "Choose and ExplainChoice disagree"
	case got == nil:
		return "none"
	}
	return got.Name
}

func TestChoose(t *testing.T) {
	mtls := []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
	l := listener(t,
		chain("blackhole", ChainMatch{Port: 15006}),
		chain("mtls-http", ChainMatch{Port: 8080, Transport: "tls", Protocols: mtls}),
		chain("plain-http", ChainMatch{Port: 8080, Transport: "raw_buffer"}),
		chain("auto-mtls-http", ChainMatch{Port: 9090, Transport: "tls", Protocols: mtls[2:]}),
		chain("auto-http", ChainMatch{Port: 9090, Transport: "raw_buffer", Protocols: []string{"http/1.1", "h2c"}}),
		chain("auto-mtls-tcp", ChainMatch{Port: 9090, Transport: "tls", Protocols: mtls[:2]}),
		chain("auto-tcp", ChainMatch{Port: 9090, Transport: "raw_buffer"}),
		chain("auto-tls", ChainMatch{Port: 9090, Transport: "tls"}),
		chain("catchall", ChainMatch{Transport: "raw_buffer"}),
	)
	for c, want := range map[string]string{
		"10.0.0.1:15006 10.0.0.2:1 raw_buffer":                           "blackhole",
		"10.0.0.1:8080 10.0.0.2:1 tls sni istio-http/1.1,istio,http/1.1": "mtls-http",
		"10.0.0.1:8080 10.0.0.2:1 raw_buffer - http/1.1":                 "plain-http",
		"10.0.0.1:8080 10.0.0.2:1 tls example.com h2,http/1.1":           "none", // TLS that is not the mesh's: closed
		"10.0.0.1:9090 10.0.0.2:1 tls - istio-h2,istio,h2":               "auto-mtls-http",
		"10.0.0.1:9090 10.0.0.2:1 tls - istio-peer-exchange,istio":       "auto-mtls-tcp",
		"10.0.0.1:9090 10.0.0.2:1 tls - istio,istio-h2":                  "auto-mtls-tcp", // the client's order counts
		"10.0.0.1:9090 10.0.0.2:1 tls":                                   "auto-tls",
		"10.0.0.1:9090 10.0.0.2:1 raw_buffer - h2c":                      "auto-http",
		"10.0.0.1:9090 10.0.0.2:1 raw_buffer":                            "auto-tcp",
		"10.0.0.1:7777 10.0.0.2:1 raw_buffer":                            "catchall",
		"10.0.0.1:7777 10.0.0.2:1 tls":                                   "none",
	} {
		if got := choose(l, conn(c)); got != want {
			t.Errorf("%s: %s, want %s", c, got, want)
		}
	}
	l.Default = chain("default", ChainMatch{})
	if got := choose(l, conn("10.0.0.1:8080 10.0.0.2:1 tls example.com h2")); got != "default" {
		t.Errorf("%s", got)
	}
}

func TestChooseIsNeverTakenBack(t *testing.T) {
	l := listener(t,
		chain("port", ChainMatch{Port: 80, Destinations: cidrList("10.0.0.0/8")}),
		chain("net", ChainMatch{Destinations: cidrList("192.168.1.0/24"), ServerNames: []string{"a.example"}}),
		chain("wide", ChainMatch{Destinations: cidrList("192.168.0.0/16")}),
		chain("any", ChainMatch{}),
	)
	for c, want := range map[string]string{
		"10.1.1.1:80 1.1.1.1:1 raw_buffer":       "port",
		"11.1.1.1:80 1.1.1.1:1 raw_buffer":       "none", // the port decided
		"192.168.1.1:81 1.1.1.1:1 tls a.example": "net",
		"192.168.1.1:81 1.1.1.1:1 tls b.example": "none", // the longest prefix decided
		"192.168.2.1:81 1.1.1.1:1 tls b.example": "wide",
		"[::ffff:192.168.2.1]:81 1.1.1.1:1 tls":  "wide",
		"[fd00::1]:81 [fd00::2]:1 tls":           "any",
	} {
		if got := choose(l, conn(c)); got != want {
			t.Errorf("%s: %s, want %s", c, got, want)
		}
	}
}

func TestChooseByServerName(t *testing.T) {
	l := listener(t,
		chain("exact", ChainMatch{ServerNames: []string{"a.b.example"}}),
		chain("deep", ChainMatch{ServerNames: []string{"*.b.example"}}),
		chain("wide", ChainMatch{ServerNames: []string{"*.example"}}),
		chain("h2", ChainMatch{ServerNames: []string{"*.example"}, Protocols: []string{"h2"}}),
		chain("any", ChainMatch{}),
	)
	for sni, want := range map[string]string{
		"a.b.example": "exact", "x.b.example": "deep", "y.x.b.example": "deep", "b.example": "wide",
		"example": "any", "-": "any", "other": "any", "a.b.example.": "any", "x..example": "wide",
		"x.example h2,http/1.1": "h2", "x.example http/1.1": "wide",
	} {
		if got := choose(l, conn("10.0.0.1:443 10.0.0.2:1 tls "+sni)); got != want {
			t.Errorf("%s: %s, want %s", sni, got, want)
		}
	}
}

func TestChooseBySource(t *testing.T) {
	l := listener(t,
		chain("local", ChainMatch{SourceType: SourceLocal}),
		chain("net", ChainMatch{SourceType: SourceExternal, Sources: cidrList("10.0.0.0/8")}),
		chain("port", ChainMatch{SourceType: SourceExternal, Sources: cidrList("10.0.0.0/8"), SourcePorts: []uint16{7}}),
		chain("direct", ChainMatch{DirectSource: cidrList("172.16.0.0/12")}),
	)
	for c, want := range map[string]string{
		"10.0.0.1:80 10.0.0.1:9 raw_buffer":   "local",
		"10.0.0.1:80 127.0.0.9:9 raw_buffer":  "local",
		"10.0.0.1:80 10.0.0.2:9 raw_buffer":   "net",
		"10.0.0.1:80 10.0.0.2:7 raw_buffer":   "port",
		"10.0.0.1:80 11.0.0.2:7 raw_buffer":   "none",
		"10.0.0.1:80 172.16.0.2:7 raw_buffer": "direct",
	} {
		if got := choose(l, conn(c)); got != want {
			t.Errorf("%s: %s, want %s", c, got, want)
		}
	}
}

func TestEqualMatchesAreRefused(t *testing.T) {
	for name, pair := range map[string][2]ChainMatch{
		"both empty":   {{}, {}},
		"overlap":      {{ServerNames: []string{"a", "b"}}, {ServerNames: []string{"b", "c"}}},
		"same network": {{Destinations: cidrList("0.0.0.0/0")}, {}},
		"same ports":   {{SourcePorts: []uint16{1, 2}}, {SourcePorts: []uint16{2}}},
	} {
		_, err := newChainTree([]*FilterChain{chain("one", pair[0]), chain("two", pair[1])})
		if err == nil || !strings.Contains(err.Error(), `filter_chains[1] "two": filter_chain_match: equal to that of chain "one"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"*a.com", "a.*", "*.*.com", "*."} {
		if _, err := newChainTree([]*FilterChain{chain("c", ChainMatch{ServerNames: []string{bad}})}); err == nil {
			t.Errorf("server name %q was accepted", bad)
		}
	}
	var many ChainMatch
	for i := range 300 {
		many.SourcePorts = append(many.SourcePorts, uint16(i+1))
		many.Sources = append(many.Sources, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	if _, err := newChainTree([]*FilterChain{chain("c", many)}); err == nil {
		t.Error("90,000 combinations were accepted")
	}
}

func TestExplainChoice(t *testing.T) {
	l := listener(t, chain("c", ChainMatch{Port: 8080, Transport: "tls", Protocols: []string{"istio"}}))
	_, steps := l.ExplainChoice(conn("10.0.0.1:8080 10.0.0.2:1 tls example.com h2"))
	const want = `destination port 8080: chains for 8080
destination address 10.0.0.1: chains for 0.0.0.0/0
server name "example.com": chains for any
transport protocol tls: chains for tls
application protocols ["h2"]: no chain
no chain matches and there is no default: the connection is closed (NR)`
	if got := strings.Join(steps, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	_, steps = l.ExplainChoice(conn("10.0.0.1:8080 10.0.0.2:1 tls - h2,istio"))
	if got := strings.Join(steps[4:], "\n"); got != "application protocols [\"h2\" \"istio\"]: chains for istio\n"+
		"direct source 10.0.0.2: chains for 0.0.0.0/0\nsource 10.0.0.2:1: chains for 0.0.0.0/0\nchain \"c\"" {
		t.Errorf("got\n%s", got)
	}
}

func TestChooseDoesNotAllocate(t *testing.T) {
	l := listener(t, chain("c", ChainMatch{Port: 8080, ServerNames: []string{"*.example"}, Transport: "tls", Protocols: []string{"istio"}}))
	c := conn("10.0.0.1:8080 10.0.0.2:1 tls a.b.example h2,istio")
	if n := testing.AllocsPerRun(100, func() {
		if l.Choose(c) == nil {
			t.Fatal("no chain")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestPredicate(t *testing.T) {
	port := func(lo, hi uint32) Predicate {
		p := Predicate{Op: PredicatePort}
		p.Ports.Lo, p.Ports.Hi = lo, hi
		return p
	}
	or := Predicate{Op: PredicateOr, Of: []Predicate{port(80, 81), port(90, 95)}}
	for p, want := range map[string]bool{"1.1.1.1:80": true, "1.1.1.1:94": true, "1.1.1.1:95": false} {
		at := netip.MustParseAddrPort(p)
		not := Predicate{Op: PredicateNot, Of: []Predicate{or}}
		and := Predicate{Op: PredicateAnd, Of: []Predicate{or, {Op: PredicateAny}}}
		if or.Match(at) != want || not.Match(at) == want || and.Match(at) != want {
			t.Errorf("%s", p)
		}
	}
}
