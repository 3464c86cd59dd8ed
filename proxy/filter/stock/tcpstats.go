// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import "github.com/meltemi/meltemi/proxy/filter"

// A Connection is what the labels of the TCP metrics depend on.
type Connection struct {
	Conn     *filter.Conn
	Upstream filter.Upstream
	Flags    filter.Flags
	// Peer is the other end's workload: the client's for a server-side reporter,
	// else the upstream's; nil if unknown.
	Peer *filter.Peer
}

// TCPSeries counts connections of one label set.
type TCPSeries struct {
	shard                          uint64
	opened, closed, sent, received *counters
}

// TCP returns the series for c. Call it when the peer is known, and again at
// the end if the flags have changed.
func (s *Stats) TCP(c *Connection) *TCPSeries {
	k := labelKey{
		reporter: reporterOf(s.cfg.Reporter, c.Conn.Direction), protocol: protocolTCP,
		grpc: -1, flags: c.Flags, spec: c.Upstream.Spec,
	}
	s.ends(&k, c.Conn, c.Peer, c.Peer, &c.Upstream)
	labels := s.metrics.labels(&k)
	out := &TCPSeries{shard: c.Conn.ID}
	for _, m := range []struct {
		name string
		to   **counters
	}{{tcpOpened, &out.opened}, {tcpClosed, &out.closed}, {tcpSent, &out.sent}, {tcpReceived, &out.received}} {
		if tags, ok := s.override(m.name, labels, ""); ok {
			*m.to = s.metrics.counter(m.name, tags)
		}
	}
	return out
}

// Opened counts a connection.
func (t *TCPSeries) Opened() { t.opened.add(t.shard, 1) }

// Closed counts its end.
func (t *TCPSeries) Closed() { t.closed.add(t.shard, 1) }

// Sent counts bytes sent to the client (Istio's sense of the word), since the last call.
func (t *TCPSeries) Sent(n uint64) { t.sent.add(t.shard, n) }

// Received counts bytes received from the client, since the last call.
func (t *TCPSeries) Received(n uint64) { t.received.add(t.shard, n) }
