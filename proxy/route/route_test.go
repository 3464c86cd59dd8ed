// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

func to(cluster string) *Forward { return &Forward{Clusters: []Weighted{{Cluster: cluster}}} }

func prefix(p, cluster string) Route {
	return Route{Name: cluster, Match: Match{Path: PathMatch{Kind: PathPrefix, Value: p}}, Forward: to(cluster)}
}

func host(name string, domains ...string) VirtualHost {
	return VirtualHost{Name: name, Domains: domains, Routes: []Route{prefix("/", name)}}
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
	hosts := []VirtualHost{
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
	table := compile(t, &Config{VirtualHosts: []VirtualHost{
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
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: tc.m, Forward: to("c")}}}}})
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
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{
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
	plain := compile(t, &Config{VirtualHosts: []VirtualHost{host("h", "*")}})
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
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: base(tc.m), Forward: to("c")}}}}})
		if got := table.Match(r, f).Kind == ToCluster; got != tc.want {
			t.Errorf("case %d: %v", i, got)
		}
	}
}

func TestWeights(t *testing.T) {
	f := &Forward{Random: "x-random", Clusters: []Weighted{{Cluster: "a", Weight: 1}, {Cluster: "never", Weight: 0}, {Cluster: "b", Weight: 3}}}
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/"}}, Forward: f}}}}})
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

func TestRequireTLS(t *testing.T) {
	h := host("h", "*")
	h.RequireTLS = RequireAll
	all := compile(t, &Config{VirtualHosts: []VirtualHost{h}})
	h.RequireTLS = RequireExternal
	external := compile(t, &Config{VirtualHosts: []VirtualHost{h}})
	r := get("shop.example:80", "/a?b=c")
	d := all.Match(r, &Facts{})
	if status, loc := d.Location(r); d.Kind != ToLocation || status != 301 || loc != "https://shop.example:80/a?b=c" {
		t.Errorf("%v %d %s", d.Kind, status, loc)
	}
	if d := external.Match(r, &Facts{Internal: true}); d.Kind != ToCluster {
		t.Error("internal requests may be plain")
	}
	r.Header.Add("x-forwarded-proto", "HTTPS")
	if d := all.Match(r, &Facts{}); d.Kind != ToCluster {
		t.Error("https as forwarded")
	}
}

func TestLocation(t *testing.T) {
	for _, tc := range []struct {
		red       Redirect
		authority string
		scheme    string
		target    string
		want      string
	}{
		{Redirect{Host: "new.example"}, "old:8080", "http", "/a?b", "http://new.example/a?b"},
		{Redirect{Scheme: "https"}, "old:80", "http", "/a", "https://old/a"},
		{Redirect{Scheme: "https"}, "old:8080", "http", "/a", "https://old:8080/a"},
		{Redirect{Scheme: "http"}, "[::1]:443", "https", "/a", "http://[::1]/a"},
		{Redirect{Scheme: "http"}, "old:443", "http", "/a", "http://old:443/a"},
		{Redirect{Port: 8443, Scheme: "https"}, "old:80", "http", "/a", "https://old:8443/a"},
		{Redirect{Port: 90}, "[::1]:8080", "http", "/", "http://[::1]:90/"},
		{Redirect{Path: "/new"}, "h", "http", "/a?b=c", "http://h/new?b=c"},
		{Redirect{Path: "/new", StripQuery: true}, "h", "http", "/a?b=c", "http://h/new"},
		{Redirect{Path: "/new?x=y"}, "h", "http", "/a?b=c", "http://h/new?x=y"},
		{Redirect{Path: "/new?x=y", StripQuery: true}, "h", "http", "/a?b=c", "http://h/new?x=y"},
		{Redirect{HasPrefix: true, Prefix: "/new"}, "h", "http", "/old/a?b=c", "http://h/new/a?b=c"},
		{Redirect{HasPrefix: true, Prefix: "/new", StripQuery: true}, "h", "http", "/old/a?b=c", "http://h/new/a"},
		{Redirect{Regex: &RegexRewrite{`^/old/(\w+)`, `/\1/new`}}, "h", "http", "/old/a/z?b=c", "http://h/a/new/z?b=c"},
		{Redirect{StripQuery: true}, "h", "http", "/old?b", "http://h/old"},
	} {
		tc.red.Status = 302
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{
			{Match: Match{Path: PathMatch{Value: "/old"}}, Redirect: &tc.red}, {Match: Match{Path: PathMatch{Value: "/"}}, Redirect: &tc.red},
		}}}})
		r := get(tc.authority, tc.target)
		r.Scheme = tc.scheme
		d := table.Match(r, &Facts{})
		if status, got := d.Location(r); got != tc.want || status != 302 {
			t.Errorf("%+v: %d %s, want %s", tc.red, status, got, tc.want)
		}
	}
}

