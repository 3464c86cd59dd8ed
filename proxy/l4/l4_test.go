// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// seen notes what the observer was told.
type seen struct {
	opened int
	closed chan filter.Exchange
}

func (s *seen) Opened(*filter.Exchange, *config.FilterChain)     { s.opened++ }
func (s *seen) Closed(x *filter.Exchange, _ *config.FilterChain) { s.closed <- *x }

// server hands each of its connections to handle, which closes it, until the test ends.
func server(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// echo answers what it reads, and when the client ends, says so and ends.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	return server(t, func(c *net.TCPConn) {
		defer func() { _ = c.Close() }()
		_, _ = io.Copy(c, c)
		_, _ = io.WriteString(c, " and goodbye")
	})
}

func clusters(t *testing.T, to ...netip.AddrPort) *upstream.Set {
	t.Helper()
	s := upstream.NewSet(upstream.Config{})
	t.Cleanup(s.Close)
	var endpoints []upstream.Endpoint
	for _, a := range to {
		endpoints = append(endpoints, upstream.Endpoint{Addr: a})
	}
	s.Put(&upstream.Spec{
		Name: "c", Balance: balance.Config{Policy: balance.RoundRobin}, ConnectTimeout: 5 * time.Second,
		Breakers:  upstream.Breakers{MaxConnections: 10, MaxPending: 10, MaxRequests: 10, MaxRetries: 10},
		Endpoints: &upstream.Assignment{Localities: []upstream.Locality{{Endpoints: endpoints}}},
	})
	return s
}

// serve runs one connection through chain; it returns the client's end.
func serve(t *testing.T, chain *config.FilterChain, facts *filter.Conn) (net.Conn, *seen) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	facts.Start = time.Now()
	facts.Remote, facts.DirectRemote = netio.AddrPortOf(server.RemoteAddr()), netio.AddrPortOf(server.RemoteAddr())
	s := &seen{closed: make(chan filter.Exchange, 1)}
	go func() {
		defer func() { _ = server.Close() }()
		New(s, &filter.Peers{}).Serve(server, facts, chain, chain.TCP)
	}()
	return client, s
}

func chainTo(set *upstream.Set, name string) *config.FilterChain {
	return &config.FilterChain{Name: "tcp", TCP: &config.TCP{Clusters: []config.Weighted{{Cluster: name, Ref: set.Ref(name)}}}}
}

func TestBytesBothWaysAndHalfClose(t *testing.T) {
	set := clusters(t, echo(t))
	client, s := serve(t, chainTo(set, "c"), &filter.Conn{})
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "hello and goodbye" {
		t.Fatalf("%q, %v: what comes after the client's end must still arrive", got, err)
	}
	x := <-s.closed
	if x.Received != 5 || x.Sent != 17 || s.opened != 1 || x.Fault != nil || x.Flags != 0 {
		t.Errorf("received %d, sent %d, opened %d, fault %v, flags %v", x.Received, x.Sent, s.opened, x.Fault, x.Flags)
	}
	if n := set.Ref("c").Stats().ConnActive.Load(); n != 0 {
		t.Errorf("%d connections still counted", n)
	}
}

func TestWhyItFailed(t *testing.T) {
	closed := func() netip.AddrPort {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		return netip.MustParseAddrPort(ln.Addr().String())
	}()
	for _, c := range []struct {
		name, cluster, flag string
		to                  []netip.AddrPort
		side                fault.Side
	}{
		{"refused", "c", "UF", []netip.AddrPort{closed}, fault.Upstream},
		{"nobody", "c", "UH", nil, fault.Mesh},
		{"unknown cluster", "other", "NC", nil, fault.Mesh},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, s := serve(t, chainTo(clusters(t, c.to...), c.cluster), &filter.Conn{})
			if n, err := client.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes, want the connection closed", n)
			}
			x := <-s.closed
			if x.Flags.String() != c.flag || x.Fault == nil || x.Fault.Side != c.side || x.Fault.Hint == "" || s.opened != 0 {
				t.Errorf("flags %v, fault %v, opened %d", x.Flags, x.Fault, s.opened)
			}
		})
	}
}

func TestAnotherEndpointIsTried(t *testing.T) {
	good := echo(t)
	dead := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1)
	chain := chainTo(clusters(t, dead, good), "c")
	chain.TCP.MaxAttempts = 2
	for range 4 { // whichever of the two is first
		client, s := serve(t, chain, &filter.Conn{})
		_ = client.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(client); err != nil || !strings.HasSuffix(string(got), "goodbye") {
			t.Fatalf("%q, %v", got, err)
		}
		if x := <-s.closed; x.Attempts > 2 {
			t.Errorf("%d attempts", x.Attempts)
		}
	}
}

func TestPolicyIsAskedBeforeAnybodyIsDialled(t *testing.T) {
	rules, err := authz.Compile(&authz.Config{Action: authz.Allow, Policies: []authz.Policy{{
		Name: "only-reviews", Permissions: []authz.Rule{{Op: authz.Any}},
		Principals: []authz.Rule{{Op: authz.Authenticated, Text: match.Exact("spiffe://cluster.local/ns/default/sa/reviews")}},
	}}}, authz.Network)
	if err != nil {
		t.Fatal(err)
	}
	set := clusters(t, echo(t))
	chain := chainTo(set, "c")
	chain.Network = []config.NetworkFilter{{Name: "rbac", RBAC: &config.NetworkRBAC{Rules: rules}}}

	client, s := serve(t, chain, &filter.Conn{})
	if n, err := client.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes, want the connection closed", n)
	}
	if x := <-s.closed; x.Fault == nil || x.Fault.Kind != fault.Denied || x.Attempts != 0 {
		t.Errorf("fault %v after %d attempts", x.Fault, x.Attempts)
	}
	if n := set.Ref("c").Stats().ConnTotal.Load(); n != 0 {
		t.Error("the upstream was dialled for a caller who may not call")
	}

	reviews := &filter.Conn{Mutual: true, Peer: filter.Certificate{URISANs: []string{"spiffe://cluster.local/ns/default/sa/reviews"}}}
	client, s = serve(t, chain, reviews)
	_ = client.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadAll(client); err != nil {
		t.Error(err)
	}
	if x := <-s.closed; x.Fault != nil {
		t.Error(x.Fault)
	}
}
