// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry"
)

// Names of the metrics.
const (
	requestsTotal   = "istio_requests_total"
	requestDuration = "istio_request_duration_milliseconds"
	requestBytes    = "istio_request_bytes"
	responseBytes   = "istio_response_bytes"
	requestMsgs     = "istio_request_messages_total"
	responseMsgs    = "istio_response_messages_total"
	tcpOpened       = "istio_tcp_connections_opened_total"
	tcpClosed       = "istio_tcp_connections_closed_total"
	tcpSent         = "istio_tcp_sent_bytes_total"
	tcpReceived     = "istio_tcp_received_bytes_total"
)

// A StatsConfig is stats.PluginConfig.
type StatsConfig struct {
	Reporter       Reporter
	NoHostFallback bool // disable_host_header_fallback
	Overrides      []Override
	// Interval is how often the bytes of open connections are counted
	// (tcp_reporting_duration); 0: at their end.
	Interval time.Duration
}

// An Override changes the labels of a metric (stats.MetricConfig).
type Override struct {
	Metric string // without the prefix "istio_"; "": all
	Drop   bool
	Remove []string // tags_to_remove
	Set    []Dimension
}

// A Dimension is a label that configuration adds or replaces.
type Dimension struct {
	Tag   string
	Value Attribute
}

// Stats counts what passes, as istio.stats does: exchanges as a filter, and
// connections for l4 by TCP.
type Stats struct {
	filter.Pass
	cfg     StatsConfig
	metrics *Metrics
	custom  []Attribute // of all overrides
	cache   *cache[labelKey, series]
}

// series are those of one label key, whose protocol says which are there.
type series struct {
	http     httpSeries
	messages messageSeries // if the key says so, and nothing else
	tcp      TCPSeries
}

var _ filter.MessageCounter = (*Stats)(nil)

// NewStats returns a filter that counts into m.
func NewStats(cfg StatsConfig, m *Metrics) *Stats {
	s := &Stats{cfg: cfg, metrics: m, cache: newCache[labelKey, series]()}
	for _, o := range cfg.Overrides {
		for _, d := range o.Set {
			s.custom = append(s.custom, d.Value)
		}
	}
	return s
}

// httpSeries is the series of one label set; nil for a metric that is dropped.
type httpSeries struct {
	requests          *counters
	duration          *histograms
	received, replied *histograms
}

// OnEnd counts the exchange.
func (s *Stats) OnEnd(x *filter.Exchange) {
	k := s.key(x)
	cached, hash := s.cache.get(&k)
	if cached == nil {
		cached = s.cache.put(hash, k.own(), series{http: s.resolve(&k)})
	}
	shard, series := x.Conn.ID, &cached.http
	series.requests.add(shard, 1)
	took, ok := x.Since(filter.ResponseEnd)
	if !ok {
		took = time.Since(x.Start)
	}
	series.duration.record(shard, float64(took)/1e6)
	series.received.record(shard, float64(x.WireReceived))
	series.replied.record(shard, float64(x.WireSent))
}

// messageSeries counts messages of gRPC calls between the same two ends.
type messageSeries struct{ request, response *counters }

// Count counts messages.
func (m *messageSeries) Count(shard, request, response uint64) {
	m.request.add(shard, request)
	m.response.add(shard, response)
}

// Interval is how often the bytes of open connections are to be counted; 0: at their end.
func (s *Stats) Interval() time.Duration { return s.cfg.Interval }

// Messages returns the series of x. Their labels say whose the messages are, not how the
// call ends: that is not known while it goes on.
func (s *Stats) Messages(x *filter.Exchange) filter.MessageMeter {
	k := s.key(x)
	k.messages, k.code, k.grpc, k.flags = true, 0, -1, 0
	cached, hash := s.cache.get(&k)
	if cached == nil {
		cached = s.cache.put(hash, k.own(), series{messages: s.resolveMessages(&k)})
	}
	return &cached.messages
}

