// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import "github.com/meltemi/meltemi/proxy/filter"

// TCPSeries counts connections of one label set.
type TCPSeries struct{ opened, closed, sent, received *counters }

// TCP returns the series for a connection. Call it when it is known who the other
// end is: labels stay as they are then, the flags included.
func (s *Stats) TCP(x *filter.Exchange) *TCPSeries {
	k := labelKey{
		reporter: reporterOf(s.cfg.Reporter, x.Conn.Direction), protocol: protocolTCP,
		grpc: -1, flags: x.Flags, spec: x.Upstream.Spec,
	}
	s.ends(&k, x.Conn, x.DownstreamPeer, x.UpstreamPeer, &x.Upstream)
	if len(s.custom) > 0 {
		k.custom = s.customValues(x)
	}
	cached, hash := s.cache.get(&k)
	if cached == nil {
		cached = s.cache.put(hash, k.own(), series{tcp: s.resolveTCP(&k)})
	}
	return &cached.tcp
}

func (s *Stats) resolveTCP(k *labelKey) (out TCPSeries) {
	own := k.own()
	labels := s.metrics.labels(&own)
	for _, m := range []struct {
		name string
		to   **counters
	}{{tcpOpened, &out.opened}, {tcpClosed, &out.closed}, {tcpSent, &out.sent}, {tcpReceived, &out.received}} {
		if tags, ok := s.override(m.name, labels, own.custom); ok {
			*m.to = s.metrics.counter(m.name, tags)
		}
	}
	return out
}

// Opened counts a connection. Here and below shard spreads those who count at once.
func (t *TCPSeries) Opened(shard uint64) { t.opened.add(shard, 1) }

// Closed counts its end.
func (t *TCPSeries) Closed(shard uint64) { t.closed.add(shard, 1) }

// Sent counts bytes sent to the client (Istio's sense of the word), since the last call.
func (t *TCPSeries) Sent(shard, n uint64) { t.sent.add(shard, n) }

// Received counts bytes received from the client, since the last call.
func (t *TCPSeries) Received(shard, n uint64) { t.received.add(shard, n) }
