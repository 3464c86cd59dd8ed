// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
)

// holder notes what it was asked to wait for.
type holder struct {
	held time.Duration
	gone *fault.Fault
}

func (h *holder) Hold(d time.Duration) *fault.Fault {
	h.held += d
	return h.gone
}

func exchange() *filter.Exchange {
	x := new(filter.Exchange)
	x.Reset()
	x.Conn = &filter.Conn{ID: 1, Direction: filter.Inbound, Remote: netip.MustParseAddrPort("10.0.0.9:1234")}
	x.Request = &message.Request{Version: message.HTTP11, Method: "GET", Scheme: "http", Authority: "a.shop.svc:80", Path: "/"}
	x.Start = time.Now()
	return x
}

// admit runs one filter alone.
func admit(t *testing.T, f filter.Filter, x *filter.Exchange, settings ...filter.Setting) (*filter.Chain, *fault.Fault) {
	t.Helper()
	access := filter.Open
	if _, ok := f.(filter.Guard); ok {
		access = filter.Guarded
	}
	chain, err := filter.NewChain(access, filter.Entry{Name: "it", Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	h := new(holder)
	x.Prepare(h, settings)
	_, fl := chain.Admit(x)
	return chain, fl
}

func TestFaultDelaysThenAborts(t *testing.T) {
	all := route.Fraction{Of: 100, Per: 100}
	in := &Injection{Delay: time.Second, DelayShare: all, Abort: true, AbortShare: all, Status: 555, GRPC: -1}
	x := exchange()
	h := new(holder)
	x.Prepare(h, nil)
	f := NewFault(in).OnRequest(x)
	if h.held != time.Second || f == nil || f.Status != 555 || f.Kind != fault.Injected || !x.Flags.Has(filter.DelayInjected) {
		t.Errorf("held %v, fault %v, flags %v", h.held, f, x.Flags)
	}
	if f := NewFault(in); f.OnRequest(x) == nil || f.active.Load() != 0 {
		t.Error("the count of active faults does not return to 0")
	}
	x = exchange()
	x.GRPC = true
	in = &Injection{Abort: true, AbortShare: all, GRPC: 14}
	if _, f := admit(t, NewFault(in), x); f != nil || x.Local.Status != 200 || x.Response.Header.Get("grpc-status") != "14" {
		t.Errorf("gRPC abort: %v %v", f, x.Response.Header.Fields())
	}
}

func TestFaultShares(t *testing.T) {
	in := &Injection{Abort: true, AbortShare: route.Fraction{Of: 25, Per: 100}, Status: 500, GRPC: -1}
	f := NewFault(in)
	hits := 0
	for i := range 1000 {
		x := exchange()
		x.Random = uint64(i)
		if f.OnRequest(x) != nil {
			hits++
		}
	}
	if hits != 250 {
		t.Errorf("%d of 1000 aborted, want 250", hits)
	}
}

func TestFaultOfRouteReplacesTheFilters(t *testing.T) {
	all := route.Fraction{Of: 1, Per: 1}
	own := &Injection{Abort: true, AbortShare: all, Status: 500, GRPC: -1}
	if _, f := admit(t, NewFault(own), exchange(), filter.Setting{Name: "it", Value: &Injection{GRPC: -1}}); f != nil {
		t.Errorf("the filter's own abort was used: %v", f)
	}
	only := &Injection{Abort: true, AbortShare: all, Status: 500, GRPC: -1,
		Headers: []match.Header{{Name: "end-user", Test: match.HeaderPresent}}}
	if _, f := admit(t, NewFault(nil), exchange(), filter.Setting{Name: "it", Value: only}); f != nil {
		t.Errorf("a request without the header was aborted: %v", f)
	}
}

func TestCORS(t *testing.T) {
	policy := func(forward bool) filter.Setting {
		return filter.Setting{Name: "it", Value: &CORSPolicy{Origins: []match.String{match.Exact("https://good.example")},
			Methods: "GET,POST", Headers: "x-a", Expose: "x-b", MaxAge: "60", Credentials: true, ForwardNotMatching: forward}}
	}
	request := func(origin string, preflight bool) *filter.Exchange {
		x := exchange()
		x.Request.Header.Add("Origin", origin)
		if preflight {
			x.Request.Method = "OPTIONS"
			x.Request.Header.Add("Access-Control-Request-Method", "POST")
		}
		return x
	}
	for _, c := range []struct {
		name      string
		x         *filter.Exchange
		forward   bool
		answered  bool
		allow     string
		methods   string
		expose    string
		noSetting bool
	}{
		{name: "preflight", x: request("https://good.example", true), answered: true, allow: "https://good.example", methods: "GET,POST", expose: "x-b"},
		{name: "preflight of another, forwarded", x: request("https://evil.example", true), forward: true},
		{name: "preflight of another, answered", x: request("https://evil.example", true), answered: true},
		{name: "simple", x: request("https://good.example", false), allow: "https://good.example", expose: "x-b"},
		{name: "simple of another", x: request("https://evil.example", false)},
		{name: "no policy", x: request("https://good.example", true), noSetting: true},
	} {
		settings := []filter.Setting{policy(c.forward)}
		if c.noSetting {
			settings = nil
		}
		chain, f := admit(t, CORS{}, c.x, settings...)
		if f != nil || (c.x.Local.Status == 200) != c.answered {
			t.Errorf("%s: fault %v, answer %d", c.name, f, c.x.Local.Status)
		}
		c.x.Details = c.x.Local.Details
		chain.Respond(c.x)
		h := &c.x.Response.Header
		if h.Get("access-control-allow-origin") != c.allow || h.Get("access-control-allow-methods") != c.methods ||
			h.Get("access-control-expose-headers") != c.expose {
			t.Errorf("%s: response has %v", c.name, h.Fields())
		}
	}
}

var self = &filter.Peer{ID: "sidecar~10.0.0.1~b-1.shop~shop.svc.cluster.local", Name: "b-1", Namespace: "shop", Workload: "b",
	WorkloadType: "deployment", Cluster: "c1", Identity: "spiffe://cluster.local/ns/shop/sa/b", CanonicalName: "b",
	CanonicalRevision: "v1", App: "b", Version: "v1", Labels: map[string]string{"tier": "x", "secret": "y"}}

var caller = &filter.Peer{ID: "sidecar~10.0.0.9~a-1.shop~shop.svc.cluster.local", Name: "a-1", Namespace: "shop", Workload: "a",
	WorkloadType: "deployment", Cluster: "c1", CanonicalName: "a", CanonicalRevision: "v2", App: "a", Version: "v2"}

func TestPeerMetadata(t *testing.T) {
	peers := new(filter.Peers)
	client := NewPeerMetadata(PeerMetadataConfig{Upstream: []Discovery{FromHeaders}, TellUpstream: true, SkipExternal: true, Labels: []string{"tier"}}, self, peers, nil)
	server := NewPeerMetadata(PeerMetadataConfig{Downstream: []Discovery{FromHeaders, FromAddress}, TellDownstream: true}, caller, peers, func(a netip.Addr) *filter.Peer {
		if a == netip.MustParseAddr("10.0.0.9") {
			return caller
		}
		return nil
	})

	x := exchange()
	x.Upstream.Spec = &upstream.Spec{Name: "outbound|80||x", External: true}
	client.OnRequest(x)
	if x.Request.Header.Has(peerHeader) {
		t.Error("told an external cluster who we are")
	}
	x.Upstream.Spec = &upstream.Spec{Name: "outbound|80||b"}
	client.OnRequest(x)
	if !x.Request.Header.Has(peerHeader) || x.Request.Header.Get(peerIDHeader) != self.ID {
		t.Fatal("did not tell who we are")
	}

	in := exchange()
	in.Request.Header.CopyFrom(&x.Request.Header)
	server.OnRequest(in)
	if in.DownstreamPeer == nil || in.DownstreamPeer.Workload != "b" || in.DownstreamPeer.Labels["tier"] != "x" || in.DownstreamPeer.Labels["secret"] != "" {
		t.Errorf("learned %+v", in.DownstreamPeer)
	}
	if in.Request.Header.Has(peerHeader) || in.Request.Header.Has(peerIDHeader) {
		t.Error("metadata was passed on")
	}
	server.OnResponse(in)
	if in.Response.Header.Get(peerIDHeader) != caller.ID {
		t.Error("the client was not told")
	}
	x.Response.Header.CopyFrom(&in.Response.Header)
	x.Upstream.Endpoint = &upstream.Endpoint{}
	client.OnResponse(x)
	if x.UpstreamPeer == nil || x.UpstreamPeer.Workload != "a" || x.Response.Header.Has(peerHeader) {
		t.Errorf("learned %+v of the upstream", x.UpstreamPeer)
	}

	quiet := exchange()
	server.OnRequest(quiet)
	server.OnResponse(quiet)
	if quiet.DownstreamPeer != caller || quiet.Response.Header.Has(peerHeader) {
		t.Error("by address: not found, or told a client that did not ask")
	}
}

func TestRBAC(t *testing.T) {
	rules, err := authz.Compile(&authz.Config{Action: authz.Deny, Policies: []authz.Policy{{
		Name:        "ns[shop]-policy[no posts]-rule[0]",
		Permissions: []authz.Rule{{Op: authz.Header, Header: match.Header{Name: ":method", Test: match.HeaderString, Value: match.Exact("POST")}}},
		Principals:  []authz.Rule{{Op: authz.Any}},
	}}}, authz.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	reg := telemetry.NewRegistry(telemetry.Config{})
	f := NewRBAC(RBACConfig{Rules: rules, Shadow: rules, ShadowPrefix: "istio_dry_run_deny_", Manager: "inbound_0.0.0.0_80;"}, reg)
	get, post := exchange(), exchange()
	post.Request.Method = "POST"
	get.Facts.Request, post.Facts.Request = get.Request, post.Request
	if _, fl := admit(t, f, get); fl != nil {
		t.Errorf("GET: %v", fl)
	}
	_, fl := admit(t, f, post)
	if fl == nil || fl.Kind != fault.Denied || fl.Details != "rbac_access_denied_matched_policy[ns[shop]-policy[no_posts]-rule[0]]" {
		t.Errorf("POST: %+v", fl)
	}
	var page strings.Builder
	if err := telemetry.WritePrometheus(&page, reg.Gather()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`envoy_http_rbac{http_conn_manager_prefix="inbound_0.0.0.0_80;",authz_enforce_result="denied"} 1`,
		`envoy_http_rbac_istio_dry_run_shadow{http_conn_manager_prefix="inbound_0.0.0.0_80;",authz_dry_run_action="deny",authz_dry_run_result="allowed"} 1`,
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %s in\n%s", want, page.String())
		}
	}
}

func TestTableNamesWhatIsThere(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Table() {
		if k.Name == "" || k.TypeURL == "" || k.Summary == "" || k.Category == "" || seen[k.Category+k.Name] {
			t.Errorf("row %+v", k)
		}
		seen[k.Category+k.Name] = true
	}
}
