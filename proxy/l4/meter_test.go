// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/peerexchange"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
	"github.com/meltemi/meltemi/telemetry"
)

// A side is one proxy with its metrics.
type side struct {
	self  *filter.Peer
	reg   *telemetry.Registry
	stats *stock.Stats
}

func newSide(name string) *side {
	s := &side{
		self: &filter.Peer{ID: "sidecar~" + name, Workload: name, Namespace: "shop", App: name, CanonicalName: name, Identity: uri(name)},
		reg:  telemetry.NewRegistry(telemetry.Config{}),
	}
	s.stats = stock.NewStats(stock.StatsConfig{Interval: 20 * time.Millisecond}, stock.NewMetrics(s.self, "", s.reg))
	return s
}

func uri(name string) string { return "spiffe://cluster.local/ns/shop/sa/" + name }

// metric is the sum of a metric's series that have all of the labels.
func (s *side) metric(t *testing.T, name string, labels ...string) (sum float64) {
	t.Helper()
	var b strings.Builder
	if err := telemetry.WritePrometheus(&b, s.reg.Gather()); err != nil {
		t.Fatal(err)
	}
lines:
	for line := range strings.Lines(b.String()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue lines
			}
		}
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// eventually waits until the metric has a value.
func (s *side) eventually(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	var got float64
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if got = s.metric(t, name, labels...); got == want {
			return
		}
	}
	t.Errorf("%s %v is %v, want %v", name, labels, got, want)
}

func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse(uri(name))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// entrance is a server's sidecar in front of app: it wants certificates, and speaks istio-peer-exchange.
func entrance(t *testing.T, db *side, app netip.AddrPort) (netip.AddrPort, *seen) {
	t.Helper()
	cert := certificate(t, "db")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	observer := &seen{closed: make(chan filter.Exchange, 100)}
	inbound := chainTo(clusters(t, app), "c")
	inbound.Network = []config.NetworkFilter{{PeerExchange: db.self.Telling(nil).Preamble()}, {Stats: db.stats}}
	go func() {
		relay := New(observer, &filter.Peers{})
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = raw.Close() }()
				conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{peerexchange.ALPN, "istio"}, ClientAuth: tls.RequireAnyClientCert})
				if err := conn.Handshake(); err != nil {
					t.Error(err)
					return
				}
				state := conn.ConnectionState()
				relay.Serve(conn, &filter.Conn{
					Direction: filter.Inbound, TLS: &state, Mutual: true, Start: time.Now(),
					Peer: filter.Certificate{URISANs: []string{state.PeerCertificates[0].URIs[0].String()}}, Own: filter.Certificate{URISANs: []string{uri("db")}},
				}, inbound, inbound.TCP)
			}()
		}
	}()
	return netio.AddrPortOf(ln.Addr()), observer
}

// pair is a client's sidecar and a server's in front of app, with TLS between them in which the client's offers alpn.
// It returns what connects to the client's.
func pair(t *testing.T, web, db *side, app netip.AddrPort, alpn ...string) (dial func() net.Conn) {
	t.Helper()
	addr, _ := entrance(t, db, app)
	set := upstream.NewSet(upstream.Config{})
	t.Cleanup(set.Close)
	set.Put(&upstream.Spec{
		Name: "db", Balance: balance.Config{Policy: balance.RoundRobin}, ConnectTimeout: 5 * time.Second,
		Breakers:     upstream.Breakers{MaxConnections: 10, MaxPending: 10, MaxRequests: 10, MaxRetries: 10},
		Service:      upstream.ServiceFact{Host: "db.shop.svc.cluster.local", Name: "db", Namespace: "shop"},
		PeerExchange: web.self.Telling(nil).Preamble(),
		Default: upstream.Transport{ALPN: alpn, Mutual: true,
			TLS: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate(t, "web")}}},
		Endpoints: &upstream.Assignment{Localities: []upstream.Locality{{Endpoints: []upstream.Endpoint{{Addr: addr}}}}},
	})
	outbound := chainTo(set, "db")
	outbound.Network = []config.NetworkFilter{{Stats: web.stats}}
	return func() net.Conn {
		client, _ := serve(t, outbound, &filter.Conn{Direction: filter.Outbound})
		return client
	}
}

