// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/telemetry/accesslog"
	"github.com/meltemi/meltemi/telemetry/trace"
)

// A TracerConfig is what Tracers need.
type TracerConfig struct {
	Node    Node
	Formats accesslog.Options
	// DialCluster connects to an endpoint of a cluster; nil: nothing is sent.
	DialCluster func(ctx context.Context, cluster string) (net.Conn, error)
}

// Node is what spans tell of this proxy.
type Node struct {
	ID, Zone string
	Cluster  string            // service.name where the tracing configuration names no service
	Resource map[string]string // attributes of all spans
}

// Tracers are the exporters of a server, one for each collector and service.
type Tracers struct {
	cfg TracerConfig

	mu        sync.Mutex
	exporters map[exporterKey]*trace.Exporter
}

type exporterKey struct{ cluster, service, path string }

// NewTracers returns no exporters yet.
func NewTracers(cfg TracerConfig) *Tracers {
	return &Tracers{cfg: cfg, exporters: map[exporterKey]*trace.Exporter{}}
}

// Close sends what waits.
func (t *Tracers) Close() {
	t.mu.Lock()
	exporters := t.exporters
	t.exporters = map[exporterKey]*trace.Exporter{}
	t.mu.Unlock()
	for _, e := range exporters {
		e.Close()
	}
}

// A Tracer makes the spans of one connection manager.
type Tracer struct {
	cfg       *config.Tracing
	Sampling  trace.Sampling
	exporter  *trace.Exporter // nil: contexts are passed on, spans go nowhere
	operation *accesslog.Format
	tags      []tagFormat
	node      Node
}

type tagFormat struct {
	config.Tag
	format *accesslog.Format
}

