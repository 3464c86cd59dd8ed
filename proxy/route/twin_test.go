// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// slowMatch is the twin: it reads the configuration as its documentation says,
// every time anew, and shares no code with Match. It returns the names of the
// virtual host and the route, and the choice.
func slowMatch(cfg *Config, r *message.Request, f *Facts) (vhost, route string, choice int) {
	host := strings.ToLower(r.Authority)
	if cfg.IgnorePort {
		if m := regexp.MustCompile(`^(.*):[^\]:]*$`).FindStringSubmatch(host); m != nil {
			host = m[1]
		}
	}
	var best *VirtualHost
	rank := -1
	for i := range cfg.VirtualHosts {
		for _, d := range cfg.VirtualHosts[i].Domains {
			d = strings.ToLower(d)
			n := -1
			switch {
			case d == "*":
				n = 0
			case d == host:
				n = 3000
			case d[0] == '*' && len(host) >= len(d) && strings.HasSuffix(host, d[1:]):
				n = 2000 + len(d)
			case d[0] != '*' && strings.HasSuffix(d, "*") && len(host) >= len(d) && strings.HasPrefix(host, d[:len(d)-1]):
				n = 1000 + len(d)
			}
			if n > rank {
				best, rank = cfg.VirtualHosts[i], n
			}
		}
	}
	if best == nil {
		return "", "", -1
	}
	for i := range best.Routes {
		rt := &best.Routes[i]
		if slowRoute(rt, r, f) {
			return best.Name, rt.Name, slowChoice(rt.Forward, f)
		}
	}
	return best.Name, "", -1
}

func slowChoice(f *Forward, facts *Facts) int {
	var tickets []int
	for i, c := range f.Clusters {
		for range c.Weight {
			tickets = append(tickets, i)
		}
	}
	if len(f.Clusters) == 1 {
		return 0
	}
	return tickets[facts.Random%uint64(len(tickets))]
}

