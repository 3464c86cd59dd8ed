// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/message"
)

func regex(t testing.TB, expr string) String {
	t.Helper()
	m, err := Regex(expr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestString(t *testing.T) {
	for _, tc := range []struct {
		m    String
		yes  []string
		no   []string
		text string
	}{
		{String{}, []string{"", "x"}, nil, "anything"},
		{Exact("ab"), []string{"ab"}, []string{"", "a", "AB", "abc"}, `exact "ab"`},
		{Exact("aB").IgnoreCase(), []string{"ab", "AB"}, []string{"abc", "a"}, `exact "ab" (ignore case)`},
		{Prefix("/a"), []string{"/a", "/ab"}, []string{"/", "x/a", "/A"}, `prefix "/a"`},
		{Prefix("/A").IgnoreCase(), []string{"/aB"}, []string{"/"}, `prefix "/a" (ignore case)`},
		{Suffix(".io"), []string{".io", "x.io"}, []string{"io", ".iox"}, `suffix ".io"`},
		{Suffix(".IO").IgnoreCase(), []string{"x.Io"}, []string{"x.i0"}, `suffix ".io" (ignore case)`},
		{Contains("bc"), []string{"abcd", "bc"}, []string{"b", "aBc"}, `contains "bc"`},
		{Contains("bC").IgnoreCase(), []string{"aBcd"}, []string{"b"}, `contains "bc" (ignore case)`},
		{regex(t, "a|ab"), []string{"a", "ab"}, []string{"abc", "xa", "a\n"}, `regex "a|ab"`},
		{regex(t, ".*"), []string{"", "x", "\xff"}, []string{"a\nb"}, `regex ".*"`},
		{regex(t, "(?i)x"), []string{"x", "X"}, nil, `regex "(?i)x"`},
	} {
		for _, s := range tc.yes {
			if !tc.m.Match(s) {
				t.Errorf("%s does not match %q", tc.m.String(), s)
			}
		}
		for _, s := range tc.no {
			if tc.m.Match(s) {
				t.Errorf("%s matches %q", tc.m.String(), s)
			}
		}
		if tc.m.String() != tc.text {
			t.Errorf("String = %s, want %s", tc.m.String(), tc.text)
		}
	}
}

func TestRegexRefused(t *testing.T) {
	for _, expr := range []string{"a)|(b", "(", `\C`, "a{2000}", strings.Repeat("x", maxRegex+1), "((a{100}){100}){100}", strings.Repeat("(a{900})", 30)} {
		if _, err := Regex(expr); err == nil {
			t.Errorf("%.20q was accepted", expr)
		}
	}
}

func TestHeaderSemantics(t *testing.T) {
	r := &message.Request{Method: "GET", Authority: "Shop.example", Path: "/a?b=c", Scheme: "https"}
	r.Header.Add("X-One", "1")
	r.Header.Add("x-two", "a")
	r.Header.Add("X-Two", "b")
	r.Header.Add("x-empty", "")
	r.Header.Add("x-num", "42")
	for _, tc := range []struct {
		h    Header
		want bool
	}{
		{Header{Name: "x-one", Test: HeaderPresent}, true},
		{Header{Name: "x-one", Test: HeaderPresent, Invert: true}, false},
		{Header{Name: "x-one", Test: HeaderAbsent}, false},
		{Header{Name: "nope", Test: HeaderPresent}, false},
		{Header{Name: "nope", Test: HeaderPresent, Invert: true}, true},
		{Header{Name: "nope", Test: HeaderAbsent}, true},
		{Header{Name: "nope", Test: HeaderAbsent, Invert: true}, false},
		{Header{Name: "nope", Test: HeaderPresent, MissingIsEmpty: true}, true},
		{Header{Name: "nope", Test: HeaderAbsent, MissingIsEmpty: true}, false},
		{Header{Name: "x-one", Test: HeaderString, Value: Exact("1")}, true},
		{Header{Name: "x-one", Test: HeaderString, Value: Exact("1"), Invert: true}, false},
		{Header{Name: "x-one", Test: HeaderString, Value: Exact("2"), Invert: true}, true},
		// A missing header fails, inverted or not, unless it counts as empty.
		{Header{Name: "nope", Test: HeaderString, Value: Exact("1")}, false},
		{Header{Name: "nope", Test: HeaderString, Value: Exact("1"), Invert: true}, false},
		{Header{Name: "nope", Test: HeaderString, Value: Exact("1"), Invert: true, MissingIsEmpty: true}, true},
		{Header{Name: "nope", Test: HeaderString, Value: Exact(""), MissingIsEmpty: true}, true},
		{Header{Name: "x-empty", Test: HeaderString, Value: Exact("")}, true},
		// Of several lines each is compared by itself.
		{Header{Name: "x-two", Test: HeaderString, Value: Exact("a,b")}, false},
		{Header{Name: "x-two", Test: HeaderString, Value: Exact("a,b"), Invert: true}, true},
		{Header{Name: "x-two", Test: HeaderString, Value: Exact("b")}, true},
		{Header{Name: "x-two", Test: HeaderString, Value: Exact("b"), Invert: true}, false},
		{Header{Name: "x-two", Test: HeaderString, Value: Exact("c"), Invert: true}, true},
		{Header{Name: "x-two", Test: HeaderPresent, Invert: true}, false},
		{Header{Name: "x-num", Test: HeaderRange, Lo: 42, Hi: 43}, true},
		{Header{Name: "x-num", Test: HeaderRange, Lo: 1, Hi: 42}, false},
		{Header{Name: "x-two", Test: HeaderRange, Lo: 1, Hi: 42}, false},
		{Header{Name: "x-two", Test: HeaderRange, Lo: 1, Hi: 42, Invert: true}, true},
		{Header{Name: "nope", Test: HeaderRange, Lo: 0, Hi: 9, Invert: true, MissingIsEmpty: true}, true},
		{Header{Name: ":method", Test: HeaderString, Value: Exact("GET")}, true},
		{Header{Name: ":authority", Test: HeaderString, Value: Exact("shop.EXAMPLE").IgnoreCase()}, true},
		{Header{Name: "Host", Test: HeaderString, Value: Prefix("Shop")}, true},
		{Header{Name: ":path", Test: HeaderString, Value: Exact("/a?b=c")}, true},
		{Header{Name: ":scheme", Test: HeaderString, Value: Exact("https")}, true},
		{Header{Name: ":protocol", Test: HeaderPresent}, false},
		{Header{Name: ":other", Test: HeaderPresent}, false},
		{Header{Name: "", Test: HeaderPresent}, false},
	} {
		if got := tc.h.Match(r); got != tc.want {
			t.Errorf("%s (invert %v, missing is empty %v) = %v, want %v", tc.h.String(), tc.h.Invert, tc.h.MissingIsEmpty, got, tc.want)
		}
	}
}

func TestPathOf(t *testing.T) {
	for target, want := range map[string][2]string{
		"/a": {"/a", ""}, "/a?b": {"/a", "b"}, "/a?b#c": {"/a", "b"}, "/a#b?c": {"/a", ""}, "": {"", ""}, "/a??": {"/a", "?"},
	} {
		if p, q := PathOf(target); p != want[0] || q != want[1] {
			t.Errorf("PathOf(%q) = %q, %q", target, p, q)
		}
	}
}

func TestQuery(t *testing.T) {
	const query = "a=1&b&c=&a=2&d=x%20y&=odd"
	for name, want := range map[string]string{"a": "1", "b": "", "c": "", "d": "x%20y"} {
		if got, ok := QueryValue(query, name); !ok || got != want {
			t.Errorf("%s = %q, %v; want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"e", "A", "x y"} {
		if _, ok := QueryValue(query, name); ok {
			t.Errorf("%q found", name)
		}
	}
	q := Query{Name: "b", Present: true}
	if !q.Match(query) || q.Match("x=b") {
		t.Error("presence")
	}
	v := Query{Name: "a", Value: Exact("2")}
	if v.Match(query) {
		t.Error("only the first value counts")
	}
}

func TestTemplate(t *testing.T) {
	for source, want := range map[string]struct{ yes, no string }{
		"/a/*":              {"/a/b /a/b.c /a/.. /a/%2F /a/é", "/a /a/ /a/b/c /a/b/"},
		"/a/**":             {"/a/ /a/b /a/b/c /a//", "/a /b/a/"},
		"/**.mpd":           {"/x/y.mpd /.mpd", "/x/y.mpdx /x"},
		"/v/*/*/*.m4s":      {"/v/1/2/3.m4s", "/v/1/2/.m4s /v/1/3.m4s"},
		"/{x}/{y=b/*}/c":    {"/1/b/2/c", "/1/b/c /1/x/2/c"},
		"/{rest=**}":        {"/ /a/b", "a"},
		"/a.b+(c)":          {"/a.b+(c)", "/aXb+(c) /a.bb(c)"},
		"/foo/*/bar/{**=x}": {},
	} {
		m, err := NewTemplate(source)
		if want.yes == "" {
			if err == nil {
				t.Errorf("%s was accepted", source)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range strings.Fields(want.yes) {
			if !m.Match(p) {
				t.Errorf("%s does not match %s", source, p)
			}
		}
		for _, p := range strings.Fields(want.no) {
			if m.Match(p) {
				t.Errorf("%s matches %s", source, p)
			}
		}
	}
	for _, bad := range []string{"", "a", "/***", "/**/*", "/{a", "/a}", "/{}", "/{a}/{a}", "/{a={b}}", "/{a=}", "/{a}{b}{c}{d}{e}{f}", "/{a=**}/*"} {
		if _, err := NewTemplate(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestPrefixes(t *testing.T) {
	p, err := NewPrefixes(netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("::ffff:192.0.2.0/120"))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "10.2.0.0": false, "::ffff:10.1.2.3": true, "fd00::1": true, "fd00::1%eth0": true, "fe80::1": false, "192.0.2.9": true,
	} {
		if got := p.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if p.Contains(netip.Addr{}) {
		t.Error("the zero address is in nothing")
	}
	if _, err := NewPrefixes(netip.Prefix{}); err == nil {
		t.Error("invalid prefix accepted")
	}
}

func TestMetadataValue(t *testing.T) {
	md := tree{"jwt": {"payload": map[string]any{"iss": "me", "aud": []any{"a", "b"}, "admin": true, "n": 3.0, "none": nil}}}
	list := Value{Test: ValueList, Of: []Value{{Test: ValueString, Text: Exact("b")}}}
	for _, tc := range []struct {
		m    MetadataValue
		want bool
	}{
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "iss"}, Value: Value{Test: ValueString, Text: Prefix("m")}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "iss"}, Value: Value{Test: ValueString, Text: Prefix("m")}, Invert: true}, false},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "aud"}, Value: list}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "iss"}, Value: list}, false},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "iss"}, Value: Value{Test: ValueAny, Of: []Value{list, {Test: ValueString, Text: Exact("me")}}}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "admin"}, Value: Value{Test: ValueBool, Bool: true}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "n"}, Value: Value{Test: ValueNumber, Lo: 3, Hi: 3}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "n"}, Value: Value{Test: ValueNumber, Lo: 1, Hi: 3}}, false},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "none"}, Value: Value{Test: ValueNull}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "nope"}, Value: Value{Test: ValuePresent}}, false},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "nope"}, Value: Value{Test: ValueAbsent}}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "nope"}, Value: Value{Test: ValueString}, Invert: true}, true},
		{MetadataValue{Filter: "jwt", Path: []string{"payload", "iss", "deeper"}, Value: Value{Test: ValuePresent}}, false},
		{MetadataValue{Filter: "other", Path: []string{"a"}, Value: Value{Test: ValuePresent}}, false},
	} {
		if got := tc.m.Match(md); got != tc.want {
			t.Errorf("%s = %v, want %v", tc.m.String(), got, tc.want)
		}
		if tc.m.Match(nil) != (MetadataValue{Value: tc.m.Value, Invert: tc.m.Invert}).matchNothing() {
			t.Errorf("%s: nil metadata is not nothing", tc.m.String())
		}
	}
}

