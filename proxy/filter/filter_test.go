// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/meltemi/meltemi/proxy/fault"
)

// recorder is a filter that writes down when it is called.
type recorder struct {
	name  string
	log   *[]string
	fault *fault.Fault
	reply int
	grant bool
}

func (t *recorder) OnRequest(x *Exchange) *fault.Fault {
	*t.log = append(*t.log, t.name+" request")
	if t.grant {
		x.Grant()
	}
	if t.reply != 0 {
		x.Answer(t.reply, "", "")
	}
	return t.fault
}
func (t *recorder) OnResponse(*Exchange) { *t.log = append(*t.log, t.name+" response") }
func (t *recorder) OnEnd(*Exchange)      { *t.log = append(*t.log, t.name+" end") }

type guard struct{ recorder }

func (*guard) Guards() {}

func TestChainOrder(t *testing.T) {
	var log []string
	a, b, c := &recorder{name: "a", log: &log}, &recorder{name: "b", log: &log}, &recorder{name: "c", log: &log}
	chain, err := NewChain(Open, Entry{Name: "a", Filter: a}, Entry{Name: "b", Filter: b}, Entry{Name: "c", Filter: c, Disabled: true})
	if err != nil {
		t.Fatal(err)
	}
	x := new(Exchange)
	if p, f := chain.Admit(x); f != nil || !p.Valid() {
		t.Fatalf("not admitted: %v", f)
	}
	chain.Respond(x)
	chain.End(x)
	want := []string{"a request", "b request", "b response", "a response", "b end", "a end"}
	if !slices.Equal(log, want) {
		t.Errorf("got %v, want %v", log, want)
	}
	log = nil
	x.Prepare(nil, []Setting{{Name: "c"}, {Name: "a", Disabled: true}})
	chain.Admit(x)
	if want := []string{"b request", "c request"}; !slices.Equal(log, want) {
		t.Errorf("with settings: got %v, want %v", log, want)
	}
}

func TestAnswerStopsTheChain(t *testing.T) {
	var log []string
	chain, err := NewChain(Open, Entry{Name: "a", Filter: &recorder{name: "a", log: &log, reply: 200}},
		Entry{Name: "b", Filter: &recorder{name: "b", log: &log}})
	if err != nil {
		t.Fatal(err)
	}
	x := new(Exchange)
	if p, f := chain.Admit(x); p.Valid() || f != nil || x.Local.Status != 200 {
		t.Errorf("permit %v, fault %v, answer %d", p, f, x.Local.Status)
	}
	if len(log) != 1 {
		t.Errorf("called %v", log)
	}
}

func TestPermit(t *testing.T) {
	var log []string
	plain := Entry{Name: "plain", Filter: &recorder{name: "plain", log: &log}}
	yes := Entry{Name: "yes", Filter: &guard{recorder{name: "yes", log: &log, grant: true}}}
	silent := Entry{Name: "silent", Filter: &guard{recorder{name: "silent", log: &log}}}
	for _, c := range []struct {
		name    string
		access  Access
		entries []Entry
		builds  bool
		permits bool
	}{
		{"unsaid", 0, []Entry{plain}, false, false},
		{"open", Open, []Entry{plain}, true, true},
		{"open with a guard", Open, []Entry{yes}, false, false},
		{"guarded by none", Guarded, []Entry{plain}, false, false},
		{"guarded", Guarded, []Entry{plain, yes}, true, true},
		{"one guard is silent", Guarded, []Entry{yes, silent}, true, false},
	} {
		chain, err := NewChain(c.access, c.entries...)
		if (err == nil) != c.builds {
			t.Errorf("%s: error %v", c.name, err)
			continue
		}
		if err != nil {
			continue
		}
		p, f := chain.Admit(new(Exchange))
		if p.Valid() != c.permits || (f == nil) != c.permits {
			t.Errorf("%s: permit %v, fault %v", c.name, p, f)
		}
	}
	if (Permit{}).Valid() {
		t.Error("a permit out of nothing is valid")
	}
}

func TestFlags(t *testing.T) {
	for flags, want := range map[Flags]string{
		0: "-", NoRouteFound: "NR", UpstreamRetryLimitExceeded | UpstreamConnectionFailure: "URX,UF",
		UnconditionalDropOverload: "UDO", UpstreamRequestTimeout: "UT",
	} {
		if got := flags.String(); got != want {
			t.Errorf("%d = %q, want %q", flags, got, want)
		}
		for _, short := range strings.Split(want, ",") {
			if short != "-" && !flags.Has(ParseFlag(short)) {
				t.Errorf("ParseFlag(%s) is not in %s", short, want)
			}
		}
	}
	for i, n := range flagNames {
		if n.short == "" || !unicode.IsUpper(rune(n.long[0])) {
			t.Errorf("flag %d has no name", i)
		}
	}
}

func TestPeerSurvivesTheWire(t *testing.T) {
	p := &Peer{ID: "sidecar~10.0.0.1~a-1.shop~shop.svc.cluster.local", Name: "a-1", Namespace: "shop", Workload: "a",
		WorkloadType: "deployment", Cluster: "Kubernetes", Identity: "spiffe://cluster.local/ns/shop/sa/a", CanonicalName: "a",
		CanonicalRevision: "v1", App: "a", Version: "v1", Region: "r", Zone: "z", Labels: map[string]string{"tier": "front"}}
	got, err := DecodePeer(p.ID, p.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got.Labels["tier"] != "front" {
		t.Errorf("labels = %v", got.Labels)
	}
	got.Labels = p.Labels
	if gotText, want := got.Struct().String(), p.Struct().String(); gotText != want && string(got.Encode()) != string(p.Encode()) {
		t.Errorf("got %s, want %s", gotText, want)
	}
	if got.WorkloadType != "deployment" || got.Workload != "a" {
		t.Errorf("owner read as %s %s", got.WorkloadType, got.Workload)
	}
	if _, err := DecodePeer("", make([]byte, maxPeerBytes+1)); err == nil {
		t.Error("a huge peer was read")
	}
	if _, err := DecodePeer("", []byte{0xff, 0xff}); err == nil {
		t.Error("rubbish was read")
	}
}

func TestPeersForget(t *testing.T) {
	var c Peers
	p := &Peer{}
	for i := range 3 * maxPeers {
		c.Put(strings.Repeat("x", i+1), "raw", p)
	}
	if n := len(*c.known.Load()); n > maxPeers {
		t.Errorf("%d are remembered, want at most %d", n, maxPeers)
	}
	c.Put("id", "one", p)
	if c.Get("id", "one") != p || c.Get("id", "two") != nil {
		t.Error("a peer that tells something else is taken for the old one")
	}
}

func FuzzDecodePeer(f *testing.F) {
	f.Add((&Peer{Name: "a", Workload: "b", WorkloadType: "job", Namespace: "c"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := DecodePeer("id", b); err == nil {
			p.Encode()
		}
	})
}