// Get returns the tracer for cfg; nil for nil.
func (t *Tracers) Get(cfg *config.Tracing) (*Tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	tr := &Tracer{cfg: cfg, Sampling: trace.Sampling{Client: cfg.Client, Random: cfg.Random, Overall: cfg.Overall}, node: t.cfg.Node}
	for _, tag := range cfg.Tags {
		f := tagFormat{Tag: tag}
		switch tag.Kind {
		case config.TagFormat:
			var err error
			if f.format, err = accesslog.Compile(tag.Value, t.cfg.Formats); err != nil {
				return nil, fmt.Errorf("tracing tag %s: %w", tag.Name, err)
			}
		case config.TagEnvironment:
			f.Value = tag.Default
			if t.cfg.Formats.Environment != nil {
				if v := t.cfg.Formats.Environment(tag.Value); v != "" {
					f.Value = v
				}
			}
		}
		tr.tags = append(tr.tags, f)
	}
	if cfg.Operation != "" {
		var err error
		if tr.operation, err = accesslog.Compile(cfg.Operation, t.cfg.Formats); err != nil {
			return nil, fmt.Errorf("tracing operation: %w", err)
		}
	}
	if cfg.Cluster == "" || t.cfg.DialCluster == nil {
		return tr, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	service := cfg.Service
	if service == "" {
		service = t.cfg.Node.Cluster
	}
	key := exporterKey{cfg.Cluster, service, cfg.HTTPPath}
	if tr.exporter = t.exporters[key]; tr.exporter != nil {
		return tr, nil
	}
	c := trace.Collector{
		Dial:      func(ctx context.Context) (net.Conn, error) { return t.cfg.DialCluster(ctx, cfg.Cluster) },
		Authority: cfg.Cluster, HTTPPath: cfg.HTTPPath, Service: service,
	}
	for k, v := range t.cfg.Node.Resource {
		c.Resource = append(c.Resource, trace.Tag{Key: k, Value: v})
	}
	sender, err := trace.NewSender(c)
	if err != nil {
		return nil, err
	}
	tr.exporter = trace.NewExporter(sender)
	t.exporters[key] = tr.exporter
	return tr, nil
}

const requestID = "x-request-id"

// decorator is how one proxy tells the next what to call the operation.
const decorator = "x-envoy-decorator-operation"

// Begin places the exchange in its trace. A caller's decision counts more than ours.
func (t *Tracer) Begin(x *filter.Exchange, sampled bool) {
	caller, ok := trace.Extract(&x.Request.Header)
	if ok {
		sampled = caller.Sampled
	}
	x.Trace = caller.Child()
	x.Trace.Sampled = sampled
	if sampled && t.exporter != nil {
		x.Span = &trace.Span{Context: x.Trace, Server: x.Conn.Direction == filter.Inbound, Start: x.Start}
	}
}

// Propagate tells the next hop; d is the route's decorator, nil for none.
func (t *Tracer) Propagate(x *filter.Exchange, d *route.Decorator) {
	h := &x.Request.Header
	if !t.cfg.NoPropagation {
		trace.Inject(h, &x.Trace)
	}
	if x.Conn.Direction == filter.Inbound {
		if op, ok := h.Lookup(decorator); ok {
			if x.Span != nil {
				x.Span.Name = strings.Clone(op)
			}
			h.Delete(decorator)
		}
		return
	}
	if d != nil && d.Propagate && d.Operation != "" {
		h.Set(decorator, d.Operation)
	}
}

// BeginAttempt begins a span for an attempt, if each is to have its own
// (spawn_upstream_span); the endpoint is told of that one.
func (t *Tracer) BeginAttempt(x *filter.Exchange) *trace.Span {
	if x.Span == nil || !t.cfg.SpawnUpstream {
		return nil
	}
	s := &trace.Span{Context: x.Trace.Child(), Name: "router " + x.Target.Cluster + " egress", Start: time.Now()}
	if !t.cfg.NoPropagation {
		trace.Inject(&x.Request.Header, &s.Context)
	}
	return s
}

// EndAttempt completes an attempt's span; f is why it failed, or nil.
func (t *Tracer) EndAttempt(x *filter.Exchange, s *trace.Span, f *fault.Fault) {
	s.End = time.Now()
	s.Tag("component", "proxy")
	s.Tag("upstream_cluster", x.Target.Cluster)
	s.Tag("upstream_address", x.Upstream.Remote.String())
	s.Tag("http.protocol", x.Upstream.Version.String())
	s.Tag("http.status_code", strconv.Itoa(x.Response.Status))
	s.Tag("response_flags", x.Flags.String())
	if f != nil {
		s.Error = true
		s.Tag("error", "true")
		s.Tag("error.object", f.Error())
	}
	t.exporter.Export(s)
}

// End completes the exchange's span, if it has one, and hands it over. record is
// scratch space.
func (t *Tracer) End(x *filter.Exchange, record *accesslog.Record) {
	s := x.Span
	if s == nil {
		return
	}
	took, _ := x.Since(filter.ResponseEnd)
	s.End = s.Start.Add(took)
	if s.Name == "" {
		s.Name = t.name(x, record)
	}
	r := x.Request
	status := x.Response.Status
	s.Error = status >= 500 || x.Fault != nil && status == 0
	s.Tag("node_id", t.node.ID)
	s.Tag("zone", t.node.Zone)
	if id, ok := r.Header.Lookup(requestID); ok {
		s.Tag("guid:x-request-id", id)
	}
	path := r.Path
	if v, ok := r.Header.Lookup("x-envoy-original-path"); ok {
		path = v
	}
	if limit := t.cfg.MaxPathLength; limit > 0 && len(path) > int(limit) {
		path = path[:limit]
	}
	s.Tag("http.url", r.Scheme+"://"+r.Authority+path)
	s.Tag("http.method", r.Method)
	s.Tag("http.protocol", r.Version.String())
	s.Tag("user_agent", dash(r.Header.Get("user-agent")))
	s.Tag("downstream_cluster", dash(r.Header.Get("x-envoy-downstream-service-cluster")))
	s.Tag("peer.address", x.Conn.DirectRemote.Addr().Unmap().String())
	s.Tag("http.status_code", strconv.FormatInt(int64(status), 10))
	s.Tag("request_size", strconv.FormatInt(int64(x.Received), 10))
	s.Tag("response_size", strconv.FormatInt(int64(x.Sent), 10))
	s.Tag("response_flags", x.Flags.String())
	if x.Target.Cluster != "" {
		s.Tag("upstream_cluster", x.Target.Cluster)
		if x.Upstream.Spec != nil && x.Upstream.Spec.StatName != "" {
			s.Tag("upstream_cluster.name", x.Upstream.Spec.StatName)
		}
	}
	s.Tag("component", "proxy")
	if x.GRPCStatus >= 0 {
		s.Tag("grpc.status_code", strconv.FormatInt(int64(x.GRPCStatus), 10))
	}
	if s.Error {
		s.Tag("error", "true")
	}
	for _, v := range x.Shadow {
		result := "denied"
		if v.Allowed {
			result = "allowed"
		}
		s.Tag(v.Prefix+"shadow_engine_result", result)
		s.Tag(v.Prefix+"shadow_effective_policy_id", v.Policy)
	}
	t.custom(x, s, record)
	t.exporter.Export(s)
}

func (t *Tracer) name(x *filter.Exchange, record *accesslog.Record) string {
	switch {
	case x.Target.Operation != "":
		return x.Target.Operation
	case t.operation != nil:
		x.Record(record)
		return string(t.operation.Append(nil, record))
	}
	if x.Conn.Direction == filter.Inbound {
		return "ingress"
	}
	return "egress " + x.Request.Authority
}

func (t *Tracer) custom(x *filter.Exchange, s *trace.Span, record *accesslog.Record) {
	for i := range t.tags {
		tag := &t.tags[i]
		value := tag.Value
		switch tag.Kind {
		case config.TagHeader:
			if v, ok := x.Request.Header.Joined(tag.Value); ok {
				value = v
			} else {
				value = tag.Default
			}
		case config.TagFormat:
			x.Record(record)
			value = string(tag.format.Append(nil, record))
		}
		if value != "" {
			s.Tag(tag.Name, value)
		}
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