type upper struct{ formats []string }

func (u upper) Expand(dst []byte, slot int) []byte {
	return append(dst, strings.ToUpper(strings.Trim(u.formats[slot], "%"))...)
}

func TestRewrite(t *testing.T) {
	for _, tc := range []struct {
		match         PathMatch
		rw            Rewrite
		target, want  string
		authority     string
		forwardedHost string
	}{
		{PathMatch{Value: "/a"}, Rewrite{Prefix: "/b"}, "/a/x?q", "/b/x?q", "h", ""},
		{PathMatch{Value: "/a/"}, Rewrite{Prefix: "/"}, "/a/x", "/x", "h", ""},
		{PathMatch{Kind: PathExact, Value: "/a"}, Rewrite{Prefix: "/b"}, "/a?q", "/b?q", "h", ""},
		{PathMatch{Kind: PathSegments, Value: "/a"}, Rewrite{Prefix: "/b"}, "/a/c", "/b/c", "h", ""},
		{PathMatch{Kind: PathRegex, Value: "/a.*"}, Rewrite{Prefix: "/b"}, "/axy?q", "/b?q", "h", ""},
		{PathMatch{Value: "/"}, Rewrite{Regex: &RegexRewrite{`^/a(/?)(.*)`, `/\2`}}, "/a/b/c?q=/a", "/b/c?q=/a", "h", ""},
		{PathMatch{Value: "/"}, Rewrite{Regex: &RegexRewrite{`^.*$`, `/x\\y`}}, "/a?q", `/x\y?q`, "h", ""},
		{PathMatch{Value: "/"}, Rewrite{Regex: &RegexRewrite{`a`, `[\0]`}}, "/aba", "/[a]b[a]", "h", ""},
		{PathMatch{Value: "/"}, Rewrite{Path: "/fixed"}, "/a?q", "/fixed?q", "h", ""},
		{PathMatch{Value: "/"}, Rewrite{Path: "/%x%"}, "/a?q", "/%X?q", "h", ""},
		{PathMatch{Value: "/"}, Rewrite{HostLiteral: "new"}, "/a", "/a", "new", ""},
		{PathMatch{Value: "/"}, Rewrite{HostLiteral: "new", ForwardedHost: true}, "/a", "/a", "new", "h"},
		{PathMatch{Value: "/"}, Rewrite{HostHeader: "x-host"}, "/a", "/a", "from-header", ""},
		{PathMatch{Value: "/"}, Rewrite{HostRegex: &RegexRewrite{`^/(\w+)$`, `\1.svc`}}, "/a?q", "/a?q", "a.svc", ""},
		{PathMatch{Value: "/"}, Rewrite{}, "/a", "/a", "h", ""},
	} {
		f := to("c")
		f.Rewrite = tc.rw
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: tc.match}, Forward: f}}}}})
		r := get("h", tc.target)
		r.Header.Add("x-host", "from-header")
		d := table.Match(r, &Facts{})
		if d.Kind != ToCluster {
			t.Fatalf("%+v does not match %s", tc.match, tc.target)
		}
		table.Rewrite(&d, r, upper{table.Formats()})
		if r.Path != tc.want || r.Authority != tc.authority || r.Header.Get(forwardedHost) != tc.forwardedHost {
			t.Errorf("%+v: %s %s %s, want %s %s %s", tc.rw, r.Authority, r.Path, r.Header.Get(forwardedHost), tc.authority, tc.want, tc.forwardedHost)
		}
		if changed := tc.want != tc.target; r.Header.Has(originalPath) != changed || changed && r.Header.Get(originalPath) != tc.target {
			t.Errorf("%+v: original path %q", tc.rw, r.Header.Get(originalPath))
		}
	}
}

func TestForwardedHostKeepsTheList(t *testing.T) {
	r := get("b", "/")
	r.Header.Add("x-forwarded-host", "a")
	SetAuthority(r, "c", true)
	if got := r.Header.Get("x-forwarded-host"); got != "a,b" {
		t.Errorf("%q", got)
	}
	r.Authority = "b"
	SetAuthority(r, "d", true)
	if got := r.Header.Get("x-forwarded-host"); got != "a,b" {
		t.Errorf("the same host twice: %q", got)
	}
}

