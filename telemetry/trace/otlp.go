// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A Collector is where spans go, over OTLP.
type Collector struct {
	// Dial connects to the collector; TLS, if any, is done when it returns.
	Dial func(ctx context.Context) (net.Conn, error)
	// Authority is what requests name as their host.
	Authority string
	// HTTPPath is where to POST ("/v1/traces"); "" for gRPC.
	HTTPPath string
	// Service is the resource's service.name; Resource its other attributes.
	Service  string
	Resource []Tag
}

// NewSender returns a sender to c. It connects when there is something to send.
func NewSender(c Collector) (Sender, error) {
	resource := &resourcev1.Resource{Attributes: attributes(append([]Tag{{"service.name", c.Service}}, c.Resource...))}
	if c.HTTPPath != "" {
		t := &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) },
			MaxIdleConns:    1,
			IdleConnTimeout: time.Minute,
		}
		return &httpSender{resource: resource, client: &http.Client{Transport: t}, url: "http://" + c.Authority + c.HTTPPath}, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Authority,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(c.Authority),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.Dial(ctx) }),
		grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("trace collector %s: %w", c.Authority, err)
	}
	return &grpcSender{resource: resource, conn: conn}, nil
}

type grpcSender struct {
	resource *resourcev1.Resource
	conn     *grpc.ClientConn
}

// export is the collector's method. Its generated client is not used because it
// brings an HTTP gateway along, which every sidecar would hold in memory.
const export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

func (s *grpcSender) Send(ctx context.Context, batch []*Span) error {
	return s.conn.Invoke(ctx, export, request(s.resource, batch), &emptypb.Empty{})
}

func (s *grpcSender) Close() error { return s.conn.Close() }

type httpSender struct {
	resource *resourcev1.Resource
	client   *http.Client
	url      string
}

func (s *httpSender) Send(ctx context.Context, batch []*Span) error {
	body, err := proto.Marshal(request(s.resource, batch))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("trace collector answers %s", resp.Status)
	}
	return nil
}

func (s *httpSender) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// request is an ExportTraceServiceRequest: TracesData is the same on the wire.
func request(resource *resourcev1.Resource, batch []*Span) *tracev1.TracesData {
	spans := make([]*tracev1.Span, 0, len(batch))
	for _, s := range batch {
		spans = append(spans, convert(s))
	}
	return &tracev1.TracesData{ResourceSpans: []*tracev1.ResourceSpans{{
		Resource:   resource,
		ScopeSpans: []*tracev1.ScopeSpans{{Scope: &commonv1.InstrumentationScope{Name: "meltemi"}, Spans: spans}},
	}}}
}

func convert(s *Span) *tracev1.Span {
	out := &tracev1.Span{
		TraceId: s.Trace[:], SpanId: s.Context.Span[:], TraceState: valid(s.State), Name: valid(s.Name),
		Kind:              tracev1.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(s.Start.UnixNano()), EndTimeUnixNano: uint64(s.End.UnixNano()),
		Attributes: attributes(s.Tags),
		Status:     &tracev1.Status{},
	}
	if s.Server {
		out.Kind = tracev1.Span_SPAN_KIND_SERVER
	}
	if s.Parent != (SpanID{}) {
		out.ParentSpanId = s.Parent[:]
	}
	if s.Error {
		out.Status.Code = tracev1.Status_STATUS_CODE_ERROR
	}
	return out
}

func attributes(tags []Tag) []*commonv1.KeyValue {
	out := make([]*commonv1.KeyValue, 0, len(tags))
	for _, t := range tags {
		out = append(out, &commonv1.KeyValue{Key: t.Key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: valid(t.Value)}}})
	}
	return out
}

// valid keeps bytes that are no UTF-8, which a peer may send, from making a
// whole batch unsendable.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
