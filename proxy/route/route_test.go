// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

func to(cluster string) *Forward { return &Forward{Clusters: []Weighted{{Cluster: cluster}}} }

func prefix(p, cluster string) Route {
	return Route{Name: cluster, Match: Match{Path: PathMatch{Kind: PathPrefix, Value: p}}, Forward: to(cluster)}
}

func host(name string, domains ...string) *VirtualHost {
	return &VirtualHost{Name: name, Domains: domains, Routes: []Route{prefix("/", name)}}
}

func compile(t testing.TB, cfg *Config) *Table {
	t.Helper()
	table, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func get(authority, path string) *message.Request {
	return &message.Request{Version: message.HTTP11, Method: "GET", Scheme: "http", Authority: authority, Path: path}
}

// where names what a decision says: the cluster, or the kind.
func where(t *Table, d Decision) string {
	if d.Cluster >= 0 {
		return t.Clusters()[d.Cluster]
	}
	return d.Kind.String()
}

func TestHosts(t *testing.T) {
	hosts := []*VirtualHost{
		host("exact", "Shop.Example"), host("port", "shop.example:8080"), host("six", "[fd00::1]"),
		host("suffix", "*.example"), host("longer", "*.api.example"), host("dash", "*-eu.api.example"),
		host("prefix", "www.*"), host("longprefix", "www.x.*"), host("any", "*"),
	}
	withPort := compile(t, &Config{VirtualHosts: hosts})
	ignoring := compile(t, &Config{VirtualHosts: hosts, IgnorePort: true})
	for _, tc := range []struct{ host, port, ignore string }{
		{"shop.example", "exact", "exact"},
		{"SHOP.example", "exact", "exact"},
		{"shop.example:8080", "port", "exact"},
		{"shop.example:9090", "any", "exact"},
		{"shop.example:", "any", "exact"},
		{"a.example", "suffix", "suffix"},
		{".example", "any", "any"},
		{"example", "any", "any"},
		{"a.api.example", "longer", "longer"},
		{"a-eu.api.example", "dash", "dash"},
		{"-eu.api.example", "longer", "longer"},
		{"www.nowhere", "prefix", "prefix"},
		{"www.", "any", "any"},
		{"www.x.y", "longprefix", "longprefix"},
		{"www.example", "suffix", "suffix"}, // suffixes come before prefixes
		{"[fd00::1]", "six", "six"},
		{"[fd00::1]:80", "any", "six"},
		{"", "any", "any"},
		{strings.Repeat("a", 300) + ".EXAMPLE", "suffix", "suffix"},
		{strings.Repeat("A", 247) + ".example", "suffix", "suffix"},
	} {
		for _, c := range []struct {
			table *Table
			want  string
		}{{withPort, tc.port}, {ignoring, tc.ignore}} {
			if got := where(c.table, c.table.Match(get(tc.host, "/"), &Facts{})); got != c.want {
				t.Errorf("%.40q, ignoring port %v: %s, want %s", tc.host, c.table.cfg.IgnorePort, got, c.want)
			}
		}
	}
	none := compile(t, &Config{VirtualHosts: hosts[:1]})
	if d := none.Match(get("other", "/"), &Facts{}); d.Kind != NoVirtualHost || d.Slot != -1 {
		t.Errorf("%+v", d)
	}
}

func TestNoOtherHostIsTried(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []*VirtualHost{
		{Name: "a", Domains: []string{"a"}, Routes: []Route{prefix("/x", "x")}}, host("any", "*"),
	}})
	if d := table.Match(get("a", "/y"), &Facts{}); d.Kind != NoRoute || d.Host.Name != "a" {
		t.Errorf("%v", where(table, d))
	}
}

