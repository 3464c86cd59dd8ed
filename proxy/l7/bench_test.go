// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

var (
	benchRequest  = []byte("GET /path HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Request-Id: 8b1f0c1e-7d3c-4a39-9c3e-1f1f1f1f1f1f\r\n\r\n")
	benchResponse = append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\n\r\n"), make([]byte, 1024)...)
)

// answering is a backend that costs next to nothing.
func answering(c net.Conn, in *bufio.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		if string(buf[n-4:n]) != "\r\n\r\n" {
			panic("the request came in pieces")
		}
		if _, err := c.Write(benchResponse); err != nil {
			return
		}
	}
}

// benchRig has what a sidecar has: peer metadata, metrics, and a log if asked.
func benchRig(b testing.TB, logs bool) *rig {
	return newRig(b, func(s *setup) {
		reg := telemetry.NewRegistry(telemetry.Config{})
		self := &filter.Peer{ID: "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local", Name: "a", Namespace: "shop", Workload: "a"}
		meta := stock.NewPeerMetadata(stock.PeerMetadataConfig{Upstream: []stock.Discovery{stock.FromHeaders}, TellUpstream: true}, self, new(filter.Peers), nil)
		s.entries = []filter.Entry{
			{Name: "istio.metadata_exchange", Filter: meta},
			{Name: "envoy.filters.http.fault", Filter: stock.NewFault(nil)},
			{Name: "envoy.filters.http.cors", Filter: stock.CORS{}},
			{Name: "istio.stats", Filter: stock.NewStats(stock.StatsConfig{}, stock.NewMetrics(self, "1", reg))},
		}
		s.specs = append(s.specs, cluster("b", upstream.HTTP1, rawBackend(b, answering)))
		s.routes = append(s.routes, to("/", "b"))
		s.http.AccessLogs = []config.AccessLog{}
		if logs {
			s.http.AccessLogs = []config.AccessLog{{Path: "/dev/null", Text: accesslog.IstioText}}
		}
	})
}

func benchGet(b *testing.B, logs bool) {
	r := benchRig(b, logs)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8<<10)
	one := func() {
		if _, err := c.Write(benchRequest); err != nil {
			b.Fatal(err)
		}
		n, err := io.ReadAtLeast(c, buf, len("HTTP/1.1 200 OK"))
		if err != nil {
			b.Fatal(err)
		}
		if string(buf[:15]) != "HTTP/1.1 200 OK" || n < 1024 {
			b.Fatalf("%d bytes: %q", n, buf[:n])
		}
	}
	for range 100 {
		one()
	}
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}

func BenchmarkGet(b *testing.B)       { benchGet(b, false) }
func BenchmarkGetLogged(b *testing.B) { benchGet(b, true) }

// BenchmarkGet2 is HTTP/2 from the client, HTTP/1 to the upstream.
func BenchmarkGet2(b *testing.B) {
	r := benchRig(b, true)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		b.Fatal(err)
	}
	cc, err := http2.NewClientConn(c, http2.ClientDefaults())
	if err != nil {
		b.Fatal(err)
	}
	defer cc.Close()
	<-cc.Ready()
	req := &message.Request{Method: "GET", Scheme: "http", Authority: "shop.example", Path: "/path"}
	req.Header.Add("user-agent", "bench")
	var resp message.Response
	buf := make([]byte, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		st, err := cc.Open()
		if err != nil {
			b.Fatal(err)
		}
		if err := st.WriteHead(req, true); err != nil {
			b.Fatal(err)
		}
		if err := st.ReadHead(&resp); err != nil || resp.Status != 200 {
			b.Fatal(resp.Status, err)
		}
		for err = nil; err == nil; {
			_, err = st.Read(buf)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}