func TestHeaderOperations(t *testing.T) {
	add := func(name, value string, action Append) HeaderOp {
		return HeaderOp{Name: name, Value: value, Action: action}
	}
	cfg := func(specificWins bool) *Config {
		f := &Forward{Clusters: []Weighted{{Cluster: "c", RequestHeaders: HeaderOps{Add: []HeaderOp{add("x-level", "cluster", OverwriteOrAdd)}}}}}
		return &Config{
			MostSpecificWins: specificWins,
			RequestHeaders:   HeaderOps{Add: []HeaderOp{add("x-level", "table", OverwriteOrAdd)}},
			ResponseHeaders:  HeaderOps{Remove: []string{"x-secret"}},
			VirtualHosts: []VirtualHost{{
				Name: "h", Domains: []string{"*"},
				RequestHeaders: HeaderOps{Add: []HeaderOp{add("x-level", "host", OverwriteOrAdd)}},
				Routes: []Route{{Match: Match{Path: PathMatch{Value: "/"}}, Forward: f, RequestHeaders: HeaderOps{
					Remove: []string{"x-swap"},
					Add: []HeaderOp{
						add("x-swap", "new", AppendOrAdd), add("x-more", "2", AppendOrAdd), add("x-there", "no", AddIfAbsent),
						add("x-absent", "no", OverwriteExists), add("x-pct", "100%%", OverwriteOrAdd), add("x-cmd", "%path%", OverwriteOrAdd),
						add("x-empty", "", OverwriteOrAdd), {Name: "x-kept", KeepEmpty: true, Action: OverwriteOrAdd},
					},
				}}},
			}},
		}
	}
	for _, wins := range []bool{false, true} {
		table := compile(t, cfg(wins))
		r := get("h", "/")
		for _, f := range [][2]string{{"x-swap", "old"}, {"x-more", "1"}, {"x-there", "yes"}, {"x-empty", "stays"}} {
			r.Header.Add(f[0], f[1])
		}
		d := table.Match(r, &Facts{})
		table.Rewrite(&d, r, upper{table.Formats()})
		level := "table"
		if wins {
			level = "cluster"
		}
		for name, want := range map[string]string{
			"x-level": level, "x-swap": "new", "x-more": "1,2", "x-there": "yes", "x-pct": "100%", "x-cmd": "PATH", "x-empty": "stays", "x-kept": "",
		} {
			if got, ok := r.Header.Joined(name); !ok || got != want {
				t.Errorf("%s = %q, %v; want %q", name, got, ok, want)
			}
		}
		if r.Header.Has("x-absent") {
			t.Error("x-absent")
		}
		var h message.Header
		h.Add("X-Secret", "1")
		table.ResponseHeaders(&d, &h, nil)
		if h.Len() != 0 {
			t.Error("x-secret was not removed")
		}
	}
}

type hostile struct{}

func (hostile) Expand(dst []byte, _ int) []byte { return append(dst, "a\r\nx-evil: 1\x00"...) }

func TestExpandedValuesStayOneLine(t *testing.T) {
	rt := prefix("/", "c")
	rt.RequestHeaders.Add = []HeaderOp{{Name: "x", Value: "%SNI%"}}
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{rt}}}})
	r := get("h", "/")
	d := table.Match(r, &Facts{})
	table.Rewrite(&d, r, hostile{})
	if got := r.Header.Get("x"); strings.ContainsAny(got, "\r\n\x00") {
		t.Errorf("%q", got)
	}
}