func TestPaths(t *testing.T) {
	path := func(kind PathKind, value string, fold bool) Match {
		return Match{Path: PathMatch{Kind: kind, Value: value, IgnoreCase: fold}}
	}
	for _, tc := range []struct {
		m       Match
		yes, no string
	}{
		{path(PathPrefix, "/a", false), "/a /ab /a/b /a?x /a#x", "/ /A /b/a /?/a"},
		{path(PathPrefix, "/A", true), "/a /AB", "/b"},
		{path(PathExact, "/a", false), "/a /a?x=y /a#f /a?", "/a/ /ab /A /"},
		{path(PathExact, "/a", true), "/A", "/Ab"},
		{path(PathSegments, "/a", false), "/a /a/ /a/b /a?x /a/b?c", "/ab /a;x /A /"},
		{path(PathSegments, "/a", true), "/A/b", "/AB"},
		{path(PathRegex, "/a.*b", false), "/ab /axxb /a/b?c", "/abc /xab"},
		{path(PathRegex, "/a|/b", false), "/a /b", "/ab"},
		{path(PathTemplate, "/a/*/c", false), "/a/b/c /a/b/c?x", "/a/c /a/b/c/d"},
	} {
		table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: tc.m, Forward: to("c")}}}}})
		for _, p := range strings.Fields(tc.yes) {
			if d := table.Match(get("h", p), &Facts{}); d.Kind != ToCluster {
				t.Errorf("%s does not match %s", tc.m.Path.String(), p)
			}
		}
		for _, p := range strings.Fields(tc.no) {
			if d := table.Match(get("h", p), &Facts{}); d.Kind != NoRoute {
				t.Errorf("%s matches %s", tc.m.Path.String(), p)
			}
		}
	}
}

func TestConnect(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{
		{Match: Match{Path: PathMatch{Kind: PathConnect}}, Forward: to("tunnel")}, prefix("/", "plain"),
	}}}})
	for want, r := range map[string]*message.Request{
		"tunnel": {Method: "CONNECT", Authority: "x:80"},
		"plain":  {Method: "CONNECT", Protocol: "websocket", Path: "/chat"}, // an upgrade over HTTP/2
	} {
		if got := where(table, table.Match(r, &Facts{})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	plain := compile(t, &Config{VirtualHosts: []*VirtualHost{host("h", "*")}})
	if d := plain.Match(&message.Request{Method: "CONNECT", Authority: "x:80"}, &Facts{}); d.Kind != NoRoute {
		t.Error("CONNECT must only be taken by routes that say so")
	}
}

func TestConditions(t *testing.T) {
	yes, no := true, false
	base := func(m Match) Match { m.Path = PathMatch{Value: "/"}; return m }
	r := get("h", "/p?v=1&flag")
	r.Header.Add("x-user", "ann")
	f := &Facts{Random: 4, Presented: true}
	for i, tc := range []struct {
		m    Match
		want bool
	}{
		{Match{Headers: []match.Header{{Name: "x-user", Test: match.HeaderString, Value: match.Exact("ann")}}}, true},
		{Match{Headers: []match.Header{{Name: "x-user", Test: match.HeaderPresent}, {Name: "x-none", Test: match.HeaderPresent}}}, false},
		{Match{Headers: []match.Header{{Name: "x-none", Test: match.HeaderString, Value: match.Exact("a"), Invert: true}}}, false},
		{Match{Headers: []match.Header{{Name: ":method", Test: match.HeaderString, Value: match.Exact("GET")}}}, true},
		{Match{Query: []match.Query{{Name: "v", Value: match.Exact("1")}, {Name: "flag", Present: true}}}, true},
		{Match{Query: []match.Query{{Name: "v", Value: match.Exact("2")}}}, false},
		{Match{Metadata: []match.MetadataValue{{Filter: "jwt", Value: match.Value{Test: match.ValuePresent}}}}, false},
		{Match{GRPC: true}, false},
		{Match{Presented: &yes}, true},
		{Match{Presented: &yes, Validated: &yes}, false},
		{Match{Validated: &no}, true},
		{Match{Fraction: &Fraction{5, 100}}, true},
		{Match{Fraction: &Fraction{4, 100}}, false},
	} {
		table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: base(tc.m), Forward: to("c")}}}}})
		if got := table.Match(r, f).Kind == ToCluster; got != tc.want {
			t.Errorf("case %d: %v", i, got)
		}
	}
}

