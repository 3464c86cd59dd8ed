// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/meltemi/meltemi/netio"
)

// start serves cfg on a free port and returns its address.
func start(t *testing.T, change func(*Config)) (*Server, string) {
	t.Helper()
	cfg := Defaults()
	cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	cfg.Scope = Scope{Namespace: "default", Search: "corp.internal"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := s.Open(t.Context())
	for range 20 { // TCP's port of the number UDP was given may be taken
		if err == nil {
			break
		}
		sockets, err = s.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, sockets...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, sockets[0].UDP.LocalAddr().String()
}

// ask asks over network and returns the answer.
func ask(t *testing.T, network, server, name string, qtype uint16, change ...func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	for _, f := range change {
		f(m)
	}
	c := dns.Client{Net: network, Timeout: 20 * time.Second}
	r, _, err := c.ExchangeContext(t.Context(), m, server)
	if err != nil {
		t.Fatalf("%s %s over %s: %v", name, dns.TypeToString[qtype], network, err)
	}
	return r
}

func addrsOf(m *dns.Msg) (as []string) {
	for _, rr := range m.Answer {
		switch v := rr.(type) {
		case *dns.A:
			as = append(as, v.A.String())
		case *dns.AAAA:
			as = append(as, v.AAAA.String())
		case *dns.CNAME:
			as = append(as, "="+v.Target)
		}
	}
	return as
}

func TestAnswersFromTheTable(t *testing.T) {
	s, addr := start(t, nil)
	s.Swap(shop())
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name  string
			qtype uint16
			rcode int
			want  string
		}{
			{"reviews.", dns.TypeA, dns.RcodeSuccess, "[10.96.0.1]"},
			{"ReViews.Default.", dns.TypeAAAA, dns.RcodeSuccess, "[fd00::1]"},
			{"ratings.other.", dns.TypeAAAA, dns.RcodeSuccess, "[]"}, // known, no IPv6
			{"empty.example.com.", dns.TypeA, dns.RcodeSuccess, "[]"},
			{"reviews.corp.internal.", dns.TypeA, dns.RcodeSuccess, "[=reviews. 10.96.0.1]"},
			{"nobody.example.org.", dns.TypeA, dns.RcodeNameError, "[]"}, // no resolvers configured
			{"reviews.", dns.TypeMX, dns.RcodeSuccess, "[]"},
			{"nobody.example.org.", dns.TypeMX, dns.RcodeNameError, "[]"},
		} {
			r := ask(t, network, addr, c.name, c.qtype)
			if got := fmt.Sprint(addrsOf(r)); r.Rcode != c.rcode || got != c.want {
				t.Errorf("%s %s: %s %s, want %s %s", c.name, dns.TypeToString[c.qtype], dns.RcodeToString[r.Rcode], got, dns.RcodeToString[c.rcode], c.want)
			}
			for _, rr := range r.Answer {
				if rr.Header().Ttl != 30 || !r.Authoritative {
					t.Errorf("%s: %v", c.name, rr)
				}
			}
			if r.Question[0].Name != c.name {
				t.Errorf("asked %s, answered %s", c.name, r.Question[0].Name)
			}
		}
	}
}

func TestAddressesTakeTurns(t *testing.T) {
	s, addr := start(t, nil)
	s.Swap(shop())
	first := map[string]int{}
	for range 30 {
		as := addrsOf(ask(t, "udp", addr, "api.example.com.", dns.TypeA))
		if len(as) != 3 {
			t.Fatalf("got %v", as)
		}
		first[as[0]]++
	}
	for a, n := range first {
		if n != 10 {
			t.Errorf("%s came first %d times of 30", a, n)
		}
	}
}

func TestFailsBeforeTheFirstTable(t *testing.T) {
	s, addr := start(t, nil)
	if r := ask(t, "udp", addr, "reviews.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s", dns.RcodeToString[r.Rcode])
	}
	if s.Ready() {
		t.Error("ready without a table")
	}
	s.Swap(NewTable(nil))
	if r := ask(t, "udp", addr, "reviews.", dns.TypeA); r.Rcode != dns.RcodeNameError || !s.Ready() {
		t.Errorf("got %s", dns.RcodeToString[r.Rcode])
	}
}

