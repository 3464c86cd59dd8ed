// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package l4 conducts a connection that is not HTTP, or is not to be looked
// into. The steps, in file order:
//
//	l4.go     Serve      one connection, from its first byte to its last
//	          authorize  ask the chain's policies, before the upstream hears of it
//	          connect    choose cluster and endpoint, dial, try again if allowed
//	          introduce  say who we are, and hear who the ends are (istio-peer-exchange)
//	          relay      bytes both ways, half-closes included
//	meter.go  meter      count, while it is open and at the end, whatever happened
package l4

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/peerexchange"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// An Observer logs connections. The Exchange it is given has no Request; Received
// and Sent are bytes from and to the client.
type Observer interface {
	// Opened is called when the upstream is connected.
	Opened(x *filter.Exchange, chain *config.FilterChain)
	// Closed is called once for every connection, whether or not Opened was.
	Closed(x *filter.Exchange, chain *config.FilterChain)
}

// A Relay conducts connections.
type Relay struct {
	observer Observer
	peers    *filter.Peers
}

// New returns a Relay that reports to observer and remembers who others are in peers.
func New(observer Observer, peers *filter.Peers) *Relay { return &Relay{observer, peers} }

// Serve conducts conn through chain, whose TCP settings are tcp. It returns when
// the connection is over; the caller closes conn.
func (r *Relay) Serve(conn net.Conn, facts *filter.Conn, chain *config.FilterChain, tcp *config.TCP) {
	s := &session{
		Exchange: filter.Exchange{Conn: facts, Remote: facts.Remote, Start: facts.Start, Random: rand.Uint64()},
		client:   conn, chain: chain, tcp: tcp,
	}
	s.meter.init(&s.Exchange, chain)
	defer r.observer.Closed(&s.Exchange, chain)
	defer s.meter.end()
	if f := r.Authorize(facts, chain); f != nil {
		s.fail(f)
		return
	}
	up, f := s.connect()
	if f != nil {
		s.fail(f)
		return
	}
	defer s.cluster.Hangup(s.host, nil)
	r.observer.Opened(&s.Exchange, chain)
	if f := s.introduce(up, r.peers); f != nil {
		_ = up.Close()
		s.fail(f)
		return
	}
	s.relay(up)
}

// Refuse counts and logs a connection that ends because of f, before anybody
// conducts it. The caller closes it.
func (r *Relay) Refuse(facts *filter.Conn, chain *config.FilterChain, f *fault.Fault) {
	s := &session{Exchange: filter.Exchange{Conn: facts, Remote: facts.Remote, Start: facts.Start}}
	s.meter.init(&s.Exchange, chain)
	s.fail(f)
	s.meter.end()
	r.observer.Closed(&s.Exchange, chain)
}

// A session is one connection under way.
type session struct {
	filter.Exchange
	client net.Conn
	chain  *config.FilterChain
	tcp    *config.TCP

	cluster *upstream.Cluster
	host    *upstream.Host
	meter   meter
}

func (s *session) fail(f *fault.Fault) {
	s.Fault = f
	s.Details = f.Details
	s.Flags |= filter.FlagsOf(f)
}

// Authorize asks the chain's network RBAC filters, in order; nil lets the
// connection pass. Envoy asks when the first byte has come; nothing has been
// dialled then, so asking at once decides the same.
func (r *Relay) Authorize(facts *filter.Conn, chain *config.FilterChain) *fault.Fault {
	for i := range chain.Network {
		rbac := chain.Network[i].RBAC
		if rbac == nil || rbac.Rules == nil {
			continue
		}
		f := authz.Facts{
			Verified: facts.Mutual, URISANs: facts.Peer.URISANs, DNSSANs: facts.Peer.DNSSANs, Subject: facts.Peer.Subject,
			DirectRemote: facts.DirectRemote.Addr(), Remote: facts.Remote.Addr(), Local: facts.Local, SNI: facts.SNI,
		}
		if v := rbac.Rules.Check(&f); !v.Allowed {
			return denied(v.Policy)
		}
	}
	return nil
}

func denied(policy string) *fault.Fault {
	name := policy
	if name == "" {
		name = "none"
	}
	return &fault.Fault{
		Side: fault.Client, Kind: fault.Denied, Object: "policy " + name,
		Details: "rbac_access_denied_matched_policy[" + name + "]",
		Hint:    "an AuthorizationPolicy does not let this client connect",
	}
}

