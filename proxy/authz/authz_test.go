// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

func compile(t testing.TB, action Action, policies ...Policy) *Rules {
	t.Helper()
	r, err := Compile(&Config{Action: action, Policies: policies}, HTTP)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func policyOf(name string, permission, principal Rule) Policy {
	return Policy{Name: name, Permissions: []Rule{permission}, Principals: []Rule{principal}}
}

func not(r Rule) Rule { return Rule{Op: Not, Of: []Rule{r}} }

func header(name string, value match.String) Rule {
	return Rule{Op: Header, Header: match.Header{Name: name, Test: match.HeaderString, Value: value}}
}

func peer(m match.String) Rule { return Rule{Op: Authenticated, Text: m} }

func cidr(op Op, s string) Rule {
	p, err := match.NewPrefixes(netip.MustParsePrefix(s))
	if err != nil {
		panic(err)
	}
	return Rule{Op: op, Prefixes: p}
}

var anyone = Rule{Op: Any}

func facts() *Facts {
	r := &message.Request{Method: "GET", Authority: "shop.example", Path: "/cart/1?x=y#z", Scheme: "https"}
	r.Header.Add("x-role", "user")
	return &Facts{
		Verified: true, URISANs: []string{"spiffe://td/ns/a/sa/b"}, DNSSANs: []string{"b.a"}, Subject: "CN=b",
		DirectRemote: netip.MustParseAddr("10.0.0.9"), Remote: netip.MustParseAddr("192.0.2.7"),
		Local: netip.MustParseAddrPort("10.1.0.1:8080"), SNI: "outbound_.80_._.shop", Request: r,
	}
}

func TestConditions(t *testing.T) {
	tmpl, err := match.NewTemplate("/cart/*")
	if err != nil {
		t.Fatal(err)
	}
	role, _ := match.Regex("us.*")
	for _, tc := range []struct {
		rule Rule
		want bool
	}{
		{anyone, true},
		{not(anyone), false},
		{Rule{Op: And, Of: []Rule{anyone, not(anyone)}}, false},
		{Rule{Op: Or, Of: []Rule{not(anyone), anyone}}, true},
		{header(":method", match.Exact("GET")), true},
		{header(":authority", match.Exact("SHOP.example").IgnoreCase()), true},
		{header("x-role", role), true},
		{header("x-none", match.Exact("")), false},
		{not(header("x-none", match.Exact("a"))), true},
		{Rule{Op: Path, Text: match.Exact("/cart/1")}, true},
		{Rule{Op: Path, Text: match.Suffix("z")}, false},
		{Rule{Op: Template, Template: tmpl}, true},
		{cidr(DestinationIP, "10.1.0.0/16"), true},
		{cidr(DestinationIP, "10.2.0.0/16"), false},
		{Rule{Op: DestinationPort, Ports: match.Ports{Lo: 8080, Hi: 8081}}, true},
		{Rule{Op: DestinationPort, Ports: match.Ports{Lo: 80, Hi: 8080}}, false},
		{Rule{Op: ServerName, Text: match.Prefix("outbound_.80_")}, true},
		{peer(match.Exact("spiffe://td/ns/a/sa/b")), true},
		{peer(match.Exact("spiffe://td/ns/a/sa/c")), false},
		{peer(match.Exact("b.a")), true},
		{peer(match.Exact("CN=b")), true},
		{peer(match.String{}), true},
		{cidr(DirectRemoteIP, "10.0.0.0/24"), true},
		{cidr(DirectRemoteIP, "192.0.2.0/24"), false},
		{cidr(RemoteIP, "192.0.2.0/24"), true},
		{cidr(RemoteIP, "10.0.0.0/24"), false},
		{Rule{Op: Metadata, Metadata: match.MetadataValue{Filter: "jwt", Path: []string{"iss"}}}, false},
	} {
		allow := compile(t, Allow, policyOf("p", tc.rule, anyone))
		if got := allow.Check(facts()).Allowed; got != tc.want {
			t.Errorf("ALLOW %s: allowed %v, want %v", tc.rule.String(), got, tc.want)
		}
		deny := compile(t, Deny, policyOf("p", anyone, tc.rule))
		if got := deny.Check(facts()).Allowed; got == tc.want {
			t.Errorf("DENY %s: allowed %v, want %v", tc.rule.String(), got, !tc.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	none := not(anyone)
	for _, tc := range []struct {
		rules *Rules
		want  Verdict
	}{
		{nil, Verdict{Allowed: true}},
		{compile(t, Allow), Verdict{Details: detailsNone}},
		{compile(t, Deny), Verdict{Allowed: true, Details: detailsNone}},
		{compile(t, Allow, policyOf("b", anyone, anyone), policyOf("a", anyone, anyone)),
			Verdict{Allowed: true, Policy: "a", Details: "rbac_access_denied_matched_policy[a]"}},
		{compile(t, Deny, policyOf("my policy\n", anyone, anyone)),
			Verdict{Policy: "my policy\n", Details: "rbac_access_denied_matched_policy[my_policy_]"}},
		{compile(t, Log, policyOf("l", anyone, anyone)), Verdict{Allowed: true, Policy: "l", Details: "rbac_access_denied_matched_policy[l]", Logged: true}},
		{compile(t, Log, policyOf("l", anyone, none)), Verdict{Allowed: true, Details: detailsNone}},
	} {
		if got := tc.rules.Check(facts()); got != tc.want {
			t.Errorf("got %+v, want %+v", got, tc.want)
		}
	}
}

// What a server may read in two ways must not open what one of them closes.
func TestHeaderInSeveralLines(t *testing.T) {
	f := facts()
	f.Request.Header.Add("x-role", "admin")
	admin, user := header("x-role", match.Exact("admin")), header("x-role", match.Exact("user"))
	joined := header("x-role", match.Exact("user,admin"))
	for _, tc := range []struct {
		action Action
		rule   Rule
		want   bool // allowed
	}{
		{Deny, admin, false},
		{Deny, user, false},
		{Deny, joined, false},
		{Deny, not(admin), false},
		{Deny, header("x-role", match.Exact("root")), true},
		{Allow, admin, false},
		{Allow, user, false},
		{Allow, joined, false},
		{Allow, not(admin), false},
		{Allow, not(header("x-role", match.Exact("root"))), true},
		{Allow, header("x-role", match.String{}), true},
		{Allow, not(not(admin)), false},
	} {
		r := compile(t, tc.action, policyOf("p", tc.rule, anyone))
		if got := r.Check(f).Allowed; got != tc.want {
			t.Errorf("%s %s: allowed %v", tc.action, tc.rule.String(), got)
		}
	}
}

// An identity that nobody has proved never widens access.
func TestIdentityOnPlaintext(t *testing.T) {
	f := facts()
	f.Verified = false // whatever was presented
	x := peer(match.Exact("spiffe://td/ns/a/sa/b"))
	some, _ := match.Regex(".+")
	for _, tc := range []struct {
		action Action
		rule   Rule
		want   bool
	}{
		{Allow, x, false}, {Allow, not(x), false}, {Allow, not(not(x)), false},
		{Allow, peer(match.String{}), false},
		{Allow, not(peer(some)), true}, // explicitly those without an identity
		{Deny, x, true}, {Deny, not(x), false},
		{Deny, not(peer(some)), false},
	} {
		r := compile(t, tc.action, policyOf("p", anyone, tc.rule))
		if got := r.Check(f).Allowed; got != tc.want {
			t.Errorf("%s %s: allowed %v", tc.action, tc.rule.String(), got)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	deep := anyone
	for range maxDepth + 1 {
		deep = not(deep)
	}
	for want, cfg := range map[string]*Config{
		"must not be empty": {Policies: []Policy{{Name: "p", Permissions: []Rule{anyone}}}},
		"there twice":       {Policies: []Policy{policyOf("p", anyone, anyone), policyOf("p", anyone, anyone)}},
		"no conditions":     {Policies: []Policy{policyOf("p", Rule{Op: And}, anyone)}},
		"want 1":            {Policies: []Policy{policyOf("p", Rule{Op: Not}, anyone)}},
		"nested more than":  {Policies: []Policy{policyOf("p", deep, anyone)}},
		"is missing":        {Policies: []Policy{policyOf("p", Rule{Op: Template}, anyone)}},
		"condition 99":      {Policies: []Policy{policyOf("p", Rule{Op: 99}, anyone)}},
		"action 7":          {Action: 7},
	} {
		if _, err := Compile(cfg, HTTP); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	for _, r := range []Rule{header("a", match.String{}), {Op: Path}, {Op: Template}} {
		_, err := Compile(&Config{Action: Deny, Policies: []Policy{policyOf("p", not(r), anyone)}}, Network)
		if err == nil || !strings.Contains(err.Error(), "HTTP requests") {
			t.Errorf("%s on a connection: %v", r.Op, err)
		}
	}
}

func TestExplain(t *testing.T) {
	r := compile(t, Allow,
		policyOf("a", header(":method", match.Exact("POST")), anyone),
		Policy{Name: "b", Source: "AuthorizationPolicy shop/b (b.yaml:3)", Permissions: []Rule{anyone},
			Principals: []Rule{peer(match.Prefix("spiffe://td/ns/z/")), cidr(RemoteIP, "10.0.0.0/8")}},
		policyOf("c", Rule{Op: And, Of: []Rule{anyone, not(header("x", match.Suffix("y")))}}, anyone),
		policyOf("d", anyone, anyone),
	)
	e := r.Explain(facts())
	const want = `allowed: policy c matches (ALLOW)
  a: no permission matches: header :method: exact "POST"
  b: no principal matches: authenticated prefix "spiffe://td/ns/z/" or remote ip in 10.0.0.0/8 [AuthorizationPolicy shop/b (b.yaml:3)]
  c: matches
`
	if got := e.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	if poolsForget {
		t.Skip("regular expressions are matched with what pools keep")
	}
	re, _ := match.Regex(`spiffe://.+/ns/a/(.+/|)sa/b(/.+)?`)
	r := compile(t, Deny, policyOf("a", header(":method", match.Exact("POST")), anyone),
		policyOf("b", Rule{Op: Path, Text: match.Prefix("/admin")}, anyone),
		policyOf("c", anyone, not(peer(re))), policyOf("d", anyone, cidr(RemoteIP, "10.0.0.0/8")))
	f := facts()
	if n := testing.AllocsPerRun(100, func() {
		if !r.Check(f).Allowed {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// bounds is the slow twin: what a rule says at least and at most, over all
// readings of each fact.
func bounds(r *Rule, f *Facts, action Action) (all, some bool) {
	switch r.Op {
	case And:
		all, some = true, true
		for i := range r.Of {
			a, s := bounds(&r.Of[i], f, action)
			all, some = all && a, some && s
		}
		return all, some
	case Or:
		for i := range r.Of {
			a, s := bounds(&r.Of[i], f, action)
			all, some = all || a, some || s
		}
		return all, some
	case Not:
		a, s := bounds(&r.Of[0], f, action)
		return !s, !a
	case Header:
		var values []string
		for _, field := range f.Request.Header.Fields() {
			if strings.EqualFold(field.Name, r.Header.Name) {
				values = append(values, field.Value)
			}
		}
		if len(values) == 0 {
			v := r.Header.MatchValue("", false)
			return v, v
		}
		all = true
		for _, v := range append(values, strings.Join(values, ",")) {
			m := r.Header.MatchValue(v, true)
			all, some = all && m, some || m
		}
		return all, some
	case Authenticated:
		if !f.Verified {
			return false, action == Allow
		}
		v := r.Text.Match(f.URISANs[0])
		return v, v
	}
	return true, true // Any
}

func randomRule(rng *rand.Rand, depth int) Rule {
	op := []Op{Header, Authenticated, Any, Header, Not, And, Or}[rng.IntN(4+min(depth, 1)*3)]
	switch op {
	case And, Or:
		r := Rule{Op: op}
		for range 1 + rng.IntN(3) {
			r.Of = append(r.Of, randomRule(rng, depth-1))
		}
		return r
	case Not:
		return not(randomRule(rng, depth-1))
	case Header:
		r := header([]string{"x", "y"}[rng.IntN(2)], match.Exact([]string{"", "a", "b", "a,b"}[rng.IntN(4)]))
		r.Header.Invert, r.Header.MissingIsEmpty = rng.IntN(2) == 0, rng.IntN(2) == 0
		return r
	case Authenticated:
		return peer(match.Exact([]string{"p", "q"}[rng.IntN(2)]))
	}
	return anyone
}

func FuzzCheckAgreesWithSlowTwin(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		rng := rand.New(rand.NewPCG(a, b))
		r := &message.Request{Method: "GET", Path: "/"}
		for range rng.IntN(4) {
			r.Header.Add([]string{"x", "X", "y"}[rng.IntN(3)], []string{"", "a", "b"}[rng.IntN(3)])
		}
		facts := &Facts{Request: r, Verified: rng.IntN(2) == 0, URISANs: []string{[]string{"p", "q"}[rng.IntN(2)]}}
		rule := randomRule(rng, 3)
		for _, action := range []Action{Allow, Deny} {
			got := compile(t, action, policyOf("p", rule, anyone)).Check(facts).Allowed
			all, some := bounds(&rule, facts, action)
			if want := action == Allow && all || action == Deny && !some; got != want {
				t.Errorf("%s %s on %v: allowed %v, twin says %v", action, rule.String(), r.Header.Fields(), got, want)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	var policies []Policy
	for i := range 20 {
		policies = append(policies, policyOf(strings.Repeat("p", i+1), Rule{Op: Path, Text: match.Prefix("/admin")}, anyone))
	}
	r := compile(b, Deny, policies...)
	f := facts()
	for b.Loop() {
		r.Check(f)
	}
}