func (s *Stats) resolveMessages(k *labelKey) (out messageSeries) {
	own := k.own()
	labels := s.metrics.labels(&own)
	end := slices.IndexFunc(labels, func(t telemetry.Tag) bool { return t.Key == "request_protocol" })
	for name, to := range map[string]**counters{requestMsgs: &out.request, responseMsgs: &out.response} {
		if tags, ok := s.override(name, labels[:end], own.custom); ok {
			*to = s.metrics.counter(name, tags)
		}
	}
	return out
}

// key gathers what the labels of x depend on.
func (s *Stats) key(x *filter.Exchange) labelKey {
	k := labelKey{
		reporter: reporterOf(s.cfg.Reporter, x.Conn.Direction), protocol: protocolHTTP,
		code: int16(x.Response.Status), grpc: -1, flags: x.Flags, spec: x.Upstream.Spec,
	}
	if x.GRPC {
		k.protocol = protocolGRPC
		k.grpc = int16(x.GRPCStatus)
	}
	switch x.Target.Route {
	case "block_all":
		k.special = blackHole
	case "allow_any":
		k.special = passthrough
	}
	if !s.cfg.NoHostFallback && (k.spec == nil || k.spec.Service.Host == "") {
		k.host = x.Request.Authority
	}
	s.ends(&k, x.Conn, x.DownstreamPeer, x.UpstreamPeer, &x.Upstream)
	if len(s.custom) > 0 {
		k.custom = s.customValues(x)
	}
	return k
}

// ends fills in who the two ends are.
func (s *Stats) ends(k *labelKey, conn *filter.Conn, down, up *filter.Peer, u *filter.Upstream) {
	if k.reporter != source {
		k.peer, k.principal, k.local = down, conn.Peer.URI(), conn.Own.URI()
		return
	}
	k.peer = up
	if up == nil && u.Endpoint != nil {
		k.workload = u.Endpoint.Workload
	}
	k.leaf = leafOf(u.TLS)
	if u.Mutual {
		k.local = s.metrics.self.Identity
	}
}

func leafOf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// customValues joins the values of configured dimensions, each with a zero byte.
func (s *Stats) customValues(x *filter.Exchange) string {
	var b strings.Builder
	for _, a := range s.custom {
		b.WriteString(or(strings.ReplaceAll(a.value(x), "\x00", ""), unknown))
		b.WriteByte(0)
	}
	return b.String()
}

func (s *Stats) resolve(k *labelKey) httpSeries {
	own := k.own() // labels outlive the exchange
	labels := s.metrics.labels(&own)
	var out httpSeries
	if tags, ok := s.override(requestsTotal, labels, own.custom); ok {
		out.requests = s.metrics.counter(requestsTotal, tags)
	}
	for name, to := range map[string]**histograms{requestDuration: &out.duration, requestBytes: &out.received, responseBytes: &out.replied} {
		if tags, ok := s.override(name, labels, own.custom); ok {
			*to = s.metrics.histogram(name, tags)
		}
	}
	return out
}

// override returns the labels of one metric; false if it is dropped.
func (s *Stats) override(metric string, labels []telemetry.Tag, custom string) ([]telemetry.Tag, bool) {
	labels = slices.Clone(labels)
	values := strings.Split(custom, "\x00")
	short := strings.TrimPrefix(metric, "istio_")
	at := 0
	for _, o := range s.cfg.Overrides {
		first := at
		at += len(o.Set)
		if o.Metric != "" && o.Metric != short {
			continue
		}
		if o.Drop {
			return nil, false
		}
		for i, d := range o.Set {
			value := unknown
			if first+i < len(values)-1 {
				value = values[first+i]
			}
			labels = setTag(labels, d.Tag, value)
		}
		labels = slices.DeleteFunc(labels, func(t telemetry.Tag) bool { return slices.Contains(o.Remove, t.Key) })
	}
	return labels, true
}

func setTag(tags []telemetry.Tag, key, value string) []telemetry.Tag {
	for i := range tags {
		if tags[i].Key == key {
			tags[i].Value = value
			return tags
		}
	}
	return append(tags, telemetry.Tag{Key: key, Value: value})
}