func TestSizeLimits(t *testing.T) {
	s, addr := start(t, nil)
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	s.Swap(NewTable([]Entry{{Host: "many.example", Addrs: many}}))
	plain := ask(t, "udp", addr, "many.example.", dns.TypeA)
	plain.Compress = true
	if !plain.Truncated || plain.Len() > 512 {
		t.Errorf("plain UDP: %d bytes, truncated %v", plain.Len(), plain.Truncated)
	}
	edns := ask(t, "udp", addr, "many.example.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, true) })
	if edns.Truncated || len(edns.Answer) != 200 {
		t.Errorf("EDNS 4096: %d answers, truncated %v", len(edns.Answer), edns.Truncated)
	}
	if o := edns.IsEdns0(); o == nil || !o.Do() {
		t.Error("EDNS was not answered in kind")
	}
	if tcp := ask(t, "tcp", addr, "many.example.", dns.TypeA); tcp.Truncated || len(tcp.Answer) != 200 {
		t.Errorf("TCP: %d answers", len(tcp.Answer))
	}
}

func TestMalformed(t *testing.T) {
	s, addr := start(t, nil)
	s.Swap(shop())
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		rcode  int
	}{
		"two questions": {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"no question":   {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"update":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"edns version": {func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.IsEdns0().SetVersion(3)
		}, dns.RcodeBadVers},
	} {
		if r := ask(t, "tcp", addr, "reviews.", dns.TypeA, c.change); r.Rcode != c.rcode {
			t.Errorf("%s: %s", name, dns.RcodeToString[r.Rcode])
		}
	}
	// Answers sent to us are not answered, and garbage of a header's length is a format error.
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write([]byte{9, 9, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1})
	_, _ = c.Write([]byte{1})
	_, _ = c.Write([]byte{7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63})
	buf := make([]byte, 512)
	if n, err := c.Read(buf); err != nil || n != 12 || buf[0] != 7 || rcode(buf) != dns.RcodeFormatError {
		t.Errorf("got % x, %v", buf[:n], err)
	}
}

// resolver is an upstream made of a handler.
func resolver(t *testing.T, h dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	for range 20 { // TCP's port of the number UDP was given may be taken
		if err == nil {
			break
		}
		_ = udp.Close()
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		tcp, err = net.Listen("tcp", udp.LocalAddr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{PacketConn: udp, Handler: h}, {Listener: tcp, Handler: h}} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() { _ = srv.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return netio.AddrPortOf(udp.LocalAddr())
}

func TestForwardsTheRest(t *testing.T) {
	var asked atomic.Int32
	up := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		switch name := q.Question[0].Name; {
		case name == "gone.example.org." || strings.HasPrefix(name, "reviews."):
			m.Rcode = dns.RcodeNameError
		case name == "big.example.org." && w.RemoteAddr().Network() == "udp":
			m.Truncated = true
		default:
			if o := q.IsEdns0(); o != nil {
				m.Extra = append(m.Extra, o) // options come back as they went out
			}
			rr, _ := dns.NewRR(name + " 77 IN TXT \"from upstream\"")
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})
	dead := netip.MustParseAddrPort("127.0.0.1:1")
	s, addr := start(t, func(c *Config) { c.Upstream = []netip.AddrPort{dead, up} })
	s.Swap(shop())
	for _, network := range []string{"udp", "tcp"} {
		r := ask(t, network, addr, "WWW.example.org.", dns.TypeTXT, func(m *dns.Msg) {
			m.SetEdns0(1400, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
		})
		if len(r.Answer) != 1 || r.Answer[0].Header().Ttl != 77 || r.Answer[0].Header().Name != "WWW.example.org." {
			t.Errorf("%s: %v", network, r)
		}
		if o := r.IsEdns0(); o == nil || len(o.Option) != 1 || o.UDPSize() != 1400 {
			t.Errorf("%s: EDNS was changed: %v", network, o)
		}
		if r := ask(t, network, addr, "gone.example.org.", dns.TypeA); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s: gone: %v", network, r)
		}
		// Upstream has never heard of our names; the mesh has, so they exist.
		if r := ask(t, network, addr, "reviews.", dns.TypeMX); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
			t.Errorf("%s: other type of a mesh name: %v", network, r)
		}
		if r := ask(t, network, addr, "big.example.org.", dns.TypeTXT); r.Truncated || len(r.Answer) != 1 {
			t.Errorf("%s: big: %v", network, r)
		}
	}
	if r := ask(t, "udp", addr, "reviews.", dns.TypeA); len(r.Answer) != 1 {
		t.Error(r)
	}
	st := s.Stats()
	if st.Forwarded != 8 || st.Answered != 1 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

func TestUpstreamsThatFail(t *testing.T) {
	refuse := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeRefused)
		_ = w.WriteMsg(m)
	})
	silent := resolver(t, func(dns.ResponseWriter, *dns.Msg) {})
	forged := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Id++ // of another question
		_ = w.WriteMsg(m)
		m.Id--
		m.Question[0].Name = "evil.example."
		_ = w.WriteMsg(m)
	})
	for name, c := range map[string]struct {
		up    []netip.AddrPort
		rcode int
	}{
		"silent":             {[]netip.AddrPort{silent}, dns.RcodeServerFailure},
		"forged":             {[]netip.AddrPort{forged}, dns.RcodeServerFailure},
		"refused, the last":  {[]netip.AddrPort{silent, refuse}, dns.RcodeRefused},
		"refused, then dead": {[]netip.AddrPort{refuse, silent}, dns.RcodeRefused},
	} {
		s, addr := start(t, func(cfg *Config) { cfg.Upstream, cfg.UpstreamTimeout = c.up, 50*time.Millisecond })
		s.Swap(shop())
		if r := ask(t, "udp", addr, "www.example.org.", dns.TypeA); r.Rcode != c.rcode {
			t.Errorf("%s: %s", name, dns.RcodeToString[r.Rcode])
		}
	}
}