func slowRoute(rt *Route, r *message.Request, f *Facts) bool {
	path, _, _ := strings.Cut(r.Path, "#")
	path, query, _ := strings.Cut(path, "?")
	p := rt.Match.Path
	a, b := path, p.Value
	if p.IgnoreCase && p.Kind != PathRegex {
		a, b = strings.ToLower(a), strings.ToLower(b)
	}
	ok := false
	switch p.Kind {
	case PathPrefix:
		ok = strings.HasPrefix(a, b)
	case PathExact:
		ok = a == b
	case PathSegments:
		ok = a == b || strings.HasPrefix(a, b+"/")
	case PathRegex:
		ok = regexp.MustCompile("^(?:" + b + ")$").MatchString(a)
	}
	if !ok || a == "" {
		return false
	}
	for _, h := range rt.Match.Headers {
		var lines []string
		for _, field := range r.Header.Fields() {
			if strings.EqualFold(field.Name, h.Name) {
				lines = append(lines, field.Value)
			}
		}
		if h.Test == match.HeaderPresent {
			if (len(lines) > 0) == h.Invert {
				return false
			}
		} else if len(lines) == 0 || slices.Contains(lines, h.Value.Value()) == h.Invert {
			return false
		}
	}
	for _, q := range rt.Match.Query {
		found := false
		for pair := range strings.SplitSeq(query, "&") {
			if key, value, _ := strings.Cut(pair, "="); key == q.Name {
				found = value == q.Value.Value()
				break
			}
		}
		if !found {
			return false
		}
	}
	if fr := rt.Match.Fraction; fr != nil && f.Random%uint64(fr.Per) >= uint64(fr.Of) {
		return false
	}
	return true
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func randomConfig(rng *rand.Rand) *Config {
	cfg := &Config{IgnorePort: rng.IntN(2) == 0}
	taken := map[string]bool{}
	for i := range 1 + rng.IntN(4) {
		vh := &VirtualHost{Name: fmt.Sprint("vh", i)}
		for range 1 + rng.IntN(3) {
			d := pick(rng, "", "*", "*.") + pick(rng, "a.b", "b", "a.b:80", "A.B.c", "b.c") + pick(rng, "", "", ".*")
			if strings.HasPrefix(d, "*") && strings.HasSuffix(d, "*") {
				d = "*"
			}
			if k := strings.ToLower(d); !taken[k] {
				taken[k] = true
				vh.Domains = append(vh.Domains, d)
			}
		}
		if len(vh.Domains) == 0 {
			continue
		}
		for j := range rng.IntN(5) {
			vh.Routes = append(vh.Routes, randomRoute(rng, fmt.Sprint("r", j)))
		}
		cfg.VirtualHosts = append(cfg.VirtualHosts, vh)
	}
	return cfg
}

func randomRoute(rng *rand.Rand, name string) Route {
	m := Match{Path: PathMatch{Kind: pick(rng, PathPrefix, PathExact, PathSegments, PathRegex), Value: pick(rng, "/a", "/A/b", "/ab", "/a/b"), IgnoreCase: rng.IntN(3) == 0}}
	if m.Path.Kind == PathRegex {
		m.Path.Value = pick(rng, "/a.*", "/a|/ab", "/[ab]+")
	}
	if rng.IntN(3) == 0 {
		m.Headers = append(m.Headers, match.Header{Name: pick(rng, "x", "Y"), Test: pick(rng, match.HeaderPresent, match.HeaderString),
			Value: match.Exact(pick(rng, "", "1", "1,2")), Invert: rng.IntN(2) == 0})
	}
	if rng.IntN(4) == 0 {
		m.Query = append(m.Query, match.Query{Name: pick(rng, "q", "p"), Value: match.Exact(pick(rng, "", "1"))})
	}
	if rng.IntN(5) == 0 {
		m.Fraction = &Fraction{uint32(rng.IntN(5)), 4}
	}
	f := to("c0")
	for i := range rng.IntN(3) {
		f.Clusters = append(f.Clusters, Weighted{Cluster: fmt.Sprint("c", i+1), Weight: uint32(rng.IntN(3) + 1)})
	}
	return Route{Name: name, Match: m, Forward: f}
}

func FuzzMatchAgreesWithSlowTwin(f *testing.F) {
	f.Add(uint64(1), "a.b", "/a/b?q=1", "1")
	f.Add(uint64(2), "x.A.b:80", "/ab?p#x", "")
	f.Add(uint64(3), "[::1]:80", "", "2")
	f.Fuzz(func(t *testing.T, seed uint64, authority, path, value string) {
		for _, c := range []byte(authority + path) {
			if c <= ' ' || c >= 0x7f { // codecs refuse these; the twin's lower-casing differs
				t.Skip()
			}
		}
		rng := rand.New(rand.NewPCG(seed, 7))
		cfg := randomConfig(rng)
		r := get(authority, path)
		for range rng.IntN(3) {
			r.Header.Add(pick(rng, "x", "X", "y"), pick(rng, "1", "2", value))
		}
		facts := &Facts{Random: seed}
		table := compile(t, cfg)
		d := table.Match(r, facts)
		vhost, route, choice := slowMatch(cfg, r, facts)
		got := [3]any{"", "", -1}
		if d.Host != nil {
			got[0] = d.Host.Name
		}
		if d.Route != nil {
			got[1], got[2] = d.Route.Name, d.Choice
		}
		if want := [3]any{vhost, route, choice}; got != want {
			t.Errorf("%s %s %v: %v, the twin says %v\n%s", authority, path, r.Header.Fields(), got, want, table.explainString(r, facts))
		}
		if e := table.Explain(r, facts); e.Decision != d {
			t.Errorf("Explain decides %+v, Match %+v", e.Decision, d)
		}
	})
}

func (t *Table) explainString(r *message.Request, f *Facts) string {
	e := t.Explain(r, f)
	return e.String()
}

// bigTable has 1,000 virtual hosts of 10 routes each.
func bigTable(t testing.TB) *Table {
	cfg := &Config{Name: "80", IgnorePort: true}
	for i := range 1000 {
		name := fmt.Sprintf("svc-%d.ns-%d.svc.cluster.local", i, i%50)
		vh := &VirtualHost{Name: name + ":80", Domains: []string{name, name + ".", fmt.Sprintf("svc-%d", i), fmt.Sprintf("*.w%d.example", i)}}
		for j := range 9 {
			vh.Routes = append(vh.Routes, prefix(fmt.Sprintf("/api/v%d", j), fmt.Sprintf("c-%d-%d", i, j)))
		}
		f := to("default")
		f.Clusters = append(f.Clusters, Weighted{Cluster: "canary", Weight: 10})
		f.Clusters[0].Weight = 90
		f.Hash = []HashPolicy{{Kind: HashHeader, Name: "x-user"}, {Kind: HashSourceIP}}
		vh.Routes = append(vh.Routes, Route{Match: Match{Path: PathMatch{Value: "/"},
			Headers: []match.Header{{Name: "x-user", Test: match.HeaderString, Value: match.Prefix("a")}}}, Forward: f})
		cfg.VirtualHosts = append(cfg.VirtualHosts, vh)
	}
	return compile(t, cfg)
}

func bigRequest() *message.Request {
	r := get("SVC-777.ns-27.svc.cluster.local:80", "/cart/17?lang=en")
	for _, f := range []string{"user-agent", "accept", "x-request-id", "x-forwarded-proto", "x-user"} {
		r.Header.Add(f, "ann")
	}
	return r
}

func TestMatchDoesNotAllocate(t *testing.T) {
	table, r, f := bigTable(t), bigRequest(), &Facts{Random: 95}
	client := netip.MustParseAddrPort("192.0.2.1:1")
	if n := testing.AllocsPerRun(100, func() {
		d := table.Match(r, f)
		if d.Kind != ToCluster || !d.Hash(r, client, client).OK {
			t.Fatal("no match")
		}
		table.Rewrite(&d, r, nil)
		table.ResponseHeaders(&d, &r.Header, nil)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	table, r, f := bigTable(b), bigRequest(), &Facts{Random: 95}
	b.ReportAllocs()
	for b.Loop() {
		table.Match(r, f)
	}
}

func BenchmarkCompile(b *testing.B) {
	cfg := bigTable(b).Config()
	for b.Loop() {
		if _, err := Compile(cfg); err != nil {
			b.Fatal(err)
		}
	}
}
