// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/meltemi/meltemi/message"
)

func header(fields ...string) *message.Header {
	h := new(message.Header)
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h
}

const (
	w3c     = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	b3Value = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0-05e3ac9a4f6e3b90"
)

func TestExtract(t *testing.T) {
	for _, c := range []struct {
		name    string
		h       *message.Header
		ok      bool
		sampled bool
		format  Format
	}{
		{"nothing", header(), false, false, 0},
		{"W3C", header("Traceparent", w3c, "tracestate", "a=1", "tracestate", "b=2"), true, true, W3C},
		{"W3C of a later version", header("traceparent", "cc"+w3c[2:]+"-what"), true, true, W3C},
		{"W3C too long", header("traceparent", w3c+"-what"), false, false, 0},
		{"W3C of zeros", header("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"), false, false, 0},
		{"W3C bad, B3 good", header("traceparent", "rubbish", "b3", b3Value), true, false, B3Single},
		{"B3 debug", header("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-d"), true, true, B3Single},
		{"B3 deny alone", header("b3", "0"), false, false, 0},
		{"B3 in several", header("x-b3-traceid", "a3ce929d0e0e4736", "x-b3-spanid", "00f067aa0ba902b7", "x-b3-sampled", "1"), true, true, B3},
		{"B3 without a span", header("x-b3-traceid", "a3ce929d0e0e4736"), false, false, 0},
	} {
		got, ok := Extract(c.h)
		if ok != c.ok || got.Sampled != c.sampled || got.Format != c.format {
			t.Errorf("%s: %+v %v", c.name, got, ok)
		}
	}
	c, _ := Extract(header("traceparent", w3c, "tracestate", "a=1", "tracestate", "b=2"))
	if c.State != "a=1,b=2" {
		t.Errorf("state = %q", c.State)
	}
}

func TestInjectTellsWhatExtractReads(t *testing.T) {
	for _, in := range []*message.Header{
		header("traceparent", w3c), header("b3", b3Value),
		header("x-b3-traceid", "a3ce929d0e0e4736", "x-b3-spanid", "00f067aa0ba902b7", "x-b3-sampled", "1"),
	} {
		up, ok := Extract(in)
		if !ok {
			t.Fatalf("%v", in.Fields())
		}
		c := up.Child()
		if c.Trace != up.Trace || c.Parent != up.Span || c.Span == up.Span {
			t.Errorf("child %+v of %+v", c, up)
		}
		Inject(in, &c)
		for _, strip := range []string{"", traceparent, b3} {
			in.Delete(strip)
			got, ok := Extract(in)
			if !ok {
				break
			}
			if got.Trace != c.Trace || got.Span != c.Span || got.Sampled != c.Sampled {
				t.Errorf("without %q: read %+v, want %+v", strip, got, c)
			}
		}
	}
	root := Context{}.Child()
	if !root.Valid() || root.Parent != (SpanID{}) {
		t.Errorf("root %+v", root)
	}
}

func TestRequestID(t *testing.T) {
	seen := map[RequestID]bool{}
	for range 1000 {
		id := NewRequestID()
		if seen[id] || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("id %s", id[:])
		}
		seen[id] = true
		back, ok := ParseRequestID(string(id[:]))
		if !ok || back != id {
			t.Fatalf("%s is read as %s", id[:], back[:])
		}
	}
	if _, ok := ParseRequestID("not-a-uuid"); ok {
		t.Error("read what is no UUID")
	}
}