// Sidecars that agree tell each other who they are, and what the application says arrives as it was said; where they do not
// agree the connection works as well.
func TestPeersAreKnownByTheirPreambles(t *testing.T) {
	for _, c := range []struct {
		alpn   []string
		caller string
	}{{[]string{peerexchange.ALPN, "istio"}, "web"}, {[]string{"istio"}, "unknown"}, {nil, "unknown"}} {
		t.Run(strings.Join(c.alpn, ","), func(t *testing.T) {
			web, db := newSide("web"), newSide("db")
			client := pair(t, web, db, echo(t), c.alpn...)()
			if _, err := io.WriteString(client, "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			source := fmt.Sprintf("source_workload=%q", c.caller)
			called := `destination_workload="db"`
			// All of it is counted while the connection is open.
			db.eventually(t, 1, "istio_tcp_connections_opened_total", source, called, `source_principal="`+uri("web"), `reporter="destination"`)
			db.eventually(t, 5, "istio_tcp_received_bytes_total", source)
			db.eventually(t, 5, "istio_tcp_sent_bytes_total", source)
			if c.caller == "unknown" {
				called = `destination_workload="unknown"`
			}
			web.eventually(t, 1, "istio_tcp_connections_opened_total", called, `destination_service_name="db"`, `destination_principal="`+uri("db"), `reporter="source"`)
			web.eventually(t, 5, "istio_tcp_received_bytes_total", called)
			if n := web.metric(t, "istio_tcp_connections_closed_total") + db.metric(t, "istio_tcp_connections_closed_total"); n != 0 {
				t.Errorf("%v connections counted as closed", n)
			}
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(client); err != nil || string(got) != " and goodbye" {
				t.Errorf("%q, %v", got, err)
			}
			for _, s := range []*side{web, db} {
				s.eventually(t, 1, "istio_tcp_connections_closed_total")
				s.eventually(t, 5, "istio_tcp_received_bytes_total")
				s.eventually(t, 17, "istio_tcp_sent_bytes_total")
			}
		})
	}
}

// A server that speaks first is heard by a client that says nothing.
func TestServerSpeaksFirst(t *testing.T) {
	app := server(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\n")
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	})
	web, db := newSide("web"), newSide("db")
	client := pair(t, web, db, app, peerexchange.ALPN)()
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || line != "220 ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	web.eventually(t, 1, "istio_tcp_connections_opened_total", `destination_workload="db"`)
	db.eventually(t, 1, "istio_tcp_connections_opened_total", `source_workload="web"`)
}

// A server's reset is a reset to its client, through TLS, too: what was cut short must not look complete.
func TestResetsReachTheClient(t *testing.T) {
	app := server(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_ = c.SetLinger(0)
		_ = c.Close()
	})
	for _, alpn := range []string{peerexchange.ALPN, "istio"} {
		client := pair(t, newSide("web"), newSide("db"), app, alpn)()
		if _, err := io.WriteString(client, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read: %v, want a reset", alpn, err)
		}
	}
}

// Who begins with a preamble that nobody could read is told so, and blamed.
func TestTooLongAPreamble(t *testing.T) {
	addr, observer := entrance(t, newSide("db"), echo(t))
	conn, err := tls.Dial("tcp", addr.String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate(t, "web")}, NextProtos: []string{peerexchange.ALPN}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("\x3d\x23\x04\x67\x00\x10\x00\x00")); err != nil {
		t.Fatal(err)
	}
	x := <-observer.closed
	if f := x.Fault; f == nil || f.Side != fault.Client || f.Hint == "" || x.Details != "peer_metadata_too_long" || x.Flags.String() != "DPE" {
		t.Errorf("fault %v, details %q, flags %s", x.Fault, x.Details, x.Flags)
	}
}

// Whatever ends a connection, it is counted once as opened and once as closed.
func TestFailedConnectionsAreCounted(t *testing.T) {
	web := newSide("web")
	chain := chainTo(clusters(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1)), "c")
	chain.Network = []config.NetworkFilter{{Stats: web.stats}}
	_, s := serve(t, chain, &filter.Conn{Direction: filter.Outbound})
	<-s.closed
	web.eventually(t, 1, "istio_tcp_connections_opened_total", `response_flags="UF"`)
	web.eventually(t, 1, "istio_tcp_connections_closed_total", `response_flags="UF"`)
}
