// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry/accesslog"
	"github.com/meltemi/meltemi/telemetry/trace"
)

// tracers are the exporters of a server, one for each collector and service.
type tracers struct {
	mu        sync.Mutex
	exporters map[exporterKey]*trace.Exporter
	node      Node
}

type exporterKey struct{ cluster, service, path string }

func (t *tracers) init(cfg Config) { t.exporters, t.node = map[exporterKey]*trace.Exporter{}, cfg.Node }

func (t *tracers) close() {
	t.mu.Lock()
	exporters := t.exporters
	t.exporters = map[exporterKey]*trace.Exporter{}
	t.mu.Unlock()
	for _, e := range exporters {
		e.Close()
	}
}

// A tracer makes the spans of one connection manager.
type tracer struct {
	cfg       *config.Tracing
	sampling  trace.Sampling
	exporter  *trace.Exporter // nil: contexts are passed on, spans go nowhere
	operation *accesslog.Format
	tags      []tagFormat
	node      Node
}

type tagFormat struct {
	config.Tag
	format *accesslog.Format
}

// get returns the tracer for cfg; nil for nil.
func (t *tracers) get(cfg *config.Tracing, server Config) (*tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	tr := &tracer{cfg: cfg, sampling: trace.Sampling{Client: cfg.Client, Random: cfg.Random, Overall: cfg.Overall}, node: t.node}
	for _, tag := range cfg.Tags {
		f := tagFormat{Tag: tag}
		switch tag.Kind {
		case config.TagFormat:
			var err error
			if f.format, err = accesslog.Compile(tag.Value, server.Formats); err != nil {
				return nil, fmt.Errorf("tracing tag %s: %w", tag.Name, err)
			}
		case config.TagEnvironment:
			f.Value = tag.Default
			if server.Formats.Environment != nil {
				if v := server.Formats.Environment(tag.Value); v != "" {
					f.Value = v
				}
			}
		}
		tr.tags = append(tr.tags, f)
	}
	if cfg.Operation != "" {
		var err error
		if tr.operation, err = accesslog.Compile(cfg.Operation, server.Formats); err != nil {
			return nil, fmt.Errorf("tracing operation: %w", err)
		}
	}
	if cfg.Cluster == "" || server.DialCluster == nil {
		return tr, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := exporterKey{cfg.Cluster, cfg.Service, cfg.HTTPPath}
	if tr.exporter = t.exporters[key]; tr.exporter != nil {
		return tr, nil
	}
	c := trace.Collector{
		Dial:      func(ctx context.Context) (net.Conn, error) { return server.DialCluster(ctx, cfg.Cluster) },
		Authority: cfg.Cluster, HTTPPath: cfg.HTTPPath, Service: cfg.Service,
	}
	for k, v := range t.node.Resource {
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

// decorator is how one proxy tells the next what to call the operation.
const decorator = "x-envoy-decorator-operation"

// begin places the exchange in its trace. A caller's decision counts more than ours.
func (t *tracer) begin(x *exchange, sampled bool) {
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

// propagate tells the next hop, once the route is known.
func (t *tracer) propagate(x *exchange) {
	h := &x.Request.Header
	if !t.cfg.NoPropagation {
		trace.Inject(h, &x.Trace)
	}
	if x.Conn.Direction == filter.Inbound {
		if op, ok := h.Lookup(decorator); ok {
			if x.Span != nil {
				x.Span.Name = string([]byte(op))
			}
			h.Delete(decorator)
		}
		return
	}
	if d := x.decision.Route.Decorator; d != nil && d.Propagate && d.Operation != "" {
		h.Set(decorator, d.Operation)
	}
}

// end completes the exchange's span and hands it over.
func (t *tracer) end(x *exchange) {
	s := x.Span
	took, _ := x.Since(filter.ResponseEnd)
	s.End = s.Start.Add(took)
	if s.Name == "" {
		s.Name = t.name(x)
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
	s.Tag("http.status_code", x.number(int64(status)))
	s.Tag("request_size", x.number(int64(x.Received)))
	s.Tag("response_size", x.number(int64(x.Sent)))
	s.Tag("response_flags", x.Flags.String())
	if x.Target.Cluster != "" {
		s.Tag("upstream_cluster", x.Target.Cluster)
		if x.Upstream.Spec != nil && x.Upstream.Spec.StatName != "" {
			s.Tag("upstream_cluster.name", x.Upstream.Spec.StatName)
		}
	}
	s.Tag("component", "proxy")
	if x.GRPCStatus >= 0 {
		s.Tag("grpc.status_code", x.number(int64(x.GRPCStatus)))
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
	t.custom(x, s)
	t.exporter.Export(s)
}

func (t *tracer) name(x *exchange) string {
	switch {
	case x.Target.Operation != "":
		return x.Target.Operation
	case t.operation != nil:
		x.Record(&x.record)
		return string(t.operation.Append(nil, &x.record))
	}
	if x.Conn.Direction == filter.Inbound {
		return "ingress"
	}
	return "egress " + x.Request.Authority
}

func (t *tracer) custom(x *exchange, s *trace.Span) {
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
			x.Record(&x.record)
			value = string(tag.format.Append(nil, &x.record))
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