func TestSampling(t *testing.T) {
	all := uint32(10_000)
	for _, c := range []struct {
		name             string
		s                Sampling
		byClient, forced bool
		carried          Reason
		want             Reason
	}{
		{"nothing asks", Sampling{all, 0, all}, false, false, NotTraced, NotTraced},
		{"random", Sampling{all, all, all}, false, false, NotTraced, Sampled},
		{"client", Sampling{all, 0, all}, true, false, NotTraced, ByClient},
		{"client not honoured", Sampling{0, 0, all}, true, false, NotTraced, NotTraced},
		{"forced", Sampling{all, 0, all}, false, true, NotTraced, Forced},
		{"carried", Sampling{all, 0, all}, false, false, Sampled, Sampled},
		{"capped", Sampling{all, all, 0}, true, true, Forced, NotTraced},
	} {
		id := NewRequestID()
		id.SetReason(c.carried)
		if got := c.s.Decide(&id, c.byClient, c.forced); got != c.want {
			t.Errorf("%s: %c, want %c", c.name, got, c.want)
		}
	}
	n := 0
	for range 10_000 {
		id := NewRequestID()
		if (Sampling{0, 2500, all}).Decide(&id, false, false) == Sampled {
			n++
		}
	}
	if n < 2200 || n > 2800 {
		t.Errorf("%d of 10,000 sampled, want about 2,500", n)
	}
}

type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	got chan *collectorv1.ExportTraceServiceRequest
}

func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.got <- r
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func TestExportOverGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{got: make(chan *collectorv1.ExportTraceServiceRequest, 1)}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	sender, err := NewSender(Collector{Authority: "collector:4317", Service: "reviews.default", Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}})
	if err != nil {
		t.Fatal(err)
	}
	e := NewExporter(sender)
	span := &Span{Context: Context{Sampled: true}.Child(), Name: "op \xff", Server: true, Start: time.Now(), End: time.Now(), Error: true}
	span.Tag("http.method", "GET")
	e.Export(span)
	e.Close()
	if err := e.Err(); err != nil {
		t.Fatal(err)
	}
	r := <-c.got
	got := r.ResourceSpans[0].ScopeSpans[0].Spans[0]
	if got.Name != "op \ufffd" || string(got.TraceId) != string(span.Trace[:]) || got.Attributes[0].Key != "http.method" ||
		r.ResourceSpans[0].Resource.Attributes[0].Value.GetStringValue() != "reviews.default" {
		t.Errorf("collector got %v", r)
	}
	if sent, dropped, failed := e.Stats(); sent != 1 || dropped+failed != 0 {
		t.Errorf("sent %d, dropped %d, failed %d", sent, dropped, failed)
	}
}

func TestExportOverHTTP(t *testing.T) {
	paths := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { paths <- r.Host + r.URL.Path }))
	t.Cleanup(s.Close)
	sender, err := NewSender(Collector{Authority: "collector:4318", HTTPPath: "/v1/traces", Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}})
	if err != nil {
		t.Fatal(err)
	}
	e := NewExporter(sender)
	e.Export(&Span{Context: Context{}.Child()})
	e.Close()
	if got := <-paths; got != "collector:4318/v1/traces" {
		t.Errorf("posted to %s", got)
	}
}

// stuck is a sender whose collector never answers.
type stuck struct{}

func (stuck) Send(ctx context.Context, _ []*Span) error {
	<-ctx.Done()
	return errors.New("no answer")
}
func (stuck) Close() error { return nil }

func TestExporterDropsInsteadOfBlocking(t *testing.T) {
	e := newExporter(stuck{}, time.Millisecond)
	for range queueSpans + 2*batchSpans {
		e.Export(&Span{})
	}
	if _, dropped, _ := e.Stats(); dropped == 0 {
		t.Error("nothing was dropped")
	}
	e.Close()
}

func FuzzExtract(f *testing.F) {
	f.Add(w3c, b3Value, "a3ce929d0e0e4736")
	f.Fuzz(func(t *testing.T, tp, single, multi string) {
		h := header("traceparent", tp, "b3", single, "x-b3-traceid", multi, "x-b3-spanid", multi)
		if c, ok := Extract(h); ok {
			Inject(h, &c)
			if got, ok := Extract(h); !ok || got.Trace != c.Trace {
				t.Errorf("read %+v, wrote, read %+v", c, got)
			}
		}
	})
}