func TestHash(t *testing.T) {
	hour := time.Hour
	client, local := netip.MustParseAddrPort("192.0.2.1:999"), netip.MustParseAddrPort("10.0.0.1:80")
	sum := xxhash.Sum64String
	rotl := func(x uint64) uint64 { return x<<1 | x>>63 }
	for i, tc := range []struct {
		policies []HashPolicy
		want     Hash
	}{
		{nil, Hash{}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-user"}}, Hash{Value: sum("ann"), OK: true}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-none"}}, Hash{}},
		{[]HashPolicy{{Kind: HashHeader, Name: ":authority"}}, Hash{Value: sum("h"), OK: true}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-user", Regex: &RegexRewrite{"^a", "b"}}}, Hash{Value: sum("bnn"), OK: true}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-two"}}, Hash{Value: sequence([]string{"1", "2"}), OK: true}},
		{[]HashPolicy{{Kind: HashSourceIP}}, Hash{Value: sum("192.0.2.1"), OK: true}},
		{[]HashPolicy{{Kind: HashQuery, Name: "q"}}, Hash{Value: sum("1"), OK: true}},
		{[]HashPolicy{{Kind: HashCookie, Name: "s"}}, Hash{Value: sum("abc"), OK: true}},
		{[]HashPolicy{{Kind: HashCookie, Name: "none"}}, Hash{}},
		{[]HashPolicy{{Kind: HashCookie, Name: "none", TTL: &hour, Path: "/p", Attributes: []Attribute{{"SameSite", "Lax"}, {"Secure", ""}}}},
			Hash{Value: sum(cookieValue(client, local)), OK: true,
				Cookie: `none="` + cookieValue(client, local) + `"; Max-Age=3600; Path=/p; SameSite=Lax; Secure; HttpOnly`}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-user"}, {Kind: HashHeader, Name: "x-none"}, {Kind: HashSourceIP}},
			Hash{Value: rotl(sum("ann")) ^ sum("192.0.2.1"), OK: true}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-user", Terminal: true}, {Kind: HashSourceIP}}, Hash{Value: sum("ann"), OK: true}},
		{[]HashPolicy{{Kind: HashHeader, Name: "x-none", Terminal: true}, {Kind: HashSourceIP}}, Hash{Value: sum("192.0.2.1"), OK: true}},
	} {
		f := to("c")
		f.Hash = tc.policies
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/"}}, Forward: f}}}}})
		r := get("h", "/?q=1&q=2")
		for _, h := range [][2]string{{"X-User", "ann"}, {"x-two", "2"}, {"x-two", "1"}, {"cookie", `a=b; s="abc"; s=d`}} {
			r.Header.Add(h[0], h[1])
		}
		d := table.Match(r, &Facts{})
		if got := d.Hash(r, client, local); got != tc.want {
			t.Errorf("case %d: %+v, want %+v", i, got, tc.want)
		}
	}
}

func TestRetry(t *testing.T) {
	on, unknown := ParseRetryOn("connect-failure,refused-stream, unavailable,cancelled,retriable-status-codes")
	if unknown != "" || on != OnConnectFailure|OnRefusedStream|OnUnavailable|OnCancelled|OnStatusCodes {
		t.Errorf("%v %q", on, unknown)
	}
	if _, unknown := ParseRetryOn("5xx,nonsense"); unknown != "nonsense" {
		t.Errorf("%q", unknown)
	}
	response := func(status int, fields ...string) *message.Response {
		r := &message.Response{Status: status}
		for i := 0; i < len(fields); i += 2 {
			r.Header.Add(fields[i], fields[i+1])
		}
		return r
	}
	for _, tc := range []struct {
		p    Retry
		r    *message.Response
		want bool
	}{
		{Retry{On: On5xx}, response(500), true},
		{Retry{On: On5xx}, response(499), false},
		{Retry{On: On5xx}, response(503, "x-envoy-ratelimited", "true"), false},
		{Retry{On: OnRatelimited}, response(429, "x-envoy-ratelimited", "true"), true},
		{Retry{On: OnGatewayError}, response(500), false},
		{Retry{On: OnGatewayError}, response(503), true},
		{Retry{On: OnRetriable4xx}, response(409), true},
		{Retry{On: OnStatusCodes, Codes: []uint32{418}}, response(418), true},
		{Retry{On: OnStatusCodes}, response(503), false},
		{Retry{On: OnHeaders, Headers: []match.Header{{Name: "x-again", Test: match.HeaderPresent}}}, response(200, "X-Again", ""), true},
		{Retry{On: OnHeaders, Headers: []match.Header{{Name: ":status", Test: match.HeaderRange, Lo: 200, Hi: 201}}}, response(200), true},
		{Retry{On: OnUnavailable}, response(200, "grpc-status", "14"), true},
		{Retry{On: OnUnavailable}, response(200, "grpc-status", "1"), false},
		{Retry{On: OnUnavailable}, response(503), false},
	} {
		if got := tc.p.OnResponse(tc.r); got != tc.want {
			t.Errorf("%s on %d %v: %v", tc.p.On, tc.r.Status, tc.r.Header.Fields(), got)
		}
	}
	for _, tc := range []struct {
		on   RetryOn
		f    fault.Fault
		want bool
	}{
		{OnConnectFailure, fault.Fault{Kind: fault.ConnectFailure}, true},
		{OnConnectFailure, fault.Fault{Kind: fault.ConnectTimeout}, true},
		{OnConnectFailure, fault.Fault{Kind: fault.PerTryTimeout}, false},
		{OnReset, fault.Fault{Kind: fault.PerTryTimeout, Sent: true}, true},
		{On5xx, fault.Fault{Kind: fault.RemoteReset, Sent: true}, true},
		{OnResetBeforeRequest, fault.Fault{Kind: fault.ConnectionClosed, Sent: true}, false},
		{OnResetBeforeRequest, fault.Fault{Kind: fault.ConnectionClosed}, true},
		{OnRefusedStream, fault.Fault{Kind: fault.RefusedStream}, true},
		{OnRefusedStream, fault.Fault{Kind: fault.RemoteReset}, false},
		{1<<16 - 1, fault.Fault{Kind: fault.Overflow}, false},
		{1<<16 - 1, fault.Fault{Kind: fault.Timeout}, false},
		{1<<16 - 1, fault.Fault{Kind: fault.NoEndpoint}, false},
	} {
		p := Retry{On: tc.on}
		if got := p.OnFault(&tc.f); got != tc.want {
			t.Errorf("%s on %s: %v", tc.on, tc.f.Kind, got)
		}
	}
	p := Retry{Base: 25, Max: 250}
	for n, limit := range map[uint32]time.Duration{1: 25, 2: 75, 3: 175, 4: 250, 1 << 31: 250} {
		if got := p.Backoff(n, uint64(limit)-1); got != limit-1 {
			t.Errorf("backoff %d: %d, want %d", n, got, limit-1)
		}
		if got := p.Backoff(n, uint64(limit)); got != 0 {
			t.Errorf("backoff %d: %d, want 0", n, got)
		}
	}
	only := Retry{On: On5xx, Requests: []match.Header{{Name: ":method", Test: match.HeaderString, Value: match.Exact("GET")}}}
	if post := (&message.Request{Method: "POST"}); only.Applies(post) || !only.Applies(get("h", "/")) {
		t.Error("retriable_request_headers")
	}
}

