// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

func conn() *filter.Conn {
	return &filter.Conn{Remote: netip.MustParseAddrPort("10.1.2.3:999"), Local: netip.MustParseAddrPort("10.0.0.1:8080")}
}

func request(fields ...string) *message.Request {
	r := &message.Request{Version: message.HTTP11, Method: "GET", Authority: "a.example:8080", Path: "/"}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func TestPaths(t *testing.T) {
	base := &config.HTTP{NormalizePath: true}
	merge := &config.HTTP{NormalizePath: true, MergeSlashes: true}
	unescape := &config.HTTP{NormalizePath: true, MergeSlashes: true, EscapedSlashes: config.SlashesUnescape}
	for _, c := range []struct {
		cfg      *config.HTTP
		in, want string
		verdict  verdict
	}{
		{base, "/a/b?x=../%2e", "/a/b?x=../%2e", keep},
		{base, "/a/./b/../c", "/a/c", keep},
		{base, "/a/..", "/", keep},
		{base, "/..", "/", keep},
		{base, "/a/.", "/a/", keep},
		{base, "/../../x", "/x", keep},
		{base, "/%61%2D%2f%7e", "/a-%2f~", keep},
		{base, "/%2e%2e/a", "/a", keep},
		{base, `/a\..\b`, "/b", keep},
		{base, "/a//b", "/a//b", keep},
		{base, "/a#frag?x", "", reject},
		{base, "/a%00b", "", reject},
		{base, "/%%32e%%32e/a", "", reject},
		{base, "/a%zz%", "/a%zz%", keep},
		{base, "/.hidden/..x", "/.hidden/..x", keep},
		{merge, "/a///b//", "/a/b/", keep},
		{merge, "/a//../b", "/a/b", keep},
		{unescape, "/a%2Fb%5cc", "/a/b/c", keep},
		{unescape, "/a%2f..%2fadmin", "/admin", keep},
		{&config.HTTP{EscapedSlashes: config.SlashesReject}, "/a%2fb", "", reject},
		{&config.HTTP{EscapedSlashes: config.SlashesRedirect}, "/a%2fb?q", "/a/b?q", redirect},
		{&config.HTTP{}, "/a/../b", "/a/../b", keep},
	} {
		got, v := path(c.in, c.cfg)
		if got != c.want || v != c.verdict {
			t.Errorf("%s = %q (%d), want %q (%d)", c.in, got, v, c.want, c.verdict)
		}
	}
}

func TestAuthority(t *testing.T) {
	for _, c := range []struct {
		cfg      config.HTTP
		in, want string
	}{
		{config.HTTP{}, "a.example.:8080", "a.example.:8080"},
		{config.HTTP{StripTrailingDot: true}, "a.example.:8080", "a.example:8080"},
		{config.HTTP{StripPort: config.StripAny}, "a.example:99", "a.example"},
		{config.HTTP{StripPort: config.StripMatching}, "a.example:99", "a.example:99"},
		{config.HTTP{StripPort: config.StripMatching}, "a.example:8080", "a.example"},
		{config.HTTP{StripPort: config.StripAny}, "[::1]:80", "[::1]"},
	} {
		if got := authority(c.in, &c.cfg, 8080); got != c.want {
			t.Errorf("%s = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestForwardedFor(t *testing.T) {
	inner := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name             string
		cfg              config.HTTP
		in               string
		out, remote      string
		internal, isEdge bool
	}{
		{"sidecar, none", config.HTTP{}, "", "", "10.1.2.3", false, false},
		{"sidecar, one", config.HTTP{}, "1.2.3.4", "1.2.3.4", "1.2.3.4", false, false},
		{"sidecar, two", config.HTTP{}, "1.2.3.4, 5.6.7.8", "1.2.3.4, 5.6.7.8", "5.6.7.8", false, false},
		{"sidecar, internal", config.HTTP{Internal: inner}, "10.9.9.9", "10.9.9.9", "10.9.9.9", true, false},
		{"sidecar, two are never internal", config.HTTP{Internal: inner}, "10.9.9.9,10.8.8.8", "10.9.9.9,10.8.8.8", "10.8.8.8", false, false},
		{"sidecar, rubbish", config.HTTP{Internal: inner}, "x", "x", "10.1.2.3", false, false},
		{"edge", config.HTTP{UseRemoteAddress: true}, "6.6.6.6", "6.6.6.6,10.1.2.3", "10.1.2.3", false, true},
		{"edge behind one", config.HTTP{UseRemoteAddress: true, TrustedHops: 1}, "1.1.1.1, 6.6.6.6", "1.1.1.1, 6.6.6.6,10.1.2.3", "6.6.6.6", false, true},
		{"edge, internal", config.HTTP{UseRemoteAddress: true, Internal: inner}, "", "10.1.2.3", "10.1.2.3", true, false},
		{"edge, not appending", config.HTTP{UseRemoteAddress: true, SkipForwardedFor: true}, "", "", "10.1.2.3", false, true},
	} {
		r := request()
		if c.in != "" {
			r.Header.Add("X-Forwarded-For", c.in)
		}
		f, err := Request(r, &c.cfg, conn(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get(forwardedFor); got != c.out || f.Remote.Addr().String() != c.remote || f.Internal != c.internal || f.Edge != c.isEdge {
			t.Errorf("%s: header %q, remote %v, internal %v, edge %v", c.name, got, f.Remote, f.Internal, f.Edge)
		}
	}
}

func TestUnixSocketsAreInternalIfSaidSo(t *testing.T) {
	for _, said := range []bool{false, true} {
		c := conn()
		c.Remote = netip.AddrPort{}
		if f, err := Request(request(), &config.HTTP{UseRemoteAddress: true, InternalUnix: said}, c, ""); err != nil || f.Internal != said {
			t.Errorf("%v: %+v, %v", said, f, err)
		}
	}
}

func TestWhatOnlyTheMeshMaySay(t *testing.T) {
	fields := []string{"x-envoy-retry-on", "5xx", "X-Envoy-Upstream-Rq-Timeout-Ms", "1", "x-envoy-decorator-operation", "op", "x-envoy-internal", "true", "x-other", "1"}
	for _, c := range []struct {
		name string
		cfg  config.HTTP
		kept []string
	}{
		{"sidecar", config.HTTP{}, []string{"x-envoy-decorator-operation", "x-other"}},
		{"edge", config.HTTP{UseRemoteAddress: true}, []string{"x-other"}},
		{"internal", config.HTTP{UseRemoteAddress: true, Internal: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			[]string{"x-envoy-retry-on", "X-Envoy-Upstream-Rq-Timeout-Ms", "x-envoy-decorator-operation", "x-envoy-internal", "x-other"}},
	} {
		r := request(fields...)
		if _, f := Request(r, &c.cfg, conn(), ""); f != nil {
			t.Fatal(f)
		}
		for _, name := range []string{"x-envoy-retry-on", "X-Envoy-Upstream-Rq-Timeout-Ms", "x-envoy-decorator-operation", "x-envoy-internal", "x-other"} {
			want := strings.Contains(strings.Join(c.kept, " "), name)
			if r.Header.Has(name) != want {
				t.Errorf("%s: %s kept: %v, want %v", c.name, name, !want, want)
			}
		}
	}
}

func TestClientCert(t *testing.T) {
	c := conn()
	c.TLS, c.Mutual = &tls.ConnectionState{}, true
	c.Own.URISANs = []string{"spiffe://td/ns/a/sa/own"}
	c.Peer = filter.Certificate{URISANs: []string{"spiffe://td/ns/b/sa/peer"}, DNSSANs: []string{"b.example"}, Subject: `CN=a"b`, SHA256: "ab12"}
	set := config.SetCert{Subject: true, URI: true, DNS: true}
	element := `By=spiffe://td/ns/a/sa/own;Hash=ab12;Subject="CN=a\"b";URI=spiffe://td/ns/b/sa/peer;DNS=b.example`
	for _, k := range []struct {
		name   string
		mode   config.ForwardCert
		mutual bool
		want   string
	}{
		{"sanitize", config.CertSanitize, true, ""},
		{"forward only", config.CertForwardOnly, true, "old"},
		{"append", config.CertAppendForward, true, "old," + element},
		{"set", config.CertSanitizeSet, true, element},
		{"append without TLS", config.CertAppendForward, false, ""},
		{"forward only without TLS", config.CertForwardOnly, false, ""},
		{"always", config.CertAlwaysForwardOnly, false, "old"},
	} {
		c.Mutual = k.mutual
		cfg := &config.HTTP{ForwardCert: k.mode, SetCert: set}
		r := request("X-Forwarded-Client-Cert", "old")
		if _, f := Request(r, cfg, c, CertElement(c, cfg)); f != nil {
			t.Fatal(f)
		}
		if got := r.Header.Get(clientCert); got != k.want {
			t.Errorf("%s: %q, want %q", k.name, got, k.want)
		}
	}
	c.Mutual = true
	c.Peer.URISANs = []string{"spiffe://td/x;Hash=fake,By=me"}
	if got := CertElement(c, &config.HTTP{ForwardCert: config.CertSanitizeSet, SetCert: set}); !strings.Contains(got, `URI="spiffe://td/x;Hash=fake,By=me"`) {
		t.Errorf("a name in a certificate looks like another element: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    config.HTTP
		change func(*message.Request)
		status int
	}{
		{"no host", config.HTTP{}, func(r *message.Request) { r.Authority = "" }, 400},
		{"no path", config.HTTP{}, func(r *message.Request) { r.Path = "x" }, 404},
		{"asterisk for GET", config.HTTP{}, func(r *message.Request) { r.Path = "*" }, 404},
		{"underscore", config.HTTP{Underscores: config.UnderscoresReject}, func(r *message.Request) { r.Header.Add("a_b", "") }, 400},
		{"scheme", config.HTTP{}, func(r *message.Request) { r.Scheme = "ftp" }, 400},
		{"OPTIONS *", config.HTTP{}, func(r *message.Request) { r.Method, r.Path = "OPTIONS", "*" }, 0},
		{"CONNECT", config.HTTP{}, func(r *message.Request) { r.Method, r.Path = "CONNECT", "" }, 0},
	} {
		r := request()
		c.change(r)
		_, f := Request(r, &c.cfg, conn(), "")
		if got := 0; f != nil && f.Status != c.status || f == nil && c.status != got {
			t.Errorf("%s: fault %v, want status %d", c.name, f, c.status)
		}
	}
	r := request("a_b", "", "c", "")
	if _, f := Request(r, &config.HTTP{Underscores: config.UnderscoresDrop}, conn(), ""); f != nil || r.Header.Has("a_b") {
		t.Errorf("fault %v, fields %v", f, r.Header.Fields())
	}
}

func TestScheme(t *testing.T) {
	r := request("X-Forwarded-Proto", "https")
	if _, f := Request(r, &config.HTTP{}, conn(), ""); f != nil || r.Scheme != "https" {
		t.Errorf("scheme %s (%v): a sidecar trusts x-forwarded-proto", r.Scheme, f)
	}
	r = request("X-Forwarded-Proto", "https")
	if _, f := Request(r, &config.HTTP{UseRemoteAddress: true}, conn(), ""); f != nil || r.Scheme != "http" {
		t.Errorf("scheme %s (%v): an edge does not", r.Scheme, f)
	}
}

func TestGRPC(t *testing.T) {
	for s, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "Application/gRPC;x": true, "application/grpc-web": false, "text/plain": false} {
		if IsGRPC(s) != want {
			t.Errorf("IsGRPC(%q) = %v", s, !want)
		}
	}
}

func TestCleanRequestsDoNotAllocate(t *testing.T) {
	cfg, c := &config.HTTP{NormalizePath: true, GenerateRequestID: true}, conn()
	r := request("User-Agent", "x", "X-Forwarded-Proto", "http")
	if n := testing.AllocsPerRun(100, func() {
		if _, f := Request(r, cfg, c, ""); f != nil {
			t.Fatal(f)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// What comes out is what would come out again: policy and server see one spelling.
func FuzzPathIsStable(f *testing.F) {
	for _, s := range []string{"/a/../b", `/%2e%2e\x`, "/%252e/..", "/a%2f..%2f", "//..//.", "/a/%2e./b"} {
		f.Add(s, true, true)
	}
	f.Fuzz(func(t *testing.T, s string, merge, unescape bool) {
		if s == "" || s[0] != '/' {
			return
		}
		cfg := &config.HTTP{NormalizePath: true, MergeSlashes: merge}
		if unescape {
			cfg.EscapedSlashes = config.SlashesUnescape
		}
		once, v := path(s, cfg)
		if v != keep {
			return
		}
		p, _, _ := strings.Cut(once, "?")
		if p == "" || p[0] != '/' {
			t.Fatalf("%q becomes %q", s, once)
		}
		for _, segment := range strings.Split(p, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q becomes %q, which has dot segments", s, once)
			}
		}
		if again, _ := path(once, cfg); again != once {
			t.Fatalf("%q becomes %q, then %q", s, once, again)
		}
	})
}