func (m MetadataValue) matchNothing() bool { return m.Value.Match(nil, false) != m.Invert }

type tree map[string]map[string]any

func (t tree) Metadata(filter string) map[string]any { return t[filter] }

func TestMatchingDoesNotAllocate(t *testing.T) {
	if raced {
		t.Skip("regexp's pools forget at random under the race detector")
	}
	r := &message.Request{Method: "GET", Authority: "shop", Path: "/a/b?c=d"}
	r.Header.Add("x-one", "value")
	h := Header{Name: "x-one", Test: HeaderString, Value: regex(t, "v.*e")}
	q := Query{Name: "c", Value: Suffix("d")}
	tm, err := NewTemplate("/a/*")
	if err != nil {
		t.Fatal(err)
	}
	p, _ := NewPrefixes(netip.MustParsePrefix("10.0.0.0/8"))
	addr := netip.MustParseAddr("::ffff:10.1.1.1")
	if n := testing.AllocsPerRun(100, func() {
		path, query := PathOf(r.Path)
		if !h.Match(r) || !q.Match(query) || !tm.Match(path) || !p.Contains(addr) {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// The twin is what package strings says of the lower-cased strings.
func FuzzStringAgreesWithSlowTwin(f *testing.F) {
	f.Add("Hello", "hello", uint8(1), true)
	f.Add("/a/b", "/a", uint8(2), false)
	f.Add("İ", "i", uint8(4), true)
	f.Fuzz(func(t *testing.T, s, value string, kind uint8, fold bool) {
		m := [...]func(string) String{Exact, Prefix, Suffix, Contains}[kind%4](value)
		a, b := s, value
		if fold {
			m = m.IgnoreCase()
			a, b = asciiLower(a), asciiLower(b)
		}
		want := [...]func(a, b string) bool{func(a, b string) bool { return a == b }, strings.HasPrefix, strings.HasSuffix, strings.Contains}[kind%4](a, b)
		if got := m.Match(s); got != want {
			t.Errorf("%s on %q = %v", m.String(), s, got)
		}
		quoted := regexpQuote(value)
		if re, err := Regex(quoted); err == nil && !fold && kind%4 == 0 && re.Match(s) != want {
			t.Errorf("regex %q on %q = %v", quoted, s, !want)
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0 {
			b[i] = c + 32
		}
	}
	return string(b)
}

// regexpQuote writes every byte but letters and digits as \x{..}; only for ASCII.
func regexpQuote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return "("
		}
		b.WriteString(`\x`)
		b.WriteByte("0123456789abcdef"[s[i]>>4])
		b.WriteByte("0123456789abcdef"[s[i]&15])
	}
	return b.String()
}

// The twin is net/url on queries that need no decoding.
func FuzzQueryAgreesWithURL(f *testing.F) {
	f.Add("a=1&b=2", "a")
	f.Add("&&a&=x", "a")
	f.Fuzz(func(t *testing.T, query, name string) {
		if strings.ContainsAny(query+name, "%+;#") || name == "" {
			t.Skip()
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		got, ok := QueryValue(query, name)
		if ok != want.Has(name) || got != want.Get(name) {
			t.Errorf("QueryValue(%q, %q) = %q, %v; want %q, %v", query, name, got, ok, want.Get(name), want.Has(name))
		}
	})
}

func FuzzTemplateNeverPanics(f *testing.F) {
	f.Add("/a/{b=**}", "/a/b")
	f.Fuzz(func(t *testing.T, source, path string) {
		if m, err := NewTemplate(source); err == nil {
			m.Match(path)
		}
	})
}