func TestCompileRefuses(t *testing.T) {
	one := func(r Route) *Config {
		return &Config{VirtualHosts: []VirtualHost{{Name: "vh", Domains: []string{"*"}, Routes: []Route{r}}}}
	}
	at := func(m Match, f *Forward) *Config { return one(Route{Name: "rt", Match: m, Forward: f}) }
	any := Match{Path: PathMatch{Value: "/"}}
	rewrite := func(rw Rewrite) *Config { f := to("c"); f.Rewrite = rw; return at(any, f) }
	headers := func(ops HeaderOps) *Config { r := prefix("/", "c"); r.RequestHeaders = ops; return one(r) }
	for want, cfg := range map[string]*Config{
		`virtual host "b": domain "A.com" is there already in virtual host "a"`: {VirtualHosts: []VirtualHost{host("a", "a.com"), host("b", "A.com")}},
		`virtual host "b": domain "*" is there already in virtual host "a"`:     {VirtualHosts: []VirtualHost{host("a", "*"), host("b", "*")}},
		`domain "*.a" is there already`:                                         {VirtualHosts: []VirtualHost{host("a", "*.a", "*.a")}},
		`virtual host "a": it has no domains`:                                   {VirtualHosts: []VirtualHost{host("a")}},
		`an empty domain`:                                                       {VirtualHosts: []VirtualHost{host("a", "")}},
		`a character that no host has`:                                          {VirtualHosts: []VirtualHost{host("a", "a\nb")}},
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
	table := compile(t, &Config{VirtualHosts: []VirtualHost{
		host("x", "x"), {Name: "y", Domains: []string{"y"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/a"}}, Forward: f}, prefix("/", "c")}},
	}})
	var got []string
	table.Walk(func(slot int, h *VirtualHost, r *Route, choice int) {
		got = append(got, fmt.Sprint(slot, h.Name, r.Forward.Clusters[choice].Cluster))
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
	table := compile(t, &Config{Name: "80", IgnorePort: true, VirtualHosts: []VirtualHost{
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
	none := compile(t, &Config{Name: "t", VirtualHosts: []VirtualHost{host("a", "a")}})
	e = none.Explain(get("b", "/"), &Facts{})
	if got := e.String(); got != "table t: no virtual host\n  no virtual host has a domain for \"b\"\n" {
		t.Errorf("%s", got)
	}
}
