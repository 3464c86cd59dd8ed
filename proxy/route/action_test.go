// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
)

func TestRequireTLS(t *testing.T) {
	h := host("h", "*")
	h.RequireTLS = RequireAll
	all := compile(t, &Config{VirtualHosts: []*VirtualHost{h}})
	h = host("h", "*")
	h.RequireTLS = RequireExternal
	external := compile(t, &Config{VirtualHosts: []*VirtualHost{h}})
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
		table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{
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
		table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: tc.match}, Forward: f}}}}})
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
			VirtualHosts: []*VirtualHost{{
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
	table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{rt}}}})
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
		table := compile(t, &Config{VirtualHosts: []*VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []Route{{Match: Match{Path: PathMatch{Value: "/"}}, Forward: f}}}}})
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