// connect picks and dials, up to MaxAttempts times.
func (s *session) connect() (net.Conn, *fault.Fault) {
	ref := s.tcp.Pick(s.Random)
	s.Target.Cluster = ref.Name()
	s.cluster = ref.Load()
	if s.cluster == nil {
		return nil, &fault.Fault{
			Side: fault.Mesh, Kind: fault.NoCluster, Object: "cluster " + ref.Name(), Details: "cluster_not_found",
			Hint: "the control plane has not sent this cluster: does the service exist and is it visible here?",
		}
	}
	s.Upstream.Spec = s.cluster.Spec()
	req := upstream.Request{
		OriginalDst: s.original(), Client: s.Conn.Remote, Random: s.Random, MaxReselect: 5,
	}
	if s.tcp.HashSourceIP {
		req.Hash, req.HasHash = xxhash.Sum64String(s.Conn.Remote.Addr().String()), true
	}
	attempts := max(1, s.tcp.MaxAttempts)
	for {
		host, f := s.cluster.Pick(&req)
		if f != nil {
			return nil, f
		}
		s.Attempts++
		s.host = host
		s.Upstream.Endpoint, s.Upstream.Remote = host.Endpoint(), host.Addr()
		s.Mark(filter.ConnectBegin)
		conn, f := s.cluster.Dial(host, &req)
		if f == nil {
			s.Mark(filter.ConnectEnd)
			s.Upstream.Local = netio.AddrPortOf(conn.LocalAddr())
			if secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
				state := secure.ConnectionState()
				s.Upstream.TLS, s.Upstream.Mutual = &state, host.Transport().Mutual
			}
			return conn, nil
		}
		s.cluster.ReportTCP(host, f)
		if f.Err != nil {
			s.Upstream.Failure = f.Err.Error()
		}
		if s.Attempts >= attempts {
			return nil, f
		}
		req.Tried = append(slices.Clip(req.Tried), host)
	}
}

// original is where the client wanted to go: restored, or as it dialled us.
func (s *session) original() netip.AddrPort {
	if s.Conn.OriginalDst.IsValid() {
		return s.Conn.OriginalDst
	}
	return netip.AddrPort{}
}

// introduce tells the client who we are, if it is a proxy that we have agreed with to do so, and begins to count. Who
// the ends are is heard as their first bytes come: nobody waits for that. The upstream has been told when it was dialled.
func (s *session) introduce(up net.Conn, peers *filter.Peers) *fault.Fault {
	var down *peerexchange.Conn
	preamble := s.chain.PeerExchange()
	if secure, ok := s.client.(*tls.Conn); ok && preamble != nil && secure.ConnectionState().NegotiatedProtocol == peerexchange.ALPN {
		var err error
		if down, err = peerexchange.Begin(secure, preamble); err != nil {
			return &fault.Fault{Side: fault.Client, Kind: fault.ClientGone, Details: "downstream_closed", Err: err}
		}
		s.client = down
	}
	if down != nil {
		down.Heard(func(preamble []byte) { s.meter.heard(&s.DownstreamPeer, peers.Told(preamble)) })
	}
	told, _ := up.(*peerexchange.Conn)
	if told != nil {
		told.Heard(func(preamble []byte) { s.meter.heard(&s.UpstreamPeer, peers.Told(preamble)) })
	}
	if s.Conn.Direction == filter.Inbound { // whoever counts names the other end
		s.meter.begin(&s.DownstreamPeer, down != nil)
	} else {
		s.meter.begin(&s.UpstreamPeer, told != nil)
	}
	return nil
}

// relay carries bytes until both directions have ended. The chain's end does not
// cut a connection short: it goes on until the drain time is over.
func (s *session) relay(up net.Conn) {
	if limit := s.tcp.MaxDuration; limit > 0 {
		t := time.AfterFunc(limit, func() { _ = up.Close() })
		defer t.Stop()
	}
	err := netio.Relay(s.client, up, s.tcp.IdleTimeout, &s.meter.moved)
	s.cluster.Stats().BytesOut.Add(s.meter.moved.AToB.Load())
	s.cluster.Stats().BytesIn.Add(s.meter.moved.BToA.Load())
	var long *peerexchange.SizeError
	switch {
	case err == nil:
	case errors.As(err, &long):
		f := &fault.Fault{Side: fault.Upstream, Kind: fault.UpstreamProtocol, Object: "cluster " + s.Target.Cluster + ", endpoint " + s.host.String(),
			Details: "peer_metadata_too_long", Hint: "is the other end a proxy of the mesh, with metadata of usual size?", Err: err}
		if long.Conn == s.client {
			f.Side, f.Kind, f.Object = fault.Client, fault.TooLarge, "client "+s.Conn.Remote.String()
		}
		s.fail(f)
	case errors.Is(err, netio.ErrIdle):
		s.Details = "idle_timeout"
	case s.tcp.MaxDuration > 0 && time.Since(s.Start) >= s.tcp.MaxDuration:
		s.fail(&fault.Fault{Side: fault.Mesh, Kind: fault.MaxDuration, Details: "max_connection_duration_reached", Err: err})
	}
}