func TestAskComesBeforeForwarding(t *testing.T) {
	s, addr := start(t, func(c *Config) {
		c.Ask = func(_ context.Context, hosts []string) ([]netip.Addr, bool, error) {
			switch hosts[len(hosts)-1] {
			case "late.default.svc.cluster.local":
				return ips("10.96.0.50"), true, nil
			case "outage.default.svc.cluster.local":
				return nil, false, errors.New("control plane is away")
			}
			return nil, false, nil
		}
	})
	s.Swap(NewTable(nil))
	if r := ask(t, "udp", addr, "late.", dns.TypeA); fmt.Sprint(addrsOf(r)) != "[10.96.0.50]" {
		t.Error(r)
	}
	if r := ask(t, "tcp", addr, "outage.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Error(r)
	}
	if r := ask(t, "udp", addr, "nobody.", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Error(r)
	}
}

func TestTooManyPending(t *testing.T) {
	release := make(chan struct{})
	s, addr := start(t, func(c *Config) {
		c.MaxPending = 1
		c.Ask = func(context.Context, []string) ([]netip.Addr, bool, error) {
			<-release
			return nil, false, nil
		}
	})
	s.Swap(shop())
	first := make(chan *dns.Msg)
	go func() { first <- ask(t, "udp", addr, "slow.", dns.TypeA) }()
	for s.Stats().Questions == 0 {
		if t.Context().Err() != nil {
			t.Fatal("never asked")
		}
	}
	if r := ask(t, "udp", addr, "more.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Error("over the limit:", r)
	}
	if r := ask(t, "udp", addr, "reviews.", dns.TypeA); len(r.Answer) != 1 {
		t.Error("known names are answered all the same:", r)
	}
	close(release)
	if r := <-first; r.Rcode != dns.RcodeNameError {
		t.Error(r)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no address": func(c *Config) { c.Listen = nil },
		"wildcard":   func(c *Config) { c.Listen = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")} },
		"no limit":   func(c *Config) { c.MaxConns = 0 },
		"no dial":    func(c *Config) { c.Dial = nil },
	} {
		cfg := Defaults()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRunTellsWhoHasThePort(t *testing.T) {
	_, addr := start(t, nil)
	cfg := Defaults()
	cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort(addr)}
	s, _ := New(cfg)
	var inUse *netio.InUseError
	if err := s.Run(t.Context()); !errors.As(err, &inUse) {
		t.Errorf("got %v", err)
	}
}