func TestWeights(t *testing.T) {
	f := &Forward{Random: "x-random", Clusters: []Weighted{{Cluster: "a", Weight: 1}, {Cluster: "never", Weight: 0}, {Cluster: "b", Weight: 3}}}
	table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/"}}, Forward: f}}}}})
	got := map[string]int{}
	for i := range uint64(400) {
		d := table.Match(get("h", "/"), &Facts{Random: i})
		got[where(table, d)]++
		if d.Slot != d.Choice {
			t.Fatalf("slot %d of choice %d", d.Slot, d.Choice)
		}
	}
	if got["a"] != 100 || got["b"] != 300 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	r := get("h", "/")
	r.Header.Add("X-Random", "8")
	if d := table.Match(r, &Facts{Random: 1}); where(table, d) != "a" {
		t.Error("the header's number must be used")
	}
}

func TestCompileRefuses(t *testing.T) {
	one := func(r Route) *Config {
		return &Config{VirtualHosts: []*VirtualHost{{Name: "vh", Domains: []string{"*"}, Routes: []Route{r}}}}
	}
	at := func(m Match, f *Forward) *Config { return one(Route{Name: "rt", Match: m, Forward: f}) }
	any := Match{Path: PathMatch{Value: "/"}}
	rewrite := func(rw Rewrite) *Config { f := to("c"); f.Rewrite = rw; return at(any, f) }
	headers := func(ops HeaderOps) *Config { r := prefix("/", "c"); r.RequestHeaders = ops; return one(r) }
	for want, cfg := range map[string]*Config{
		`virtual host "b": domain "A.com" is there already in virtual host "a"`: {VirtualHosts: []*VirtualHost{host("a", "a.com"), host("b", "A.com")}},
		`virtual host "b": domain "*" is there already in virtual host "a"`:     {VirtualHosts: []*VirtualHost{host("a", "*"), host("b", "*")}},
		`domain "*.a" is there already`:                                         {VirtualHosts: []*VirtualHost{host("a", "*.a", "*.a")}},
		`virtual host "a": it has no domains`:                                   {VirtualHosts: []*VirtualHost{host("a")}},
		`an empty domain`:                                                       {VirtualHosts: []*VirtualHost{host("a", "")}},
		`a character that no host has`:                                          {VirtualHosts: []*VirtualHost{host("a", "a\nb")}},
		`virtual host "vh": route 0 ("rt"): regular expression "("`:             at(Match{Path: PathMatch{Kind: PathRegex, Value: "("}}, to("c")),
		`path_separated_prefix`:                                                 at(Match{Path: PathMatch{Kind: PathSegments, Value: "/a/"}}, to("c")),
		`path template`:                                                         at(Match{Path: PathMatch{Kind: PathTemplate, Value: "a"}}, to("c")),
		`0 actions`:                                                             at(any, nil),
		`forwards to no cluster`:                                                at(any, &Forward{}),
		`the cluster has no name`:                                               at(any, to("")),
		`sum to 0`:                                                              at(any, &Forward{Clusters: []Weighted{{Cluster: "a"}, {Cluster: "b"}}}),
		`sum to 4294967296`:                                                     at(any, &Forward{Clusters: []Weighted{{Cluster: "a", Weight: 1<<32 - 1}, {Cluster: "b", Weight: 1}}}),
		`fraction of nothing`:                                                   at(Match{Path: any.Path, Fraction: &Fraction{1, 0}}, to("c")),
		`more than one of prefix_rewrite`:                                       rewrite(Rewrite{Prefix: "/", Path: "/"}),
		`more than one way`:                                                     rewrite(Rewrite{HostLiteral: "a", HostAuto: true}),
		`names group 2`:                                                         rewrite(Rewrite{Regex: &RegexRewrite{"(a)", `\2`}}),
		`ends with a backslash`:                                                 rewrite(Rewrite{Regex: &RegexRewrite{"a", `\`}}),
		`after a backslash`:                                                     rewrite(Rewrite{Regex: &RegexRewrite{"a", `\x`}}),
		`redirect: status 200`:                                                  one(Route{Match: any, Redirect: &Redirect{Status: 200}}),
		`redirect: port`:                                                        one(Route{Match: any, Redirect: &Redirect{Status: 301, Port: 70000}}),
		`redirect: more than one`:                                               one(Route{Match: any, Redirect: &Redirect{Status: 301, Path: "/", HasPrefix: true}}),
		`direct response with status 99`:                                        one(Route{Match: any, Direct: &Direct{Status: 99}}),
		`header ":path" cannot be changed`:                                      headers(HeaderOps{Add: []HeaderOp{{Name: ":path", Value: "x"}}}),
		`header "Host" cannot be changed`:                                       headers(HeaderOps{Remove: []string{"Host"}}),
		`has a line break`:                                                      headers(HeaderOps{Add: []HeaderOp{{Name: "a", Value: "b\r\nc: d"}}}),
		`that no header name has`:                                               headers(HeaderOps{Add: []HeaderOp{{Name: "a b", Value: "c"}}}),
		`names nothing to hash`:                                                 at(any, &Forward{Clusters: []Weighted{{Cluster: "c"}}, Hash: []HashPolicy{{Kind: HashCookie}}}),
	} {
		if _, err := Compile(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestWalkVisitsEverySlot(t *testing.T) {
	f := &Forward{Clusters: []Weighted{{Cluster: "a", Weight: 1}, {Cluster: "b", Weight: 1}}}
	table := compile(t, &Config{VirtualHosts: []*VirtualHost{
		host("x", "x"), {Name: "y", Domains: []string{"y"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/a"}}, Forward: f}, prefix("/", "c")}},
	}})
	var got []string
	table.Walk(func(slot, h int, r *Route, choice int) {
		got = append(got, fmt.Sprint(slot, table.Config().VirtualHosts[h].Name, r.Forward.Clusters[choice].Cluster))
	})
	if want := "[0xx 1ya 2yb 3yc]"; fmt.Sprint(got) != want || table.Slots() != 4 {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestExplain(t *testing.T) {
	canary := Route{Name: "canary", Source: "VirtualService shop/cart (cart.yaml:7)", Match: Match{Path: PathMatch{Value: "/"},
		Headers: []match.Header{{Name: "x-canary", Test: match.HeaderPresent}}}, Forward: to("v3")}
	split := Route{Name: "split", Match: Match{Path: PathMatch{Value: "/"}},
		Forward: &Forward{Clusters: []Weighted{{Cluster: "v1", Weight: 90}, {Cluster: "v2", Weight: 10}}}}
	table := compile(t, &Config{Name: "80", IgnorePort: true, VirtualHosts: []*VirtualHost{
		{Name: "cart:80", Domains: []string{"cart.shop", "cart"}, Routes: []Route{prefix("/api", "api"), canary, split, prefix("/", "last")}},
		host("wild", "*.shop"), host("allow_any", "*"),
	}})
	e := table.Explain(get("Cart.shop:80", "/x"), &Facts{Random: 95})
	const want = `table 80: forward
  virtual host cart:80 (domain cart.shop): chosen
  virtual host wild (domain *.shop): passed over, less specific
  virtual host allow_any (domain *): passed over, less specific
    route "api": not matched: path prefix "/api"
    route "canary": not matched: header x-canary: present [VirtualService shop/cart (cart.yaml:7)]
    route "split": taken
      cluster v1: 90 of 100
      cluster v2: 10 of 100 (chosen)
`
	if got := e.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	none := compile(t, &Config{Name: "t", VirtualHosts: []*VirtualHost{host("a", "a")}})
	e = none.Explain(get("b", "/"), &Facts{})
	if got := e.String(); got != "table t: no virtual host\n  no virtual host has a domain for \"b\"\n" {
		t.Errorf("%s", got)
	}
}
